//! Seconds since 1970 that only go forward: the wall clock is read once, later stepping of it changes no deadline.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: f64,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let base = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        Self {
            base,
            started: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> f64 {
        self.base + self.started.elapsed().as_secs_f64()
    }
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
}
