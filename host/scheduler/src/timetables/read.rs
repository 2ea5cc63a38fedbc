//! From Airflow's serialized form to a timetable.

use chrono::{DateTime, TimeDelta, Utc};
use model::TimetableData;
use serde_json::Value;

use super::trigger::RunImmediately;
use super::{Cron, CronPartition, CronTrigger, Delta, Events, Timetable, Unreadable, Zone};

impl Timetable {
    /// `airflow: decode_timetable`
    pub(crate) fn read(data: &TimetableData) -> Result<Self, Unreadable> {
        timetable(&data.class, &data.var)
    }
}

fn timetable(class: &str, var: &Value) -> Result<Timetable, Unreadable> {
    let data = Data { class, var };
    let name = class.strip_prefix("airflow.timetables.");
    Ok(match name.unwrap_or_default() {
        "simple.NullTimetable" => Timetable::Null,
        "simple.PartitionedAtRuntime" => Timetable::PartitionedAtRuntime,
        "simple.OnceTimetable" => Timetable::Once,
        "simple.ContinuousTimetable" => Timetable::Continuous,
        "simple.AssetTriggeredTimetable" => Timetable::Asset,
        "simple.PartitionedAssetTimetable" => Timetable::PartitionedAsset,
        "trigger.CronPartitionTimetable" => Timetable::CronPartition(CronPartition {
            trigger: CronTrigger {
                interval: Delta::Fixed(TimeDelta::zero()),
                ..data.cron_trigger(data.text("expression")?)?
            },
            // airflow: what is not a whole number is a warning in the log, and 0.
            run_offset: data
                .get("run_offset")?
                .as_i64()
                .and_then(|offset| i32::try_from(offset).ok())
                .unwrap_or(0),
            key_format: data.text("key_format")?.to_owned(),
        }),
        "trigger.CronTriggerTimetable" => {
            Timetable::CronTrigger(data.cron_trigger(data.text("expression")?)?)
        }
        "trigger.MultipleCronTriggerTimetable" => {
            let crons = data.list("expressions")?.iter().map(|expression| {
                let expression = expression.as_str();
                data.cron_trigger(
                    expression.ok_or_else(|| data.problem("expressions are not strings"))?,
                )
            });
            Timetable::MultipleCronTrigger(crons.collect::<Result<_, _>>()?)
        }
        "trigger.DeltaTriggerTimetable" => Timetable::DeltaTrigger {
            delta: data.positive_delta("delta")?,
            interval: data.interval()?,
        },
        "interval.CronDataIntervalTimetable" => Timetable::CronDataInterval {
            cron: data.cron(data.text("expression")?)?,
            zone: data.zone()?,
        },
        "interval.DeltaDataIntervalTimetable" => Timetable::DeltaDataInterval {
            delta: data.positive_delta("delta")?,
        },
        "events.EventsTimetable" => Timetable::Events(data.events()?),
        "assets.AssetOrTimeSchedule" => {
            let inner = data.get("timetable")?;
            let class = inner.get("__type").and_then(Value::as_str);
            let class = class.ok_or_else(|| data.problem("timetable has no class"))?;
            let var = inner.get("__var").unwrap_or(&Value::Null);
            Timetable::AssetOrTime(Box::new(timetable(class, var)?))
        }
        _ => return Err(Unreadable::Class(class.to_owned())),
    })
}

struct Data<'a> {
    class: &'a str,
    var: &'a Value,
}

impl<'a> Data<'a> {
    fn problem(&self, problem: impl Into<String>) -> Unreadable {
        Unreadable::Data {
            class: self.class.to_owned(),
            problem: problem.into(),
        }
    }

    fn get(&self, name: &str) -> Result<&'a Value, Unreadable> {
        self.var
            .get(name)
            .ok_or_else(|| self.problem(format!("it has no {name}")))
    }

    fn text(&self, name: &str) -> Result<&'a str, Unreadable> {
        self.get(name)?
            .as_str()
            .ok_or_else(|| self.problem(format!("{name} is not a string")))
    }

    fn list(&self, name: &str) -> Result<&'a [Value], Unreadable> {
        self.get(name)?
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| self.problem(format!("{name} is not a list")))
    }

    fn cron(&self, expression: &str) -> Result<Cron, Unreadable> {
        Cron::parse(expression).map_err(|problem| Unreadable::Cron {
            expression: expression.to_owned(),
            problem,
        })
    }

    fn cron_trigger(&self, expression: &str) -> Result<CronTrigger, Unreadable> {
        Ok(CronTrigger {
            cron: self.cron(expression)?,
            zone: self.zone()?,
            interval: self.interval()?,
            run_immediately: match self.var.get("run_immediately") {
                Some(Value::Bool(true)) => RunImmediately::Always,
                // Only what Python reads as a float is a length of time.
                Some(Value::Number(seconds)) if seconds.is_f64() => {
                    match Delta::read(&Value::Number(seconds.clone())) {
                        Ok(Delta::Fixed(patience)) => RunImmediately::Within(patience),
                        Ok(Delta::Relative(_)) => RunImmediately::Within(TimeDelta::zero()),
                        Err(problem) => return Err(self.problem(problem)),
                    }
                }
                _ => RunImmediately::Default,
            },
        })
    }

    fn zone(&self) -> Result<Zone, Unreadable> {
        Zone::read(self.get("timezone")?).map_err(|problem| self.problem(problem))
    }

    fn delta(&self, name: &str) -> Result<Delta, Unreadable> {
        Delta::read(self.get(name)?).map_err(|problem| self.problem(problem))
    }

    fn interval(&self) -> Result<Delta, Unreadable> {
        match self.var.get("interval") {
            None => Ok(Delta::Fixed(TimeDelta::zero())),
            Some(_) => self.delta("interval"),
        }
    }

    /// A schedule must move on. One that leads to a certain weekday or hour may stand still on that very
    /// day, which Airflow lets pass. `airflow: DeltaMixin.validate`
    fn positive_delta(&self, name: &str) -> Result<Delta, Unreadable> {
        let delta = self.delta(name)?;
        let someday = DateTime::<Utc>::UNIX_EPOCH;
        match delta.after(someday) {
            Ok(later) if later > someday || delta.has_absolute_parts() => Ok(delta),
            _ => Err(self.problem("its delta is not positive")),
        }
    }

    fn events(&self) -> Result<Events, Unreadable> {
        let dates = self.list("event_dates")?.iter().map(|date| {
            date.as_str()
                .and_then(|date| DateTime::parse_from_rfc3339(date).ok())
                .map(|date| date.with_timezone(&Utc))
                .ok_or_else(|| self.problem(format!("{date} is not a date with a time zone")))
        });
        let restrict = self.get("restrict_to_events")?.as_bool();
        Ok(Events {
            dates: dates.collect::<Result<_, _>>()?,
            restrict_to_events: restrict.unwrap_or(false),
        })
    }
}
