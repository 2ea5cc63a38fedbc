//! Which values the database can hold without changing them, and what people see of the others. Pure.

use serde::de::IgnoredAny;

/// The key that marks our references in the `xcom` table.
const MARKER: &str = "__modalflow_xcom__";

/// The value as JSON text, when a JSON column gives it back unchanged.
///
/// Not so: NaN and lone surrogates (no JSON), integers beyond 64 bits (the host would round them), NUL (Postgres refuses it),
/// and objects that could be taken for a reference of ours.
pub(crate) fn database_text(bytes: &[u8]) -> Option<&str> {
    let text = str::from_utf8(bytes).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let plain = !text.contains(MARKER) && !text.contains("\\u") && !has_wide_integer(text);
    // Escapes may hide the marker, a NUL or a surrogate; only then it is worth a look at the decoded strings.
    (plain || (text.contains("\\u") && unescaped_is_plain(text))).then_some(text)
}

fn unescaped_is_plain(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else {
        return false;
    };
    is_plain(&value) && !has_wide_integer(text)
}

fn is_plain(value: &serde_json::Value) -> bool {
    let fits = |text: &str| !text.contains('\0') && !text.contains(MARKER);
    match value {
        serde_json::Value::String(text) => fits(text),
        serde_json::Value::Array(items) => items.iter().all(is_plain),
        serde_json::Value::Object(items) => {
            items.iter().all(|(key, item)| fits(key) && is_plain(item))
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => true,
    }
}

/// Whether valid JSON has an integer that fits into neither `i64` nor `u64`.
fn has_wide_integer(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = after_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = bytes[at..]
                    .iter()
                    .position(|byte| {
                        !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                    })
                    .map_or(bytes.len(), |len| at + len);
                let number = &text[at..end];
                let integer = !number.contains(['.', 'e', 'E']);
                if integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return true;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    false
}

fn after_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The beginning of a value for people.
pub(crate) fn preview(beginning: &[u8], size: u64, characters: usize) -> String {
    let text = String::from_utf8_lossy(beginning);
    let mut shown: String = text
        .chars()
        .take(characters)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    if (shown.len() as u64) < size {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{database_text, preview};

    #[test]
    fn the_database_keeps_what_it_gives_back_unchanged() {
        let kept = [
            "1",
            "null",
            "[1, 2.5]",
            "{\"a\": 9223372036854775807}",
            "18446744073709551615",
            "\"\\u00e9\"",
            "\"12345678901234567890123\"",
        ];
        let not_kept = [
            "NaN",
            "",
            "{",
            "123456789012345678901234567890",
            "[-9223372036854775809]",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "{\"__modalflow_xcom__\": 1}",
            "{\"\\u005f_modalflow_xcom__\": 1}",
        ];
        for text in kept {
            assert_eq!(database_text(text.as_bytes()), Some(text));
        }
        for text in not_kept {
            assert_eq!(database_text(text.as_bytes()), None, "{text}");
        }
        assert_eq!(database_text(b"\xff"), None);
    }

    #[test]
    fn a_preview_is_the_beginning() {
        assert_eq!(preview(b"[1, 2]", 6, 200), "[1, 2]");
        assert_eq!(preview("ééé".as_bytes(), 6, 2), "éé…");
        assert_eq!(preview(b"a\x1bb", 3, 200), "a b");
    }
}
