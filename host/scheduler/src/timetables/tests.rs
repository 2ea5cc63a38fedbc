//! Against dates that Airflow 3.3.2 itself gave: timetables, zones, restrictions and clocks drawn at random, many
//! of them near a change of the clocks.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use chrono::{DateTime, Utc};
use model::TimetableData;
use serde_json::{Value, json};

use super::{Interval, Restriction, Timetable};

/// A case a line; made by `tests/scenarios/record_timetables.py`.
const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/scenarios/timetables.jsonl"
);

#[test]
fn timetables_give_the_dates_that_airflow_gave() {
    let recorded = std::fs::read_to_string(RECORDED).unwrap();
    let mut wrong = Vec::new();
    for line in recorded.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let ours = answer(&case);
        let theirs = if case["error"] == json!(true) {
            json!("error")
        } else {
            case["result"].clone()
        };
        if ours != theirs {
            wrong.push(format!("{line}\n  ours   {ours}\n  theirs {theirs}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        recorded.lines().count(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

fn answer(case: &Value) -> Value {
    let now = date(&case["now"]).unwrap();
    let timetable = match Timetable::read(&TimetableData {
        class: case["class"].as_str().unwrap().to_owned(),
        var: case["var"].clone(),
    }) {
        Ok(timetable) => timetable,
        Err(_) => return json!("error"),
    };
    if case["op"] == "manual" {
        return match timetable.infer_manual(now) {
            Ok(interval) => json!([text(interval.start), text(interval.end)]),
            Err(_) => json!("error"),
        };
    }
    let restriction = Restriction {
        earliest: date(&case["earliest"]),
        latest: date(&case["latest"]),
        catchup: case["catchup"] == json!(true),
    };
    let last = date(&case["last"][0])
        .zip(date(&case["last"][1]))
        .map(|(start, end)| Interval { start, end });
    match timetable.next(last, &restriction, now) {
        Ok(None) => Value::Null,
        Ok(Some(info)) => json!([
            text(info.run_after),
            text(info.interval.start),
            text(info.interval.end)
        ]),
        Err(_) => json!("error"),
    }
}

fn date(value: &Value) -> Option<DateTime<Utc>> {
    value
        .as_str()
        .map(|text| DateTime::parse_from_rfc3339(text).unwrap().to_utc())
}

fn text(date: DateTime<Utc>) -> String {
    crate::runs::isoformat(date)
}
