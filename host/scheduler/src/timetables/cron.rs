//! Cron expressions as croniter, which Airflow uses, understands them, on the clock of a zone.
//!
//! Not a cron crate's syntax: seconds stand last, `L5` is the last Friday, ranges may wrap (`22-2`), a field
//! that lists every value counts as `*`. Found dates are equal to croniter's; the fuzz data hold that.

mod parse;

#[cfg(test)]
mod tests;

use chrono::{
    DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc,
};

use super::{Problem, Zone};

/// croniter gives up after so many years without a match.
const MAX_YEARS: i32 = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cron {
    minutes: Field,
    hours: Field,
    days: Field,
    /// Of `days`: the last of the month.
    last_day: bool,
    /// `15W`: the weekday nearest to that day; replaces `days`.
    nearest_weekday: Option<u32>,
    months: Field,
    /// 0 is Sunday.
    weekdays: Field,
    /// `5#2`, `L5`: replaces `weekdays`.
    nth_weekdays: Vec<(u32, Nth)>,
    /// `None`: five fields, at second 0.
    seconds: Option<Field>,
    years: Option<Vec<i32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nth {
    Number(u32),
    Last,
}

/// Values of a field, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// There is a `*` in it.
    any: bool,
    /// There is nothing but a `*` in it.
    only_any: bool,
}

impl Field {
    fn has(self, value: u32) -> bool {
        self.any || self.bits & (1 << value) != 0
    }
}

/// Which of the day fields count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DayRule {
    Both,
    Month,
    Week,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Next,
    Previous,
}

impl Cron {
    /// `airflow: CronMixin._get_next`
    pub(crate) fn after(&self, zone: &Zone, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.step(zone, at, Direction::Next)
    }

    /// `airflow: CronMixin._get_prev`
    pub(crate) fn before(&self, zone: &Zone, at: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        self.step(zone, at, Direction::Previous)
    }

    /// `at` itself if it is a match, else the next one.
    pub(crate) fn align_to_next(
        &self,
        zone: &Zone,
        at: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Problem> {
        let next = self.after(zone, at)?;
        Ok(if self.before(zone, next)? == at {
            at
        } else {
            next
        })
    }

    /// `at` itself if it is a match, else the one before.
    pub(crate) fn align_to_prev(
        &self,
        zone: &Zone,
        at: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Problem> {
        let previous = self.before(zone, at)?;
        Ok(if self.after(zone, previous)? == at {
            at
        } else {
            previous
        })
    }

    fn step(
        &self,
        zone: &Zone,
        at: DateTime<Utc>,
        direction: Direction,
    ) -> Result<DateTime<Utc>, Problem> {
        let local = zone.local(at);
        let found = self
            .search(local, direction)
            .ok_or_else(|| Problem(format!("no date matches within {MAX_YEARS} years of {at}")))?;
        let instant = if self.hours.only_any {
            // Every hour, also the one that the clocks repeat or leave out: by elapsed time.
            at.checked_add_signed(found - local)
        } else {
            zone.instant(found)
        };
        instant.ok_or_else(|| Problem::new("the next date is out of range"))
    }

    /// The nearest match on the clock, not counting `from` itself. Day of month and weekday: when both are
    /// restricted either will do, as in cron. `croniter: _calc_next`
    fn search(&self, from: NaiveDateTime, direction: Direction) -> Option<NaiveDateTime> {
        if self.days.any || self.weekdays.any {
            return self.scan(from, direction, DayRule::Both);
        }
        let by_month = self.scan(from, direction, DayRule::Month);
        let by_week = self.scan(from, direction, DayRule::Week);
        // With `W` and `#` each side must exist for itself; croniter says why.
        let is_plain = self.nth_weekdays.is_empty() && self.nearest_weekday.is_none();
        match (by_month, by_week) {
            (Some(month), Some(week)) => Some(match direction {
                Direction::Next => month.min(week),
                Direction::Previous => month.max(week),
            }),
            (one, None) | (None, one) => one.filter(|_| is_plain),
        }
    }

    /// `croniter: _calc`
    fn scan(
        &self,
        from: NaiveDateTime,
        direction: Direction,
        rule: DayRule,
    ) -> Option<NaiveDateTime> {
        let begin = match (direction, &self.seconds) {
            (Direction::Next, None) => from.checked_add_signed(TimeDelta::minutes(1))?,
            (Direction::Next, Some(_)) => from.checked_add_signed(TimeDelta::seconds(1))?,
            (Direction::Previous, _) => from.checked_sub_signed(TimeDelta::microseconds(1))?,
        };
        let mut at = begin.with_nanosecond(0)?;
        if self.seconds.is_none() {
            at = at.with_second(0)?;
        }
        let first_year = at.year();
        while (at.year() - first_year).abs() <= MAX_YEARS {
            let wrong = if !self.has_year(at.year()) {
                Unit::Year
            } else if !self.months.has(at.month()) {
                Unit::Month
            } else if !self.has_day(at.date(), rule) {
                Unit::Day
            } else if !self.hours.has(at.hour()) {
                Unit::Hour
            } else if !self.minutes.has(at.minute()) {
                Unit::Minute
            } else if self.seconds.is_some_and(|field| !field.has(at.second())) {
                Unit::Second
            } else {
                return Some(at);
            };
            at = match direction {
                Direction::Next => wrong.begin_of_next(at)?,
                Direction::Previous => {
                    let end = wrong.begin(at)?.checked_sub_signed(TimeDelta::seconds(1))?;
                    if self.seconds.is_none() {
                        end.with_second(0)?
                    } else {
                        end
                    }
                }
            };
        }
        None
    }

    fn has_year(&self, year: i32) -> bool {
        self.years
            .as_ref()
            .is_none_or(|years| years.contains(&year))
    }

    /// What `W` and `#` say holds on both sides.
    fn has_day(&self, date: NaiveDate, rule: DayRule) -> bool {
        let month = (rule == DayRule::Week && self.nearest_weekday.is_none())
            || self.has_day_of_month(date);
        let week =
            (rule == DayRule::Month && self.nth_weekdays.is_empty()) || self.has_weekday(date);
        month && week
    }

    fn has_day_of_month(&self, date: NaiveDate) -> bool {
        match self.nearest_weekday {
            Some(day) => nearest_weekday(date, day) == date.day(),
            None => {
                self.days.has(date.day()) || (self.last_day && date.day() == days_in_month(date))
            }
        }
    }

    fn has_weekday(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        if self.nth_weekdays.is_empty() {
            return self.weekdays.has(weekday);
        }
        let number = (date.day() - 1) / 7 + 1;
        let is_last = date.day() + 7 > days_in_month(date);
        self.nth_weekdays.iter().any(|&(wanted, nth)| {
            wanted == weekday
                && match nth {
                    Nth::Number(nth) => nth == number,
                    Nth::Last => is_last,
                }
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

impl Unit {
    fn begin(self, at: NaiveDateTime) -> Option<NaiveDateTime> {
        let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN);
        match self {
            Self::Year => Some(midnight(at.date().with_month(1)?.with_day(1)?)),
            Self::Month => Some(midnight(at.date().with_day(1)?)),
            Self::Day => Some(midnight(at.date())),
            Self::Hour => at.with_minute(0)?.with_second(0),
            Self::Minute => at.with_second(0),
            Self::Second => Some(at),
        }
    }

    fn begin_of_next(self, at: NaiveDateTime) -> Option<NaiveDateTime> {
        let begin = self.begin(at)?;
        match self {
            // Day 1 first, so that no month is too short.
            Self::Year => begin.with_year(begin.year() + 1),
            Self::Month => begin.checked_add_months(Months::new(1)),
            Self::Day => begin.checked_add_days(Days::new(1)),
            Self::Hour => begin.checked_add_signed(TimeDelta::hours(1)),
            Self::Minute => begin.checked_add_signed(TimeDelta::minutes(1)),
            Self::Second => begin.checked_add_signed(TimeDelta::seconds(1)),
        }
    }
}

fn days_in_month(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

/// Monday to Friday, in the same month. `croniter: _get_nearest_weekday`
fn nearest_weekday(date: NaiveDate, day: u32) -> u32 {
    let last = days_in_month(date);
    let day = day.min(last);
    let weekday = date
        .with_day(day)
        .map_or(0, |date| date.weekday().num_days_from_monday());
    match weekday {
        5 if day > 1 => day - 1,
        5 => day + 2,
        6 if day < last => day + 1,
        6 => day - 2,
        _ => day,
    }
}
