//! Against what Airflow 3.3.2's own mappers, windows, wait policies and partition timetables answered.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::io::Read;

use chrono::{DateTime, Utc};
use model::TimetableData;
use serde_json::{Value, json};

use super::mapper::{Keys, Kind, Mapper};
use super::{PartitionedAssets, read};
use crate::runs::isoformat;
use crate::timetables::{Restriction, Timetable};

/// Zlib of lines; made by `tests/scenarios/record_partitions.py`.
const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/scenarios/partitions.jsonl.zlib"
);

/// What was asked, our answer and Airflow's.
#[derive(Default)]
struct Seen {
    asked: usize,
    answered: usize,
    wrong: Vec<String>,
}

impl Seen {
    fn see(&mut self, what: impl FnOnce() -> String, ours: &Value, theirs: &Value) {
        self.asked += 1;
        self.answered += usize::from(theirs != "error");
        if ours != theirs {
            let what = what();
            self.wrong
                .push(format!("{what}\n  ours   {ours}\n  theirs {theirs}"));
        }
    }
}

#[test]
fn partitions_go_as_they_went_in_airflow() {
    let recorded = std::env::var("MODALFLOW_TEST_PARTITIONS").unwrap_or(RECORDED.to_owned());
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(std::fs::File::open(recorded).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let mut seen = Seen::default();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match line[0].as_str().unwrap() {
            "mapper" => mapper(&line, &mut seen),
            "cron" => cron(&line, &mut seen),
            _ => assets(&line, &mut seen),
        }
    }
    assert!(
        seen.answered > 10_000,
        "{} of {}",
        seen.answered,
        seen.asked
    );
    assert!(
        seen.wrong.is_empty(),
        "{} of {} differ:\n{}",
        seen.wrong.len(),
        seen.asked,
        seen.wrong[..seen.wrong.len().min(20)].join("\n")
    );
}

fn mapper(line: &Value, seen: &mut Seen) {
    let form = &line[1];
    let read = read::mapper(form).map_err(|unreadable| format!("{unreadable:?}"));
    let Ok(mapper) = &read else {
        seen.see(|| format!("{form} {read:?}"), &json!("error"), &line[2]);
        return;
    };
    if line[2] == "error" {
        seen.see(|| form.to_string(), &json!("read"), &line[2]);
        return;
    }
    for case in line[2].as_array().unwrap() {
        let ours = match mapper.to_downstream(case[0].as_str().unwrap()) {
            Ok(Keys::One(key)) => json!(key),
            Ok(Keys::Many(mut keys)) => {
                if form.to_string().contains("Segment") {
                    keys.sort();
                }
                json!(keys)
            }
            Err(_) => json!("error"),
        };
        seen.see(|| format!("{form} of {}", case[0]), &ours, &case[1]);
    }
    for case in line[3].as_array().unwrap() {
        back(mapper, form, case, seen);
    }
}

fn back(mapper: &Mapper, form: &Value, case: &Value, seen: &mut Seen) {
    let key = case[0].as_str().unwrap();
    let date = mapper.to_partition_date(key);
    seen.see(|| format!("{form} date of {key:?}"), &dated(date), &case[1]);
    let Kind::Rollup(rollup) = &mapper.kind else {
        return;
    };
    let expected = rollup.to_upstream(key);
    let ours = match &expected {
        Ok(keys) => json!(keys),
        Err(_) => json!("error"),
    };
    seen.see(|| format!("{form} expects for {key:?}"), &ours, &case[2]);
    for answer in case[3].as_array().unwrap() {
        let received: BTreeSet<String> = serde_json::from_value(answer[0].clone()).unwrap();
        let ours = rollup
            .wait_policy
            .is_satisfied(&received, expected.as_ref().unwrap());
        seen.see(
            || format!("{form} with {}", answer[0]),
            &json!(ours),
            &answer[1],
        );
    }
}

fn cron(line: &Value, seen: &mut Seen) {
    let (form, question) = (&line[1], &line[2]);
    let Timetable::CronPartition(cron) = Timetable::read(&timetable(form)).unwrap() else {
        panic!("{form} is another timetable");
    };
    let restriction = Restriction {
        earliest: date(&question["earliest"]),
        latest: date(&question["latest"]),
        catchup: question["catchup"] == json!(true),
    };
    let now = date(&question["now"]).unwrap();
    let ours = match cron.next(date(&question["last"]), &restriction, now) {
        Ok(None) => Value::Null,
        Ok(Some(info)) => json!([
            isoformat(info.run_after),
            isoformat(info.partition_date),
            info.partition_key
        ]),
        Err(_) => json!("error"),
    };
    seen.see(|| format!("{form} {question}"), &ours, &line[3]);
    for case in line[4].as_array().unwrap() {
        let ours = dated(cron.decode(case[0].as_str().unwrap()).map(Some));
        seen.see(|| format!("{form} date of {}", case[0]), &ours, &case[1]);
    }
}

fn assets(line: &Value, seen: &mut Seen) {
    let form = &line[1];
    let Ok(assets) = PartitionedAssets::of(&timetable(form)) else {
        seen.see(|| form.to_string(), &json!("error"), &line[2]);
        return;
    };
    let assets = assets.unwrap();
    seen.see(|| format!("{form} stamp"), &assets.fingerprint(), &line[2]);
    for case in line[3].as_array().unwrap() {
        let ours = dated(assets.decode(case[0].as_str().unwrap()));
        seen.see(|| format!("{form} date of {}", case[0]), &ours, &case[1]);
    }
}

fn timetable(form: &Value) -> TimetableData {
    TimetableData {
        class: form["__type"].as_str().unwrap().to_owned(),
        var: form["__var"].clone(),
    }
}

fn dated<E>(date: Result<Option<DateTime<Utc>>, E>) -> Value {
    match date {
        Ok(date) => json!(date.map(isoformat)),
        Err(_) => json!("error"),
    }
}

fn date(value: &Value) -> Option<DateTime<Utc>> {
    value
        .as_str()
        .map(|text| DateTime::parse_from_rfc3339(text).unwrap().to_utc())
}
