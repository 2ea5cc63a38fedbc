//! When a run is needed by: `deadline=DeadlineAlert(…)` of a DAG. `airflow: serialization.definitions.deadline`

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

/// From what a deadline is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reference {
    FixedDatetime(DateTime<Utc>),
    DagRunLogicalDate,
    DagRunQueuedAt,
    /// The mean duration of the last successful runs, from now on.
    AverageRuntime {
        max_runs: i64,
        min_runs: i64,
    },
}

/// One alert of a DAG, without its callback.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alert {
    pub reference: Reference,
    pub interval: TimeDelta,
}

/// What of an alert can't be evaluated here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("a deadline with the reference {0:?}")]
    Reference(String),
    #[error("a deadline whose interval is {0}")]
    Interval(String),
}

impl Alert {
    /// Reads the columns `reference` and `interval` of `deadline_alert`.
    ///
    /// # Errors
    /// [`Unreadable`] for references and intervals that are Python code or come from a Variable.
    pub fn read(reference: &Value, interval: &Value) -> Result<Self, Unreadable> {
        Ok(Self {
            reference: read_reference(reference)?,
            interval: read_interval(interval)?,
        })
    }

    /// When the run is needed by; `None` when the reference says nothing for it (a run without a logical date, too few
    /// runs for an average). `durations` are the seconds that the last successful runs took, newest first.
    /// `airflow: SerializedBaseDeadlineReference.evaluate_with`
    #[must_use]
    pub fn time(
        &self,
        logical_date: Option<DateTime<Utc>>,
        queued_at: DateTime<Utc>,
        durations: &[f64],
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let base = match self.reference {
            Reference::FixedDatetime(date) => date,
            Reference::DagRunLogicalDate => logical_date?,
            Reference::DagRunQueuedAt => queued_at,
            Reference::AverageRuntime { max_runs, min_runs } => {
                let looked_at = &durations[..durations.len().min(usize::try_from(max_runs).ok()?)];
                if (looked_at.len() as i64) < min_runs || looked_at.is_empty() {
                    return None;
                }
                #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
                let mean = looked_at.iter().sum::<f64>() / looked_at.len() as f64;
                now.checked_add_signed(from_seconds(mean)?)?
            }
        };
        base.checked_add_signed(self.interval)
    }
}

fn read_reference(reference: &Value) -> Result<Reference, Unreadable> {
    let name = reference["reference_type"].as_str().unwrap_or_default();
    let unreadable = || Unreadable::Reference(name.to_owned());
    match name {
        "FixedDatetimeDeadline" => reference["datetime"]
            .as_f64()
            .and_then(from_seconds)
            .and_then(|since| DateTime::UNIX_EPOCH.checked_add_signed(since))
            .map(Reference::FixedDatetime)
            .ok_or_else(unreadable),
        "DagRunLogicalDateDeadline" => Ok(Reference::DagRunLogicalDate),
        "DagRunQueuedAtDeadline" => Ok(Reference::DagRunQueuedAt),
        "AverageRuntimeDeadline" => {
            let max_runs = reference["max_runs"].as_i64().unwrap_or(10);
            Ok(Reference::AverageRuntime {
                max_runs,
                min_runs: reference["min_runs"].as_i64().unwrap_or(max_runs),
            })
        }
        _ => Err(unreadable()),
    }
}

/// A timedelta as Airflow's serde writes it, or the bare seconds of older versions.
fn read_interval(interval: &Value) -> Result<TimeDelta, Unreadable> {
    let class = interval["__classname__"].as_str();
    let seconds = match class {
        Some("datetime.timedelta") => interval["__data__"].as_f64(),
        Some(_) => None,
        None => interval.as_f64(),
    };
    seconds
        .and_then(from_seconds)
        .ok_or_else(|| Unreadable::Interval(class.unwrap_or("no number").to_owned()))
}

fn from_seconds(seconds: f64) -> Option<TimeDelta> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float out of range becomes the nearest integer, which is out of range of dates too"
    )]
    let micros = (seconds * 1e6).round() as i64;
    seconds.is_finite().then(|| TimeDelta::microseconds(micros))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::json;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn time(reference: Value, logical_date: Option<&str>, durations: &[f64]) -> Option<String> {
        let hour =
            json!({"__classname__": "datetime.timedelta", "__version__": 2, "__data__": 3600.0});
        Alert::read(&reference, &hour)
            .unwrap()
            .time(
                logical_date.map(at),
                at("2026-01-01T10:00:00Z"),
                durations,
                at("2026-01-01T10:00:05Z"),
            )
            .map(|date| date.to_rfc3339())
    }

    #[test]
    fn each_reference_is_counted_from_its_own_date() {
        let fixed = json!({"reference_type": "FixedDatetimeDeadline", "datetime": 1767225600.0});
        insta::assert_debug_snapshot!(time(fixed, None, &[]), @r#"
        Some(
            "2026-01-01T01:00:00+00:00",
        )
        "#);
        let queued = json!({"reference_type": "DagRunQueuedAtDeadline"});
        insta::assert_debug_snapshot!(time(queued, None, &[]), @r#"
        Some(
            "2026-01-01T11:00:00+00:00",
        )
        "#);
        let logical = json!({"reference_type": "DagRunLogicalDateDeadline"});
        insta::assert_debug_snapshot!(time(logical.clone(), Some("2025-12-31T00:00:00Z"), &[]), @r#"
        Some(
            "2025-12-31T01:00:00+00:00",
        )
        "#);
        assert_eq!(time(logical, None, &[]), None);
    }

    #[test]
    fn an_average_wants_enough_runs_and_looks_at_the_newest() {
        let average =
            json!({"reference_type": "AverageRuntimeDeadline", "max_runs": 3, "min_runs": 2});
        assert_eq!(time(average.clone(), None, &[60.0]), None);
        insta::assert_debug_snapshot!(time(average, None, &[60.0, 120.0, 180.0, 9000.0]), @r#"
        Some(
            "2026-01-01T11:02:05+00:00",
        )
        "#);
    }

    #[test]
    fn what_is_python_code_is_named() {
        let own = json!({"reference_type": "MyDeadline", "__class_path": "plugin.MyDeadline"});
        assert_eq!(
            Alert::read(&own, &json!(5.0)).unwrap_err().to_string(),
            "a deadline with the reference \"MyDeadline\""
        );
        let variable = json!({"__classname__": "airflow.sdk.definitions.deadline.VariableInterval", "__data__": {"key": "k"}});
        let queued = json!({"reference_type": "DagRunQueuedAtDeadline"});
        assert_eq!(
            Alert::read(&queued, &variable).unwrap_err().to_string(),
            "a deadline whose interval is airflow.sdk.definitions.deadline.VariableInterval"
        );
    }
}
