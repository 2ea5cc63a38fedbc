//! One line of a log as a record. Pure.
//!
//! Airflow writes one JSON object a line; whatever else a process wrote to the file is shown as text, with control characters
//! made visible, because nobody knows who wrote it.

use modalflow_plugin::log_handler::log::LogRecord;
use serde_json::{Map, Value};

pub(crate) fn parse(line: &[u8]) -> LogRecord {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    structured(line).unwrap_or_else(|| LogRecord {
        timestamp: None,
        level: None,
        logger: None,
        event: visible(&String::from_utf8_lossy(line)),
        fields: "{}".to_owned(),
    })
}

fn structured(line: &[u8]) -> Option<LogRecord> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let event = match fields.remove("event")? {
        Value::String(event) => event,
        other => other.to_string(),
    };
    let mut text = |name: &str| match fields.get(name) {
        Some(Value::String(_)) => fields.remove(name)?.as_str().map(str::to_owned),
        _ => None,
    };
    Some(LogRecord {
        timestamp: text("timestamp"),
        level: text("level"),
        logger: text("logger"),
        event,
        fields: Value::Object(fields).to_string(),
    })
}

fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_of_airflow_are_structured_and_others_are_text() {
        let record = parse(br#"{"timestamp":"2025-01-01T00:00:00Z","level":"info","event":"hi","logger":"task","n":1}"#);
        assert_eq!(record.timestamp.as_deref(), Some("2025-01-01T00:00:00Z"));
        assert_eq!(
            (record.event.as_str(), record.fields.as_str()),
            ("hi", r#"{"n":1}"#)
        );
        assert_eq!(
            parse(b"plain \x1b[31m\xff\r").event,
            "plain \\u{1b}[31m\u{fffd}"
        );
        assert_eq!(parse(br#"{"no": "event"}"#).event, r#"{"no": "event"}"#);
    }
}
