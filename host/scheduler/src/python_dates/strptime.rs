//! `datetime.strptime`: a format becomes a regular expression, as in Python's `_strptime`, so that what is ambiguous
//! is read as Python reads it.

use chrono::{Datelike, Days, FixedOffset, NaiveDate};
use regex::{Captures, Regex};

use super::{MONTHS, Moment, Place, Raised, WEEKDAYS, repr};

/// # Errors
/// What Python raises.
pub(crate) fn strptime(text: &str, format: &str) -> Result<Moment, Raised> {
    let pattern = compile(format)?;
    let found = pattern.captures(text).ok_or_else(|| {
        Raised::value_error(format!(
            "time data {} does not match format {}",
            repr(text),
            repr(format)
        ))
    })?;
    let end = found.get(0).map_or(0, |all| all.end());
    if end != text.len() {
        let rest = &text[end..];
        return Err(Raised::value_error(format!(
            "unconverted data remains: {rest}"
        )));
    }
    Parts::of(&found)?.moment()
}

/// `airflow` compiles a format anew with each key; so do we.
fn compile(format: &str) -> Result<Regex, Raised> {
    let mut pattern = String::from("(?i)^");
    let mut named = Vec::new();
    append(&mut pattern, &mut named, format, format)?;
    Regex::new(&pattern).map_err(|error| Raised::value_error(error.to_string()))
}

fn append(
    pattern: &mut String,
    named: &mut Vec<char>,
    part: &str,
    format: &str,
) -> Result<(), Raised> {
    let mut letters = part.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_whitespace() {
            while letters.next_if(|next| next.is_whitespace()).is_some() {}
            pattern.push_str(r"\s+");
            continue;
        }
        if letter != '%' {
            pattern.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
            continue;
        }
        let Some(directive) = letters.next() else {
            return Err(Raised::value_error(format!(
                "stray %% in format '{format}'"
            )));
        };
        let expression = match directive {
            '%' => {
                pattern.push('%');
                continue;
            }
            'c' => {
                append(pattern, named, "%a %b %d %H:%M:%S %Y", format)?;
                continue;
            }
            'x' => {
                append(pattern, named, "%m/%d/%y", format)?;
                continue;
            }
            'X' => {
                append(pattern, named, "%H:%M:%S", format)?;
                continue;
            }
            'd' => "3[0-1]|[1-2][0-9]|0[1-9]|[1-9]| [1-9]".to_owned(),
            'f' => "[0-9]{1,6}".to_owned(),
            'H' => "2[0-3]|[0-1][0-9]|[0-9]".to_owned(),
            'I' => "1[0-2]|0[1-9]|[1-9]".to_owned(),
            'G' | 'Y' => "[0-9]{4}".to_owned(),
            'j' => {
                "36[0-6]|3[0-5][0-9]|[1-2][0-9][0-9]|0[1-9][0-9]|00[1-9]|[1-9][0-9]|0[1-9]|[1-9]"
                    .to_owned()
            }
            'm' => "1[0-2]|0[1-9]|[1-9]".to_owned(),
            'M' => "[0-5][0-9]|[0-9]".to_owned(),
            'S' => "6[0-1]|[0-5][0-9]|[0-9]".to_owned(),
            'U' | 'W' => "5[0-3]|[0-4][0-9]|[0-9]".to_owned(),
            'w' => "[0-6]".to_owned(),
            'u' => "[1-7]".to_owned(),
            'V' => "5[0-3]|0[1-9]|[1-4][0-9]|[0-9]".to_owned(),
            'y' => "[0-9]{2}".to_owned(),
            'z' => r"[+-][0-9]{2}:?[0-5][0-9](:?[0-5][0-9](\.[0-9]{1,6})?)?|(?-i:Z)".to_owned(),
            'Z' => "utc|gmt".to_owned(),
            'p' => "am|pm".to_owned(),
            'A' => longest_first(&WEEKDAYS),
            'a' => WEEKDAYS.map(|name| &name[..3]).join("|"),
            'B' => longest_first(&MONTHS),
            'b' => MONTHS.map(|name| &name[..3]).join("|"),
            other => {
                // Python escapes the format before it reads it.
                let told = if r"\.^$*+?(){}[]|".contains(other) || other.is_whitespace() {
                    '%'
                } else {
                    other
                };
                return Err(Raised::value_error(format!(
                    "'{told}' is a bad directive in format '{format}'"
                )));
            }
        };
        if named.contains(&directive) {
            return Err(Raised::of(
                "error",
                format!("redefinition of group name '{directive}'"),
            ));
        }
        named.push(directive);
        pattern.push_str(&format!("(?P<{directive}>{expression})"));
    }
    Ok(())
}

fn longest_first(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.join("|")
}

/// What the directives said.
#[derive(Default)]
struct Parts {
    year: Option<i32>,
    iso_year: Option<i32>,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    iso_week: Option<i64>,
    /// And whether its weeks start on Monday.
    week_of_year: Option<(i64, bool)>,
    /// 0 is Monday.
    weekday: Option<i64>,
    day_of_year: Option<i64>,
    offset: Option<FixedOffset>,
}

impl Parts {
    fn of(found: &Captures<'_>) -> Result<Self, Raised> {
        let text = |name: &str| found.name(name).map(|found| found.as_str());
        let number = |name: &str| -> Option<u32> { text(name)?.trim_start().parse().ok() };
        let place = |name: &str, names: &[&str], letters: Option<usize>| {
            let given = text(name)?;
            names.iter().position(|name| {
                let name = letters.map_or(*name, |letters| &name[..letters]);
                name.eq_ignore_ascii_case(given)
            })
        };
        let year = |name: &str| number(name).and_then(|year| i32::try_from(year).ok());
        let short = year("y").map(|year| if year <= 68 { year + 2000 } else { year + 1900 });
        let month = place("B", &MONTHS, None).or_else(|| place("b", &MONTHS, Some(3)));
        let month = month.and_then(|month| u32::try_from(month + 1).ok());
        let twelve = number("I").map(|hour| {
            let is_pm = text("p").is_some_and(|half| half.eq_ignore_ascii_case("pm"));
            hour % 12 + if is_pm { 12 } else { 0 }
        });
        let weekday = place("A", &WEEKDAYS, None).or_else(|| place("a", &WEEKDAYS, Some(3)));
        let weekday = weekday
            .and_then(|day| i64::try_from(day).ok())
            .or_else(|| number("w").map(|day| (i64::from(day) + 6) % 7))
            .or_else(|| number("u").map(|day| i64::from(day) - 1));
        let micros = text("f").and_then(|digits| format!("{digits:0<6}").parse().ok());
        Ok(Self {
            year: year("Y").or(short),
            iso_year: year("G"),
            month: number("m").or(month).unwrap_or(1),
            day: number("d").unwrap_or(1),
            hour: number("H").or(twelve).unwrap_or(0),
            minute: number("M").unwrap_or(0),
            second: number("S").unwrap_or(0),
            micros: micros.unwrap_or(0),
            iso_week: number("V").map(i64::from),
            week_of_year: number("U")
                .map(|week| (week.into(), false))
                .or_else(|| number("W").map(|week| (week.into(), true))),
            weekday,
            day_of_year: number("j").map(i64::from),
            offset: text("z").map(offset).transpose()?,
        })
    }

    fn moment(mut self) -> Result<Moment, Raised> {
        self.check_weeks()?;
        let is_leap_day = self.year.is_none() && self.month == 2 && self.day == 29;
        let mut year = self.year.unwrap_or(if is_leap_day { 1904 } else { 1900 });
        let mut day_of_year = self.day_of_year;
        if let (None, Some(weekday)) = (day_of_year, self.weekday) {
            if let Some((week, from_monday)) = self.week_of_year {
                day_of_year = Some(day_of_week(year, week, weekday, from_monday)?);
            } else if let (Some(iso_year), Some(week)) = (self.iso_year, self.iso_week) {
                let fourth = first_of(iso_year)? + Days::new(3);
                let correction = i64::from(fourth.weekday().number_from_monday()) + 3;
                year = iso_year;
                day_of_year = Some(week * 7 + weekday + 1 - correction);
            }
        }
        if let Some(day) = day_of_year {
            let date = first_of(year)?
                .checked_add_signed(chrono::TimeDelta::days(day - 1))
                .filter(|date| (1..=9999).contains(&date.year()))
                .ok_or_else(|| Raised::value_error("ordinal must be >= 1"))?;
            (year, self.month, self.day) = (date.year(), date.month(), date.day());
        }
        if is_leap_day && day_of_year.is_none() {
            // Python looks at 1904, and then says 1900, which had no such day.
            year = 1900;
        }
        first_of(year)?;
        let date = NaiveDate::from_ymd_opt(year, self.month, self.day)
            .ok_or_else(|| Raised::value_error("day is out of range for month"))?;
        let local = date
            .and_hms_micro_opt(self.hour, self.minute, self.second, self.micros)
            .ok_or_else(|| Raised::value_error("second must be in 0..59"))?;
        Ok(Moment {
            place: self.offset.map_or(Place::Nowhere, Place::Offset),
            ..Moment::naive(local)
        })
    }

    fn check_weeks(&self) -> Result<(), Raised> {
        let problem = if self.year.is_none() && self.iso_year.is_some() {
            if self.iso_week.is_none() || self.weekday.is_none() {
                "ISO year directive '%G' must be used with the ISO week directive '%V' and a weekday \
                 directive ('%A', '%a', '%w', or '%u')."
            } else if self.day_of_year.is_some() {
                "Day of the year directive '%j' is not compatible with ISO year directive '%G'. Use \
                 '%Y' instead."
            } else {
                return Ok(());
            }
        } else if self.week_of_year.is_none() && self.iso_week.is_some() {
            if self.weekday.is_none() {
                "ISO week directive '%V' must be used with the ISO year directive '%G' and a weekday \
                 directive ('%A', '%a', '%w', or '%u')."
            } else {
                "ISO week directive '%V' is incompatible with the year directive '%Y'. Use the ISO \
                 year '%G' instead."
            }
        } else {
            return Ok(());
        };
        Err(Raised::value_error(problem))
    }
}

fn first_of(year: i32) -> Result<NaiveDate, Raised> {
    NaiveDate::from_ymd_opt(year, 1, 1)
        .filter(|_| (1..=9999).contains(&year))
        .ok_or_else(|| Raised::value_error(format!("year {year} is out of range")))
}

/// `_calc_julian_from_U_or_W`; days before the year count down from 0.
fn day_of_week(year: i32, week: i64, weekday: i64, from_monday: bool) -> Result<i64, Raised> {
    let mut first = i64::from(first_of(year)?.weekday().num_days_from_monday());
    let mut day = weekday;
    if !from_monday {
        first = (first + 1) % 7;
        day = (day + 1) % 7;
    }
    Ok(if week == 0 {
        1 + day - first
    } else {
        1 + (7 - first) % 7 + 7 * (week - 1) + day
    })
}

fn offset(text: &str) -> Result<FixedOffset, Raised> {
    if text == "Z" {
        return Ok(FixedOffset::east_opt(0).expect("zero is an offset"));
    }
    if text.as_bytes().get(3) == Some(&b':') && text.len() > 6 && text.as_bytes()[6] != b':' {
        return Err(Raised::value_error(format!(
            "Inconsistent use of : in {text}"
        )));
    }
    let digits: Vec<i32> = text
        .chars()
        .take_while(|&letter| letter != '.')
        .filter_map(|letter| letter.to_digit(10)?.try_into().ok())
        .collect();
    let pair = |at: usize| digits.get(at..at + 2).map_or(0, |two| two[0] * 10 + two[1]);
    let seconds = pair(0) * 3600 + pair(2) * 60 + pair(4);
    let seconds = if text.starts_with('-') {
        -seconds
    } else {
        seconds
    };
    FixedOffset::east_opt(seconds).ok_or_else(|| {
        Raised::value_error(
            "offset must be a timedelta strictly between -timedelta(hours=24) and timedelta(hours=24).",
        )
    })
}
