//! Local time: from a zone's clock to the instant and back, as Airflow does it.

use chrono::{
    DateTime, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc,
};
use chrono_tz::{OffsetName, Tz, TzOffset};
use serde_json::Value;

/// A zone by name, or a fixed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Named(Tz),
    Fixed(FixedOffset),
}

/// No gap of any zone is longer: Samoa once left out a day.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

impl Zone {
    /// A name, or an offset in seconds. `airflow: parse_timezone`
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        if let Some(name) = value.as_str() {
            let zone: Result<Tz, _> = name.parse();
            return zone
                .map(Self::Named)
                .or_else(|error| match name.to_lowercase().as_str() {
                    "utc" => Ok(Self::Named(Tz::UTC)),
                    _ => Err(error),
                })
                .map_err(|_| format!("there is no time zone {name:?}"));
        }
        value
            .as_f64()
            .filter(|seconds| seconds.fract() == 0.0 && seconds.abs() < 86_400.0)
            .and_then(|seconds| {
                #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
                FixedOffset::east_opt(seconds as i32)
            })
            .map(Self::Fixed)
            .ok_or_else(|| format!("{value} is not a time zone"))
    }

    /// What the clocks show. `airflow: make_naive`
    pub(crate) fn local(&self, at: DateTime<Utc>) -> NaiveDateTime {
        match self {
            Self::Named(zone) => at.with_timezone(zone).naive_local(),
            Self::Fixed(offset) => at.with_timezone(offset).naive_local(),
        }
    }

    /// When the clocks show this: the second time if they do so twice; if they leave it out, as if they had
    /// not been moved yet. `airflow: make_aware, convert_to_utc`
    pub(crate) fn instant(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        let offset = match self {
            Self::Named(zone) => Some(match zone.offset_from_local_datetime(&local) {
                MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(_, offset) => {
                    offset.fix()
                }
                MappedLocalTime::None => offset_before(zone, local)?,
            }),
            Self::Fixed(offset) => Some(*offset),
        }?;
        let utc = local.checked_sub_offset(offset)?;
        Some(utc.and_utc())
    }

    /// The offset that holds when the clocks show this: where they show it twice, or not at all, `fold` tells whether
    /// the one before or after the change. Python's `utcoffset`
    pub(crate) fn offset(&self, local: NaiveDateTime, fold: bool) -> Option<FixedOffset> {
        match self {
            Self::Named(zone) => named_offset(zone, local, fold).map(|offset| offset.fix()),
            Self::Fixed(offset) => Some(*offset),
        }
    }

    /// As `CET`. Python's `tzname`
    pub(crate) fn abbreviation(&self, local: NaiveDateTime, fold: bool) -> String {
        match self {
            Self::Named(zone) => {
                named_offset(zone, local, fold).map_or_else(String::new, |offset| {
                    match offset.abbreviation() {
                        Some(name) => name.to_owned(),
                        None => numeric(offset.fix()),
                    }
                })
            }
            Self::Fixed(offset) => {
                let seconds = offset.local_minus_utc();
                let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
                format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
            }
        }
    }
}

/// The name of an offset that has none: `-03`, `+0330`.
fn numeric(offset: FixedOffset) -> String {
    let seconds = offset.local_minus_utc();
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    match minutes % 60 {
        0 => format!("{sign}{:02}", minutes / 60),
        rest => format!("{sign}{:02}{rest:02}", minutes / 60),
    }
}

fn named_offset(zone: &Tz, local: NaiveDateTime, fold: bool) -> Option<TzOffset> {
    match (zone.offset_from_local_datetime(&local), fold) {
        (MappedLocalTime::Single(offset), _)
        | (MappedLocalTime::Ambiguous(offset, _), false)
        | (MappedLocalTime::Ambiguous(_, offset), true) => Some(offset),
        (MappedLocalTime::None, fold) => {
            let before = offset_before(zone, local)?;
            let after = local.checked_sub_offset(before)?;
            let at = if fold {
                after
            } else {
                after.checked_sub_signed(TimeDelta::minutes(LONGEST_GAP_MINUTES))?
            };
            Some(zone.offset_from_utc_datetime(&at))
        }
    }
}

/// The offset that held before a gap.
fn offset_before(zone: &Tz, inside: NaiveDateTime) -> Option<FixedOffset> {
    (1..=LONGEST_GAP_MINUTES).find_map(|minutes| {
        let earlier = inside.checked_sub_signed(TimeDelta::minutes(minutes))?;
        match zone.offset_from_local_datetime(&earlier) {
            MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(_, offset) => {
                Some(offset.fix())
            }
            MappedLocalTime::None => None,
        }
    })
}
