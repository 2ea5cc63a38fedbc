//! Dates and durations as Airflow's API writes and reads them.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

/// RFC 3339 in UTC, with microseconds or without a fraction: `2026-01-02T03:04:05Z`.
pub(crate) fn text(date: DateTime<Utc>) -> String {
    let form = if date.timestamp_subsec_micros() == 0 {
        SecondsFormat::Secs
    } else {
        SecondsFormat::Micros
    };
    date.to_rfc3339_opts(form, true)
}

pub(crate) fn json(date: Option<DateTime<Utc>>) -> Value {
    date.map_or(Value::Null, |date| Value::String(text(date)))
}

/// Why a date is not taken; the words are pydantic's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadDate {
    NoTimeZone,
    NoDate,
}

/// A date with a time zone.
pub(crate) fn parse(text: &str) -> Result<DateTime<Utc>, BadDate> {
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Ok(date.to_utc());
    }
    for form in [
        "%Y-%m-%dT%H:%M:%S%.f%#z",
        "%Y-%m-%d %H:%M:%S%.f%#z",
        "%Y-%m-%dT%H:%M%#z",
    ] {
        if let Ok(date) = DateTime::parse_from_str(text, form) {
            return Ok(date.to_utc());
        }
    }
    for form in [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
    ] {
        if NaiveDateTime::parse_from_str(text, form).is_ok() {
            return Err(BadDate::NoTimeZone);
        }
    }
    Err(BadDate::NoDate)
}

/// An ISO 8601 duration (`P7D`, `PT1H30M0.5S`, `-P1D`) or a number of seconds.
pub(crate) fn parse_duration(value: &Value) -> Option<TimeDelta> {
    match value {
        Value::Number(seconds) => from_seconds(seconds.as_f64()?),
        Value::String(text) => match text.parse::<f64>() {
            Ok(seconds) => from_seconds(seconds),
            Err(_) => parse_iso_duration(text),
        },
        _ => None,
    }
}

fn from_seconds(seconds: f64) -> Option<TimeDelta> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float that is too large saturates"
    )]
    let micros = (seconds * 1e6).round() as i64;
    seconds.is_finite().then(|| TimeDelta::microseconds(micros))
}

fn parse_iso_duration(text: &str) -> Option<TimeDelta> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.strip_prefix('P')?;
    let (date, time) = rest.split_once('T').unwrap_or((rest, ""));
    let days = sum(date, &[('Y', 365.0), ('M', 30.0), ('W', 7.0), ('D', 1.0)])?;
    let seconds = sum(time, &[('H', 3600.0), ('M', 60.0), ('S', 1.0)])?;
    if date.is_empty() && time.is_empty() {
        return None;
    }
    from_seconds(sign * (days * 86_400.0 + seconds))
}

/// `1H30M` by the worth of each unit, which must come in this order.
fn sum(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut total = 0.0;
    for (unit, worth) in units {
        if let Some((number, rest)) = text.split_once(*unit)
            && let Ok(number) = number.replace(',', ".").parse::<f64>()
        {
            total += number * worth;
            text = rest;
        }
    }
    text.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{parse, parse_duration, text};

    #[test]
    fn dates_are_read_with_a_time_zone_only() {
        let read: Vec<String> = [
            "2026-11-21T02:51:42.341768Z",
            "2026-11-21T02:51:42.340000+01:00",
            "2026-11-21 02:51:42+0100",
            "2026-11-21T02:51Z",
            "2026-11-21T02:51:42",
            "2026-11-21",
            "soon",
        ]
        .iter()
        .map(|date| match parse(date) {
            Ok(read) => format!("{date} -> {}", text(read)),
            Err(why) => format!("{date} -> {why:?}"),
        })
        .collect();
        insta::assert_snapshot!(read.join("\n"), @r"
        2026-11-21T02:51:42.341768Z -> 2026-11-21T02:51:42.341768Z
        2026-11-21T02:51:42.340000+01:00 -> 2026-11-21T01:51:42.340000Z
        2026-11-21 02:51:42+0100 -> 2026-11-21T01:51:42Z
        2026-11-21T02:51Z -> 2026-11-21T02:51:00Z
        2026-11-21T02:51:42 -> NoTimeZone
        2026-11-21 -> NoDate
        soon -> NoDate
        ");
    }

    #[test]
    fn durations_are_read_as_python_writes_them() {
        let read: Vec<String> = [
            json!("P7D"),
            json!("PT1H30M0.5S"),
            json!("-P1DT2S"),
            json!("P"),
            json!("P1H"),
            json!(90),
            json!("1.5"),
            json!(true),
        ]
        .iter()
        .map(|duration| {
            format!(
                "{duration} -> {:?}",
                parse_duration(duration).map(|d| d.num_milliseconds())
            )
        })
        .collect();
        insta::assert_snapshot!(read.join("\n"), @r#"
        "P7D" -> Some(604800000)
        "PT1H30M0.5S" -> Some(5400500)
        "-P1DT2S" -> Some(-86402000)
        "P" -> None
        "P1H" -> None
        90 -> Some(90000)
        "1.5" -> Some(1500)
        true -> None
        "#);
    }
}
