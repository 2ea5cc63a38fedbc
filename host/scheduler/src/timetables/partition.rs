//! Runs of partitions on a cron schedule: each tick of the clock stands for a partition, some ticks on.

use chrono::{DateTime, Utc};

use super::trigger::{CronTrigger, Ticks, next};
use super::{Interval, Problem, Restriction};
use crate::python_dates::{Moment, Raised, strftime, strptime};

/// `airflow: CronPartitionTimetable`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CronPartition {
    pub(super) trigger: CronTrigger,
    /// Ticks from the run to its partition.
    pub(super) run_offset: i32,
    pub(super) key_format: String,
}

/// A run of a partition. `airflow: DagRunInfo` with a partition
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionInfo {
    pub(crate) run_after: DateTime<Utc>,
    pub(crate) partition_date: DateTime<Utc>,
    pub(crate) partition_key: String,
}

impl CronPartition {
    /// The run after the last one, which was due at `last`. `airflow: CronPartitionTimetable.next_dagrun_info_v2`
    pub(crate) fn next(
        &self,
        last: Option<DateTime<Utc>>,
        restriction: &Restriction,
        now: DateTime<Utc>,
    ) -> Result<Option<PartitionInfo>, Problem> {
        let last = last.map(Interval::exact);
        let Some(info) = next(&self.trigger, last, restriction, now)? else {
            return Ok(None);
        };
        let partition_date = self.partition_date(info.run_after)?;
        Ok(Some(PartitionInfo {
            run_after: info.run_after,
            partition_date,
            partition_key: self.key(partition_date),
        }))
    }

    fn partition_date(&self, run_date: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        let mut date = run_date;
        for _ in 0..self.run_offset.unsigned_abs() {
            date = match self.run_offset > 0 {
                true => self.trigger.after(date)?,
                false => self.trigger.cron.before(&self.trigger.zone, date)?,
            };
        }
        Ok(date)
    }

    /// The partition's name, on the clock of the timetable's zone.
    fn key(&self, partition_date: DateTime<Utc>) -> String {
        strftime(
            &Moment::at(partition_date, self.trigger.zone),
            &self.key_format,
        )
    }

    pub(crate) fn key_format(&self) -> &str {
        &self.key_format
    }

    /// The date that a key names. `airflow: CronPartitionTimetable._decode_partition_date`
    pub(crate) fn decode(&self, key: &str) -> Result<DateTime<Utc>, Raised> {
        let moment = strptime(key, &self.key_format)?;
        if !moment.is_naive() {
            return Err(Raised::value_error(format!(
                "make_aware expects a naive datetime, got {}",
                moment.isoformat()
            )));
        }
        Moment::make_aware(moment.local, self.trigger.zone)?
            .instant()
            .ok_or_else(|| Raised::value_error("date value out of range"))
    }
}
