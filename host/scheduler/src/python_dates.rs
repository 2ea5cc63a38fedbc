//! Python's `datetime` where its ways can be seen: keys of partitions are read with `strptime` and written with
//! `strftime` (of the C locale, as in Airflow's processes), on the clock of a zone.

mod moment;
mod strftime;
mod strptime;

pub(crate) use moment::{Moment, Place};
pub(crate) use strftime::strftime;
pub(crate) use strptime::strptime;

/// What Python would raise: the class and the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {text}")]
pub(crate) struct Raised {
    class: &'static str,
    text: String,
}

impl Raised {
    pub(crate) fn value_error(text: impl Into<String>) -> Self {
        Self::of("ValueError", text)
    }

    pub(crate) fn of(class: &'static str, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
        }
    }

    /// Without the class.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn overflow() -> Self {
        Self::of("OverflowError", "date value out of range")
    }
}

/// `repr` of a string.
pub(crate) fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for letter in text.chars() {
        match letter {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' => quoted.push_str("\\\\"),
            letter if letter == quote => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(letter)));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push(quote);
    quoted
}

pub(crate) const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
