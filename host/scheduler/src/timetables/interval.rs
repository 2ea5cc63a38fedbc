//! Timetables whose data intervals follow one another, each run due at the end of its own.
//! `airflow: _DataIntervalTimetable`

use chrono::{DateTime, TimeDelta, Utc};

use super::{Cron, Delta, Info, Interval, Problem, Restriction, Zone};

/// `airflow: CronDataIntervalTimetable`
pub(super) struct CronInterval<'a> {
    pub(super) cron: &'a Cron,
    pub(super) zone: &'a Zone,
}

/// `airflow: DeltaDataIntervalTimetable`
pub(super) struct DeltaInterval<'a> {
    pub(super) delta: &'a Delta,
}

/// How the borders of intervals are found.
pub(super) trait Borders {
    fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    fn align_to_next(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    fn align_to_prev(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem>;
    /// Without catchup: the start of the newest interval that is over, or `earliest` if that is later.
    fn skip_to_latest(
        &self,
        earliest: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Problem>;
}

pub(super) fn next(
    borders: &impl Borders,
    last: Option<Interval>,
    restriction: &Restriction,
    now: DateTime<Utc>,
) -> Result<Option<Info>, Problem> {
    let earliest = match (restriction.catchup, restriction.earliest) {
        (false, earliest) => Some(borders.skip_to_latest(earliest, now)?),
        (true, Some(earliest)) => Some(borders.align_to_next(earliest)?),
        (true, None) => None,
    };
    let start = match (last, earliest) {
        (None, None) => return Ok(None),
        (None, Some(earliest)) => earliest,
        (Some(last), earliest) => after_last(borders, last, earliest)?,
    };
    if restriction.latest.is_some_and(|latest| start > latest) {
        return Ok(None);
    }
    let end = borders.after(start)?;
    Ok(Some(Info::of(Interval { start, end })))
}

/// A changed schedule can bring the start back to that of the last run, or before: one step on then.
fn after_last(
    borders: &impl Borders,
    last: Interval,
    earliest: Option<DateTime<Utc>>,
) -> Result<DateTime<Utc>, Problem> {
    let aligned = borders.align_to_prev(last.end)?;
    let mut start = earliest.map_or(aligned, |earliest| aligned.max(earliest));
    if start <= last.start {
        start = borders.after(start)?;
        if start <= last.start {
            return Err(Problem(format!(
                "it does not advance past {}, the start of the last run",
                last.start
            )));
        }
    }
    Ok(start)
}

impl Borders for CronInterval<'_> {
    fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.cron.after(self.zone, at)
    }

    fn align_to_next(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.cron.align_to_next(self.zone, at)
    }

    fn align_to_prev(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.cron.align_to_prev(self.zone, at)
    }

    fn skip_to_latest(
        &self,
        earliest: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Problem> {
        let last_start = self.cron.before(self.zone, now)?;
        let next_start = self.cron.after(self.zone, last_start)?;
        if next_start < now {
            return Err(Problem::new("its next date is before now"));
        }
        let start = if next_start == now {
            last_start
        } else {
            self.cron.before(self.zone, last_start)?
        };
        match earliest {
            None => Ok(start),
            Some(earliest) => Ok(start.max(self.align_to_next(earliest)?)),
        }
    }
}

impl Borders for DeltaInterval<'_> {
    fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.delta.after(at)
    }

    fn align_to_next(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        Ok(at)
    }

    fn align_to_prev(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        Ok(at)
    }

    fn skip_to_latest(
        &self,
        earliest: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Problem> {
        let floor = floor(self.delta, now, earliest.unwrap_or(now))?;
        let start = self.delta.before(floor)?;
        Ok(earliest.map_or(start, |earliest| start.max(earliest)))
    }
}

/// The last border at or before `at`: fixed lengths on a grid from 1970, those of the calendar step by step
/// from the anchor, for their day of month depends on the way. `airflow: DeltaDataIntervalTimetable._round`
fn floor(
    delta: &Delta,
    at: DateTime<Utc>,
    anchor: DateTime<Utc>,
) -> Result<DateTime<Utc>, Problem> {
    if delta.is_calendrical() {
        let mut border = anchor;
        loop {
            let next = delta.after(border)?;
            if next > at {
                return Ok(border);
            }
            if next <= border {
                return Err(Problem::new("its length is not positive"));
            }
            border = next;
        }
    }
    let length = delta.microseconds().filter(|&length| length > 0);
    let length = length.ok_or_else(|| Problem::new("its length is not positive"))?;
    let beyond = at.timestamp_micros().rem_euclid(length);
    at.checked_sub_signed(TimeDelta::microseconds(beyond))
        .ok_or_else(|| Problem::new("the date is out of range"))
}
