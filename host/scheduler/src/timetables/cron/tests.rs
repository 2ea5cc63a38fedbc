//! Against the dates that Airflow 3.3.2's own cron arithmetic gave, over zones, changes of clocks and odd expressions.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::Read;

use chrono::{DateTime, FixedOffset, Utc};
use serde_json::Value;

use super::{Cron, Zone};

/// Zlib of lines; made by `tests/scenarios/record_cron.py`.
const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/scenarios/cron.jsonl.zlib"
);

#[test]
fn cron_gives_the_dates_that_airflow_gave() {
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(std::fs::File::open(RECORDED).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let (mut cases, mut found, mut wrong) = (0, 0, Vec::new());
    for line in text.lines() {
        let (expression, zone, instants): (String, Value, Vec<[Option<i64>; 3]>) =
            serde_json::from_str(line).unwrap();
        let cron = Cron::parse(&expression);
        let zone = zone_of(&zone);
        for [at, after, before] in instants {
            let at = date(at.unwrap());
            let ours = |step: fn(&Cron, &Zone, DateTime<Utc>) -> Result<DateTime<Utc>, _>| {
                let date = step(cron.as_ref().ok()?, &zone, at).ok()?;
                Some(date.timestamp_micros())
            };
            for (what, ours, theirs) in [
                ("after", ours(Cron::after), after),
                ("before", ours(Cron::before), before),
            ] {
                cases += 1;
                found += usize::from(theirs.is_some());
                if ours != theirs {
                    wrong.push(format!(
                        "{expression:?} {zone:?} {what} {at}: {:?}, not {:?}",
                        ours.map(date),
                        theirs.map(date)
                    ));
                }
            }
        }
    }
    assert!(found > cases / 2 && cases > 1000, "{found} of {cases}");
    assert!(
        wrong.is_empty(),
        "{} of {cases} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(30)].join("\n")
    );
}

fn date(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

fn zone_of(value: &Value) -> Zone {
    match value.as_str() {
        Some(name) => Zone::Named(name.parse().unwrap()),
        None => Zone::Fixed(
            FixedOffset::east_opt(i32::try_from(value.as_i64().unwrap()).unwrap()).unwrap(),
        ),
    }
}
