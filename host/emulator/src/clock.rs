//! Seconds since 1970 that only go forward.
//!
//! Two of them. Limits count with [`Clock::now`], which read the wall clock once: neither its stepping nor a machine that sleeps ends
//! what runs. Schedules, log lines and all that clients are told go by [`Clock::wall`], which follows the wall clock when that has gone
//! ahead.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Smaller differences come from slewing; the two are the same then.
const TOLERANCE: f64 = 3.0;

#[derive(Debug)]
pub(crate) struct Clock {
    base: f64,
    started: Instant,
    /// How far the wall clock has gone ahead: the bits of a number that is not negative, whose order is that of the numbers.
    ahead: AtomicU64,
}

/// One moment on both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: f64,
    pub(crate) wall: f64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            base: wall_clock(),
            started: Instant::now(),
            ahead: AtomicU64::new(0),
        }
    }

    /// As after a sleep of the machine for so many seconds.
    #[cfg(test)]
    pub(crate) fn after_sleep(seconds: f64) -> Self {
        Self {
            base: wall_clock() - seconds,
            ..Self::start()
        }
    }

    /// For limits.
    pub(crate) fn now(&self) -> f64 {
        self.base + self.started.elapsed().as_secs_f64()
    }

    /// For what people read off a clock.
    pub(crate) fn wall(&self) -> f64 {
        self.wall_at(self.now(), wall_clock())
    }

    pub(crate) fn moment(&self) -> Moment {
        let now = self.now();
        Moment {
            now,
            wall: self.wall_at(now, wall_clock()),
        }
    }

    fn wall_at(&self, now: f64, wall: f64) -> f64 {
        let known = f64::from_bits(self.ahead.load(Ordering::Relaxed));
        let ahead = wall - now;
        if ahead <= known + TOLERANCE {
            return now + known;
        }
        let before = self.ahead.fetch_max(ahead.to_bits(), Ordering::Relaxed);
        now + ahead.max(f64::from_bits(before))
    }
}

fn wall_clock() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// The time from `now` until `then`, zero if it has passed.
pub(crate) fn until(then: f64, now: f64) -> Duration {
    Duration::try_from_secs_f64(then - now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Clock, until};

    #[test]
    fn time_goes_forward_and_a_past_moment_is_zero_away() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first && first > 1.7e9);
        assert_eq!(
            (until(5.0, 7.0).as_secs(), until(7.0, 5.0).as_secs()),
            (0, 2)
        );
    }

    #[test]
    fn the_wall_clock_is_followed_when_it_goes_ahead() {
        let clock = Clock::start();
        let seen = [
            (100.0, 101.0),
            // The machine has slept for a minute.
            (101.0, 161.0),
            (102.0, 163.5),
            // Somebody has set the clock back.
            (103.0, 50.0),
            (104.0, 200.0),
        ];
        let told = seen.map(|(now, wall)| clock.wall_at(now, wall));
        assert_eq!(told, [100.0, 161.0, 162.0, 163.0, 200.0]);
        assert!(clock.now() < clock.wall());
    }
}
