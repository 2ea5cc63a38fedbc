//! One line of a task's log, as Airflow's supervisor writes it: JSON with `timestamp`, `level` and `event` in front.
//! Whatever a task sends becomes one well-formed line of at most `LONGEST` bytes or so.

use std::fmt::Formatter;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::{mask::Masker, msgpack::push_text};

/// More of a line is cut away.
pub(crate) const LONGEST: usize = 64 * 1024;

/// Now, as log lines have it.
pub(crate) fn timestamp() -> String {
    DateTime::<Utc>::from(std::time::SystemTime::now()).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A line that the task wrote to its standard output or error.
pub(crate) fn from_stream(
    line: &[u8],
    cut: usize,
    logger: &str,
    level: &str,
    masker: &Masker,
) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
    if cut > 0 {
        text.push_str(&cut_mark(cut));
    }
    own(level, &masker.text(text), logger, &[])
}

/// A line of ours in a task's log. `fields` are names and JSON values.
pub(crate) fn own(level: &str, event: &str, logger: &str, fields: &[(&str, Value)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.len() + 128);
    out.extend_from_slice(b"{\"timestamp\":");
    push_text(&mut out, &timestamp());
    push_entry(&mut out, "level", level);
    push_entry(&mut out, "event", event);
    for (name, value) in fields {
        push_name(&mut out, name);
        out.extend_from_slice(value.to_string().as_bytes());
    }
    push_entry(&mut out, "logger", logger);
    out.extend_from_slice(b"}\n");
    out
}

/// A line that the task's own logging made: JSON already. `None` for one that is below every level.
// airflow: process_log_messages_from_subprocess
pub(crate) fn from_logging(line: &[u8], cut: usize, masker: &Masker) -> Option<Vec<u8>> {
    let closed;
    let entries = if cut > 0 {
        closed = close(line, cut);
        serde_json::from_slice::<Entries>(&closed)
    } else {
        serde_json::from_slice::<Entries>(line)
    };
    let Ok(entries) = entries else {
        return Some(from_stream(line, cut, "task.log", "info", masker));
    };
    let entries = entries.0;
    let raw = |wanted: &str| {
        entries
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.get())
    };
    let text =
        |wanted: &str| raw(wanted).and_then(|value| serde_json::from_str::<String>(value).ok());
    let level = text("level").unwrap_or_else(|| "info".to_owned());
    if level == "notset" {
        return None;
    }
    let mut out = Vec::with_capacity(line.len() + 64);
    out.extend_from_slice(b"{\"timestamp\":");
    push_text(&mut out, &text("timestamp").unwrap_or_else(timestamp));
    push_entry(&mut out, "level", &level);
    push_name(&mut out, "event");
    push_masked(&mut out, "event", raw("event").unwrap_or("\"\""), masker);
    for (name, value) in &entries {
        let name = match name.as_str() {
            "timestamp" | "level" | "event" => continue,
            "exception" if matches!(value.get(), "null" | "[]" | "\"\"") => continue,
            "exception" => "error_detail",
            name => name,
        };
        push_name(&mut out, name);
        push_masked(&mut out, name, value.get(), masker);
    }
    out.extend_from_slice(b"}\n");
    Some(out)
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    push_text(out, name);
    out.push(b':');
}

fn push_entry(out: &mut Vec<u8>, name: &str, value: &str) {
    push_name(out, name);
    push_text(out, value);
}

fn push_masked(out: &mut Vec<u8>, name: &str, raw: &str, masker: &Masker) {
    if raw.starts_with(['"', '{', '['])
        && let Ok(value) = serde_json::from_str::<Value>(raw)
    {
        let masked = masker.value(value.clone(), Some(name));
        if masked != value {
            return out.extend_from_slice(masked.to_string().as_bytes());
        }
    }
    out.extend_from_slice(raw.as_bytes());
}

fn cut_mark(cut: usize) -> String {
    format!(" … [{cut} bytes cut]")
}

/// Makes whole JSON of a line whose end was cut away.
fn close(line: &[u8], cut: usize) -> Vec<u8> {
    let mut line = String::from_utf8_lossy(line).into_owned();
    while line.ends_with('\u{fffd}') {
        line.pop();
    }
    let mut open = Vec::new();
    let mut text_from = None;
    let mut last_safe = 0;
    let mut escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match (byte, text_from) {
            (_, Some(_)) if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', Some(_)) => text_from = None,
            (b'"', None) => text_from = Some(at),
            (b'{', None) => open.push(b'}'),
            (b'[', None) => open.push(b']'),
            (b'}' | b']', None) => {
                open.pop();
            }
            (b',', None) => last_safe = at,
            _ => {}
        }
    }
    let before_text = text_from.map(|from| line[..from].trim_ascii_end());
    let in_value =
        before_text.is_some_and(|before| before.ends_with(':') || open.last() == Some(&b']'));
    if in_value {
        let from = text_from.unwrap_or_default();
        // An escape that was cut in the middle goes as a whole; the longest is a pair of `\uXXXX`.
        for _ in 0..12 {
            if serde_json::from_str::<String>(&format!("{}\"", &line[from..])).is_ok() {
                break;
            }
            line.pop();
        }
        line.push_str(&cut_mark(cut));
        line.push('"');
    } else {
        // Cut outside of a value's text: fall back to the last whole entry.
        line.truncate(last_safe);
        return close_at(line, cut);
    }
    let mut closed = line.into_bytes();
    closed.extend(open.iter().rev());
    closed
}

fn close_at(mut line: String, cut: usize) -> Vec<u8> {
    let mut open = Vec::new();
    let mut in_text = false;
    let mut escaped = false;
    for byte in line.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' if !in_text => open.push('}'),
            b'[' if !in_text => open.push(']'),
            b'}' | b']' if !in_text => {
                open.pop();
            }
            _ => {}
        }
    }
    if line.is_empty() {
        return format!("{{\"event\":\"[{cut} bytes cut]\"}}").into_bytes();
    }
    line.extend(open.iter().rev());
    line.into_bytes()
}

/// The entries of a JSON object in the order in which they stand.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::with_capacity(16);
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        source.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::{close, from_logging, from_stream};
    use crate::mask::Masker;

    fn line(text: &str) -> String {
        let masker = Masker::new("");
        masker.add(&serde_json::json!("hunter2"), None);
        from_logging(text.as_bytes(), 0, &masker)
            .map(|line| String::from_utf8(line).unwrap())
            .unwrap_or_default()
    }

    #[test]
    fn lines_of_the_tasks_logging_keep_their_order_and_lose_their_secrets() {
        insta::assert_snapshot!(
            line(r#"{"logger":"my","event":"is hunter2","n":1.50,"timestamp":"2026-01-01T00:00:00.000001Z","level":"warning","password":"x","exception":[{"exc_value":"hunter2"}]}"#),
            @r#"{"timestamp":"2026-01-01T00:00:00.000001Z","level":"warning","event":"is ***","logger":"my","n":1.50,"password":"***","error_detail":[{"exc_value":"***"}]}"#
        );
        assert_eq!(line(r#"{"event":"x","level":"notset"}"#), "");
    }

    #[test]
    fn what_is_no_json_is_a_line_of_text() {
        let line = line("{\"event\": hunter2");
        insta::assert_snapshot!(line[line.find("\"level").unwrap()..], @r#""level":"info","event":"{\"event\": ***","logger":"task.log"}"#);
        let line = from_stream(
            b"caf\xe9 \x1b[1m\r\n",
            7,
            "task.stdout",
            "info",
            &Masker::default(),
        );
        let line = String::from_utf8(line).unwrap();
        insta::assert_snapshot!(line[line.find("\"level").unwrap()..], @r#""level":"info","event":"caf� \u001b[1m … [7 bytes cut]","logger":"task.stdout"}"#);
    }

    #[test]
    fn a_line_that_was_cut_anywhere_is_whole_json_again() {
        let whole = r#"{"timestamp":"2026","event":"a\n\u00e9\ud83d\ude00 \"q\" 😀","list":["x",{"y":[1,"z,"]}],"n":12.5,"t":true,"level":"info"}"#;
        for end in 0..whole.len() {
            let closed = close(&whole.as_bytes()[..end], 9);
            let value = serde_json::from_slice::<serde_json::Value>(&closed);
            assert!(
                value.is_ok_and(|value| value.is_object()),
                "{end}: {}",
                String::from_utf8_lossy(&closed)
            );
        }
    }
}
