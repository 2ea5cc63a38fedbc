//! Local time: from a zone's clock to the instant and back, as Airflow does it.

use chrono::{
    DateTime, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;

/// A zone by name, or a fixed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Named(Tz),
    Fixed(FixedOffset),
}

/// No gap of any zone is longer: Samoa once left out a day.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

impl Zone {
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
