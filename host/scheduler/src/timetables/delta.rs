//! Lengths of time: fixed ones, and those of the calendar (dateutil's `relativedelta`). All in UTC, as Airflow
//! computes them.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Timelike, Utc};
use serde_json::Value;

use super::Problem;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delta {
    Fixed(TimeDelta),
    Relative(Relative),
}

/// Differences in the plural, absolute parts in the singular. `dateutil: relativedelta`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Relative {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    microseconds: i64,
    leapdays: i64,
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    microsecond: Option<i64>,
    /// Monday is 0; the how many-th.
    weekday: Option<(i64, i64)>,
}

impl Delta {
    /// Seconds, or the fields of a `relativedelta`. `airflow: decode_interval`
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        if let Some(seconds) = value.as_f64() {
            let micros = seconds * 1e6;
            if micros.abs() > 8e18 {
                return Err(format!("{seconds} seconds are too many"));
            }
            #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
            return Ok(Self::Fixed(TimeDelta::microseconds(micros.round() as i64)));
        }
        let Some(map) = value.as_object() else {
            return Err(format!("{value} is not a length of time"));
        };
        let mut relative = Relative::default();
        for (name, value) in map {
            if name == "weekday" {
                relative.weekday = Some(weekday(value)?);
                continue;
            }
            let number = match (value.as_i64(), value.as_f64()) {
                (Some(number), _) => number,
                #[expect(clippy::cast_possible_truncation, reason = "saturates")]
                (None, Some(number)) if number.fract() == 0.0 => number as i64,
                _ => return Err(format!("{name} is {value}")),
            };
            match name.as_str() {
                "years" => relative.years = number,
                "months" => relative.months = number,
                "days" => relative.days = number,
                "hours" => relative.hours = number,
                "minutes" => relative.minutes = number,
                "seconds" => relative.seconds = number,
                "microseconds" => relative.microseconds = number,
                "leapdays" => relative.leapdays = number,
                "year" => relative.year = Some(number),
                "month" => relative.month = Some(number),
                "day" => relative.day = Some(number),
                "hour" => relative.hour = Some(number),
                "minute" => relative.minute = Some(number),
                "second" => relative.second = Some(number),
                "microsecond" => relative.microsecond = Some(number),
                other => return Err(format!("{other:?} is not a part of a relativedelta")),
            }
        }
        Ok(Self::Relative(relative))
    }

    pub(crate) fn after(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.apply(at, 1)
    }

    pub(crate) fn before(&self, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.apply(at, -1)
    }

    fn apply(&self, at: DateTime<Utc>, sign: i32) -> Result<DateTime<Utc>, Problem> {
        let moved = match self {
            Self::Fixed(delta) => at.checked_add_signed(*delta * sign),
            Self::Relative(relative) => relative.apply(at, i64::from(sign)),
        };
        moved.ok_or_else(|| Problem(format!("a date that far from {at} is out of range")))
    }

    /// Months and years have no fixed length.
    pub(super) fn is_calendrical(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Relative(relative) => relative.months != 0 || relative.years != 0,
        }
    }

    /// Whether it leads to a certain weekday, hour and so on.
    pub(super) fn has_absolute_parts(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Relative(relative) => {
                let Relative {
                    year,
                    month,
                    day,
                    hour,
                    minute,
                    second,
                    microsecond,
                    weekday,
                    ..
                } = relative;
                [year, month, day, hour, minute, second, microsecond]
                    .iter()
                    .any(|part| part.is_some())
                    || weekday.is_some()
            }
        }
    }

    /// `airflow: DeltaDataIntervalTimetable._relativedelta_in_seconds`
    pub(super) fn microseconds(&self) -> Option<i64> {
        match self {
            Self::Fixed(delta) => delta.num_microseconds(),
            Self::Relative(relative) => {
                let days = relative.years * 365 + relative.months * 30 + relative.days;
                let minutes = (days * 24 + relative.hours) * 60 + relative.minutes;
                (minutes * 60 + relative.seconds).checked_mul(1_000_000)
            }
        }
    }
}

impl Relative {
    /// `dateutil: relativedelta.__radd__, __neg__`
    fn apply(&self, at: DateTime<Utc>, sign: i64) -> Option<DateTime<Utc>> {
        let from = at.naive_utc();
        let months = self
            .month
            .unwrap_or_else(|| i64::from(from.month()))
            .checked_add(self.months.checked_mul(sign)?)?
            - 1;
        let year = self
            .year
            .unwrap_or_else(|| i64::from(from.year()))
            .checked_add(self.years.checked_mul(sign)?)?
            .checked_add(months.div_euclid(12))?;
        let year = i32::try_from(year).ok()?;
        let month = u32::try_from(months.rem_euclid(12)).ok()? + 1;
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let day = part(self.day, from.day())?.min(u32::from(first.num_days_in_month()));
        let micros = part(self.microsecond, from.nanosecond() / 1000)?;
        let time = chrono::NaiveTime::from_hms_micro_opt(
            part(self.hour, from.hour())?,
            part(self.minute, from.minute())?,
            part(self.second, from.second())?,
            micros,
        )?;
        let leap = if self.leapdays != 0 && month > 2 && first.leap_year() {
            self.leapdays
        } else {
            0
        };
        let moved = first
            .with_day(day)?
            .and_time(time)
            .checked_add_signed(TimeDelta::try_days(self.days.checked_mul(sign)? + leap)?)?
            .checked_add_signed(TimeDelta::try_hours(self.hours.checked_mul(sign)?)?)?
            .checked_add_signed(TimeDelta::try_minutes(self.minutes.checked_mul(sign)?)?)?
            .checked_add_signed(TimeDelta::try_seconds(self.seconds.checked_mul(sign)?)?)?
            .checked_add_signed(TimeDelta::microseconds(
                self.microseconds.checked_mul(sign)?,
            ))?;
        let Some((weekday, nth)) = self.weekday else {
            return Some(moved.and_utc());
        };
        let today = i64::from(moved.weekday().num_days_from_monday());
        let weeks = (nth.abs() - 1) * 7;
        let jump = if nth > 0 {
            weeks + (7 - today + weekday).rem_euclid(7)
        } else {
            -(weeks + (today - weekday).rem_euclid(7))
        };
        Some(
            moved
                .checked_add_signed(TimeDelta::try_days(jump)?)?
                .and_utc(),
        )
    }
}

fn part(absolute: Option<i64>, own: u32) -> Option<u32> {
    absolute.map_or(Some(own), |part| u32::try_from(part).ok())
}

fn weekday(value: &Value) -> Result<(i64, i64), String> {
    let number = |index: usize| value.get(index).and_then(Value::as_i64);
    match (number(0), number(1).unwrap_or(1)) {
        (Some(weekday @ 0..=6), nth) if nth != 0 => Ok((weekday, nth)),
        _ => Err(format!("{value} is not a weekday")),
    }
}
