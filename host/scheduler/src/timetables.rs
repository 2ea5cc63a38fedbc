//! Airflow's own timetables: when the next run is due, and which data interval it covers.
//!
//! Every function is told what time it is. Custom timetables are Python code and unknown here.

mod cron;
mod delta;
mod interval;
mod partition;
mod read;
mod trigger;
mod zone;

#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use model::SerializedDag;

use self::cron::Cron;
use self::delta::Delta;
pub(crate) use self::partition::CronPartition;
use self::trigger::CronTrigger;
pub(crate) use self::zone::Zone;

/// Start and end of the data that a run is about. `airflow: DataInterval`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) start: DateTime<Utc>,
    pub(crate) end: DateTime<Utc>,
}

impl Interval {
    pub(crate) fn exact(at: DateTime<Utc>) -> Self {
        Self { start: at, end: at }
    }
}

/// A run that a timetable asks for: due at the end of its interval, named by its start. `airflow: DagRunInfo`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) run_after: DateTime<Utc>,
    pub(crate) interval: Interval,
}

impl Info {
    fn of(interval: Interval) -> Self {
        Self {
            run_after: interval.end,
            interval,
        }
    }
}

/// `airflow: TimeRestriction`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restriction {
    pub(crate) earliest: Option<DateTime<Utc>>,
    pub(crate) latest: Option<DateTime<Utc>>,
    pub(crate) catchup: bool,
}

impl Restriction {
    /// `airflow: SerializedDAG._time_restriction`
    pub(crate) fn of(dag: &SerializedDag) -> Self {
        let starts = dag.tasks.iter().filter_map(|task| task.start_date);
        let ends: Option<Vec<DateTime<Utc>>> = dag.tasks.iter().map(|task| task.end_date).collect();
        Self {
            earliest: starts.chain(dag.start_date).min(),
            latest: match ends {
                // Every task has an end: the last of them, or the DAG's, counts.
                Some(ends) => ends.into_iter().chain(dag.end_date).max(),
                None => dag.end_date,
            },
            catchup: dag.catchup,
        }
    }
}

/// A date that can't be computed, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Problem(pub(crate) String);

impl Problem {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Why data of a timetable can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// A class that is not here.
    Class(String),
    /// Its data are not as Airflow writes them.
    Data {
        class: String,
        problem: String,
    },
    Cron {
        expression: String,
        problem: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Timetable {
    /// Never, and those that only assets or people trigger.
    Null,
    Once,
    Continuous,
    CronTrigger(CronTrigger),
    MultipleCronTrigger(Vec<CronTrigger>),
    DeltaTrigger {
        delta: Delta,
        interval: Delta,
    },
    CronDataInterval {
        cron: Cron,
        zone: Zone,
    },
    DeltaDataInterval {
        delta: Delta,
    },
    Events(Events),
    /// Assets trigger it as well.
    AssetOrTime(Box<Timetable>),
    Asset,
    /// Its runs are of partitions: they have a key and no data interval.
    CronPartition(CronPartition),
    /// Events of partitions trigger it.
    PartitionedAsset,
    /// Never, as the first; but its runs may be of partitions.
    PartitionedAtRuntime,
}

/// `airflow: EventsTimetable`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Events {
    /// Ascending.
    dates: Vec<DateTime<Utc>>,
    restrict_to_events: bool,
}

impl Timetable {
    /// The run after the last one. `airflow: Timetable.next_dagrun_info`
    pub(crate) fn next(
        &self,
        last: Option<Interval>,
        restriction: &Restriction,
        now: DateTime<Utc>,
    ) -> Result<Option<Info>, Problem> {
        match self {
            // Runs of partitions have no interval: see CronPartition::next.
            Self::Null
            | Self::Asset
            | Self::PartitionedAsset
            | Self::PartitionedAtRuntime
            | Self::CronPartition(_) => Ok(None),
            Self::Once => Ok(once(last, restriction, now)),
            Self::Continuous => Ok(continuous(last, restriction, now)),
            Self::CronTrigger(cron) => trigger::next(cron, last, restriction, now),
            Self::MultipleCronTrigger(crons) => {
                trigger::next_of_many(crons, last, restriction, now)
            }
            Self::DeltaTrigger { delta, interval } => {
                let ticks = trigger::DeltaTrigger { delta, interval };
                trigger::next(&ticks, last, restriction, now)
            }
            Self::CronDataInterval { cron, zone } => interval::next(
                &interval::CronInterval { cron, zone },
                last,
                restriction,
                now,
            ),
            Self::DeltaDataInterval { delta } => {
                interval::next(&interval::DeltaInterval { delta }, last, restriction, now)
            }
            Self::Events(events) => Ok(events.next(last, restriction, now)),
            Self::AssetOrTime(timetable) => timetable.next(last, restriction, now),
        }
    }

    /// The interval of a run that somebody asks for. `airflow: Timetable.infer_manual_data_interval`
    pub(crate) fn infer_manual(&self, run_after: DateTime<Utc>) -> Result<Interval, Problem> {
        match self {
            Self::Null
            | Self::Asset
            | Self::PartitionedAsset
            | Self::PartitionedAtRuntime
            | Self::CronPartition(_)
            | Self::Once
            | Self::Continuous => Ok(Interval::exact(run_after)),
            Self::CronTrigger(cron) => cron.infer_manual(run_after),
            Self::MultipleCronTrigger(crons) => {
                let intervals: Result<Vec<Interval>, Problem> = crons
                    .iter()
                    .map(|cron| cron.infer_manual(run_after))
                    .collect();
                intervals?
                    .into_iter()
                    .min_by_key(|interval| interval.start)
                    .ok_or_else(|| Problem::new("it has no cron expression"))
            }
            Self::DeltaTrigger { interval, .. } => Ok(Interval {
                start: interval.before(run_after)?,
                end: run_after,
            }),
            Self::CronDataInterval { cron, zone } => {
                let end = cron.align_to_prev(zone, run_after)?;
                Ok(Interval {
                    start: cron.before(zone, end)?,
                    end,
                })
            }
            Self::DeltaDataInterval { delta } => Ok(Interval {
                start: delta.before(run_after)?,
                end: run_after,
            }),
            Self::Events(events) => Ok(events.infer_manual(run_after)),
            Self::AssetOrTime(timetable) => timetable.infer_manual(run_after),
        }
    }
}

fn once(last: Option<Interval>, restriction: &Restriction, now: DateTime<Utc>) -> Option<Info> {
    if last.is_some() {
        return None;
    }
    let run_after = restriction.earliest.unwrap_or(now);
    let too_late = restriction.latest.is_some_and(|latest| run_after > latest);
    (!too_late).then(|| Info::of(Interval::exact(run_after)))
}

fn continuous(
    last: Option<Interval>,
    restriction: &Restriction,
    now: DateTime<Utc>,
) -> Option<Info> {
    let begin = restriction.earliest.unwrap_or(now);
    let interval = match last {
        None => Interval {
            start: begin,
            end: begin.max(now),
        },
        Some(last) if last.end > now => Interval {
            start: begin,
            end: begin.checked_add_signed(last.end - last.start)?,
        },
        Some(last) => Interval {
            start: last.end,
            end: now,
        },
    };
    let too_late = restriction
        .latest
        .is_some_and(|latest| interval.end > latest);
    (!too_late).then(|| Info::of(interval))
}

impl Events {
    fn next(
        &self,
        last: Option<Interval>,
        restriction: &Restriction,
        now: DateTime<Utc>,
    ) -> Option<Info> {
        let mut earliest = restriction.earliest;
        if !restriction.catchup && earliest.is_none_or(|earliest| now > earliest) {
            earliest = Some(now);
        }
        let event = self.dates.iter().copied().find(|&event| {
            earliest.is_none_or(|earliest| event >= earliest)
                && last.is_none_or(|last| event > last.end)
        })?;
        let too_late = restriction.latest.is_some_and(|latest| event > latest);
        (!too_late).then(|| Info::of(Interval::exact(event)))
    }

    fn infer_manual(&self, run_after: DateTime<Utc>) -> Interval {
        let at = match self.dates.first() {
            Some(&first) if self.restrict_to_events => self
                .dates
                .iter()
                .rev()
                .copied()
                .find(|&event| event <= run_after)
                .unwrap_or(first),
            Some(_) | None => run_after,
        };
        Interval::exact(at)
    }
}
