//! Timetables that fire at points in time, with a data interval that is told separately.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Cron, Delta, Info, Interval, Problem, Restriction, Zone};

/// `airflow: CronTriggerTimetable`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CronTrigger {
    pub(super) cron: Cron,
    pub(super) zone: Zone,
    pub(super) interval: Delta,
    pub(super) run_immediately: RunImmediately,
}

/// Whether a DAG without a start date begins with the point that has just passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunImmediately {
    Always,
    /// If it passed no longer ago than this.
    Within(TimeDelta),
    /// If it passed within a tenth of the distance of two points, at least 5 minutes.
    Default,
}

/// `airflow: DeltaTriggerTimetable`
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaTrigger<'a> {
    pub(super) delta: &'a Delta,
    pub(super) interval: &'a Delta,
}

/// Points in time. `airflow: _TriggerTimetable`
pub(super) trait Ticks {
    fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    fn align_to_next(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    fn align_to_prev(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    /// Where a DAG without a start date begins.
    fn first(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    fn interval(&self) -> &Delta;
}

/// `airflow: _TriggerTimetable.next_dagrun_info`
pub(super) fn next(
    ticks: &impl Ticks,
    last: Option<Interval>,
    restriction: &Restriction,
    now: DateTime<Utc>,
) -> Result<Option<Info>, Problem> {
    let aligned = restriction
        .earliest
        .map(|earliest| ticks.align_to_next(earliest));
    let start = match (last, aligned) {
        (Some(last), aligned) => {
            let after = ticks.after(last.end)?;
            match aligned {
                Some(aligned) if !restriction.catchup => after.max(aligned?),
                Some(_) | None => after,
            }
        }
        (None, Some(aligned)) => aligned?,
        (None, None) => ticks.first(now)?,
    };
    let start = if restriction.catchup {
        start
    } else {
        start.max(ticks.align_to_prev(now)?)
    };
    if restriction.latest.is_some_and(|latest| latest < start) {
        return Ok(None);
    }
    Ok(Some(Info::of(Interval {
        start: ticks.interval().before(start)?,
        end: start,
    })))
}

/// The next of all; without catchup the latest of those that have passed, if any has.
/// `airflow: MultipleCronTriggerTimetable.next_dagrun_info`
pub(super) fn next_of_many(
    crons: &[CronTrigger],
    last: Option<Interval>,
    restriction: &Restriction,
    now: DateTime<Utc>,
) -> Result<Option<Info>, Problem> {
    let mut infos = Vec::new();
    for cron in crons {
        infos.extend(next(cron, last, restriction, now)?);
    }
    Ok(infos.into_iter().min_by_key(|info| {
        let date = info.interval.start;
        let micros = date.timestamp_micros();
        if !restriction.catchup && date <= now {
            -micros
        } else {
            micros
        }
    }))
}

impl CronTrigger {
    pub(super) fn infer_manual(&self, run_after: DateTime<Utc>) -> Result<Interval, Problem> {
        Ok(Interval {
            start: self.interval.before(run_after)?,
            end: run_after,
        })
    }
}

impl Ticks for CronTrigger {
    fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.cron.after(&self.zone, at)
    }

    fn align_to_next(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.cron.align_to_next(&self.zone, at)
    }

    fn align_to_prev(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.cron.align_to_prev(&self.zone, at)
    }

    /// `airflow: CronTriggerTimetable._calc_first_run`
    fn first(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        let past = self.align_to_prev(now)?;
        let coming = self.align_to_next(now)?;
        let patience = match self.run_immediately {
            RunImmediately::Always => return Ok(past),
            RunImmediately::Within(patience) => patience,
            RunImmediately::Default => ((coming - past) / 10).max(TimeDelta::minutes(5)),
        };
        Ok(if now - past <= patience { past } else { coming })
    }

    fn interval(&self) -> &Delta {
        &self.interval
    }
}

impl Ticks for DeltaTrigger<'_> {
    fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.delta.after(at)
    }

    fn align_to_next(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        Ok(at)
    }

    fn align_to_prev(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        Ok(at)
    }

    fn first(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        Ok(now)
    }

    fn interval(&self) -> &Delta {
        self.interval
    }
}
