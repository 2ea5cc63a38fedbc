//! A date and time, with or without a place: Python's `datetime`, its `fold` included.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDateTime, Offset, TimeDelta, Timelike, Utc};

use super::Raised;
use crate::timetables::Zone;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// What a clock shows.
    pub(crate) local: NaiveDateTime,
    /// The second time that the clock shows it, where clocks are put back.
    pub(crate) fold: bool,
    pub(crate) place: Place,
}

/// `tzinfo`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// None: the moment is naive.
    Nowhere,
    Zone(Zone),
    /// `datetime.timezone`, as `%z` makes it.
    Offset(FixedOffset),
}

impl Moment {
    pub(crate) fn naive(local: NaiveDateTime) -> Self {
        Self {
            local,
            fold: false,
            place: Place::Nowhere,
        }
    }

    /// `astimezone`
    pub(crate) fn at(instant: DateTime<Utc>, zone: Zone) -> Self {
        let local = zone.local(instant);
        let offset = zone.offset(local, false);
        Self {
            local,
            // The first reading of this clock would be another instant.
            fold: offset.is_some_and(|first| local - first != instant.naive_utc()),
            place: Place::Zone(zone),
        }
    }

    /// What a naive moment is in a zone: the second of two, and after a gap what it would have been before it.
    /// `airflow: timezone.make_aware`
    pub(crate) fn make_aware(local: NaiveDateTime, zone: Zone) -> Result<Self, Raised> {
        let instant = zone.instant(local).ok_or_else(Raised::overflow)?;
        let shown = in_years(zone.local(instant))?;
        Ok(Self {
            local: shown,
            fold: shown == local && matches!(zone, Zone::Named(_)),
            place: Place::Zone(zone),
        })
    }

    pub(crate) fn is_naive(&self) -> bool {
        self.place == Place::Nowhere
    }

    /// `utcoffset`
    pub(crate) fn offset(&self) -> Option<FixedOffset> {
        match self.place {
            Place::Nowhere => None,
            Place::Zone(zone) => zone.offset(self.local, self.fold),
            Place::Offset(offset) => Some(offset),
        }
    }

    /// `None`: it is naive.
    pub(crate) fn instant(&self) -> Option<DateTime<Utc>> {
        let utc = self.local.checked_sub_offset(self.offset()?)?;
        Some(utc.and_utc())
    }

    /// `tzname`
    pub(crate) fn zone_name(&self) -> String {
        match self.place {
            Place::Nowhere => String::new(),
            Place::Zone(zone) => zone.abbreviation(self.local, self.fold),
            Place::Offset(offset) if offset.local_minus_utc() == 0 => "UTC".to_owned(),
            Place::Offset(offset) => format!("UTC{}", colons(offset)),
        }
    }

    /// `self + delta`: the clock is moved, and forgets which of two times it showed.
    pub(crate) fn plus(self, delta: TimeDelta) -> Result<Self, Raised> {
        let local = self
            .local
            .checked_add_signed(delta)
            .ok_or_else(Raised::overflow)?;
        Ok(Self {
            local: in_years(local)?,
            fold: false,
            ..self
        })
    }

    /// `replace(year=…, month=…)` of a moment on the first of a month.
    pub(crate) fn plus_months(self, months: i32) -> Result<Self, Raised> {
        let total = i32::try_from(self.local.month0()).unwrap_or(0) + months;
        let year = self.local.year() + total.div_euclid(12);
        let out_of_range = || Raised::value_error(format!("year {year} is out of range"));
        if !(1..=9999).contains(&year) {
            return Err(out_of_range());
        }
        let month0 = u32::try_from(total.rem_euclid(12)).unwrap_or(0);
        let local = self
            .local
            .with_year(year)
            .and_then(|local| local.with_month0(month0));
        Ok(Self {
            local: local.ok_or_else(out_of_range)?,
            ..self
        })
    }

    /// `isoformat()`
    pub(crate) fn isoformat(&self) -> String {
        let mut text = format!(
            "{:04}-{}",
            self.local.year(),
            self.local.format("%m-%dT%H:%M:%S")
        );
        let micros = self.local.nanosecond() / 1000;
        if micros > 0 {
            text.push_str(&format!(".{micros:06}"));
        }
        if let Some(offset) = self.offset() {
            text.push_str(&colons(offset));
        }
        text
    }
}

/// Python's years are 1 to 9999.
fn in_years(local: NaiveDateTime) -> Result<NaiveDateTime, Raised> {
    if (1..=9999).contains(&local.year()) {
        Ok(local)
    } else {
        Err(Raised::overflow())
    }
}

/// As `+01:00`.
fn colons(offset: FixedOffset) -> String {
    let seconds = offset.fix().local_minus_utc();
    let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 != 0 {
        text.push_str(&format!(":{:02}", seconds % 60));
    }
    text
}
