//! Keys that name a time: mapped to the start of the hour, day, week, month, quarter or year they lie in.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};
use regex::Regex;

use crate::python_dates::{Moment, Raised, repr, strftime, strptime};
use crate::timetables::Zone;

/// `airflow: _BaseTemporalMapper`
#[derive(Debug, Clone)]
pub(super) struct Temporal {
    pub(super) grain: Grain,
    pub(super) zone: Zone,
    pub(super) input_format: String,
    pub(super) output_format: String,
    /// Reads a key back, where `strptime` can't.
    pub(super) key_pattern: Option<Regex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Grain {
    pub(super) const ALL: [Self; 6] = [
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hour => "StartOfHourMapper",
            Self::Day => "StartOfDayMapper",
            Self::Week => "StartOfWeekMapper",
            Self::Month => "StartOfMonthMapper",
            Self::Quarter => "StartOfQuarterMapper",
            Self::Year => "StartOfYearMapper",
        }
    }

    pub(super) fn default_output_format(self) -> &'static str {
        match self {
            Self::Hour => "%Y-%m-%dT%H",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%Y-%m-%d (W%V)",
            Self::Month => "%Y-%m",
            Self::Quarter => "%Y-Q{quarter}",
            Self::Year => "%Y",
        }
    }

    /// `normalize`
    fn start(self, moment: Moment) -> Result<Moment, Raised> {
        let (date, hour) = (moment.local.date(), moment.local.hour());
        let day_one = |month0: u32| date.with_day(1).and_then(|date| date.with_month0(month0));
        let date = match self {
            Self::Hour | Self::Day => Some(date),
            Self::Week => {
                let weekday = date.weekday().num_days_from_monday();
                date.checked_sub_days(Days::new(weekday.into()))
                    .filter(|date| date.year() >= 1)
            }
            Self::Month => day_one(date.month0()),
            Self::Quarter => day_one(date.month0() / 3 * 3),
            Self::Year => day_one(0),
        };
        let hour = if self == Self::Hour { hour } else { 0 };
        let time = NaiveTime::from_hms_opt(hour, 0, 0);
        let local = date
            .zip(time)
            .map(|(date, time)| NaiveDateTime::new(date, time));
        Ok(Moment {
            local: local.ok_or_else(|| Raised::of("OverflowError", "date value out of range"))?,
            // Python forgets it in a subtraction, and keeps it in a replacement.
            fold: moment.fold && self != Self::Week,
            ..moment
        })
    }
}

impl Temporal {
    pub(super) fn to_downstream(&self, key: &str) -> Result<String, Raised> {
        let read = strptime(key, &self.input_format)?;
        let moment = match read.instant() {
            None => Moment::make_aware(read.local, self.zone)?,
            Some(instant) => Moment::at(instant, self.zone),
        };
        self.format(&self.grain.start(moment)?)
    }

    pub(super) fn format(&self, moment: &Moment) -> Result<String, Raised> {
        let text = strftime(moment, &self.output_format);
        match self.grain {
            Grain::Quarter => with_quarter(&text, moment.local.month0() / 3 + 1),
            Grain::Hour | Grain::Day | Grain::Week | Grain::Month | Grain::Year => Ok(text),
        }
    }

    /// The start of the period that a formatted key names, naive unless the format says where.
    pub(super) fn decode_downstream(&self, key: &str) -> Result<Moment, Raised> {
        let Some(pattern) = &self.key_pattern else {
            return strptime(key, &self.output_format);
        };
        let found = pattern.captures(key);
        let number =
            |name: &str| -> Option<u32> { found.as_ref()?.name(name)?.as_str().parse().ok() };
        let date = match self.grain {
            Grain::Quarter => number("Y")
                .zip(number("quarter"))
                .map(|(year, quarter)| (year, quarter.saturating_sub(1) * 3 + 1, 1)),
            Grain::Hour | Grain::Day | Grain::Week | Grain::Month | Grain::Year => number("Y")
                .zip(number("m"))
                .zip(number("d"))
                .map(|((year, month), day)| (year, month, day)),
        };
        let Some((year, month, day)) = date else {
            return Err(self.unparsable(key));
        };
        let year = i32::try_from(year).unwrap_or(0);
        NaiveDate::from_ymd_opt(year, month, day)
            .filter(|date| date.year() >= 1)
            .map(|date| Moment::naive(date.and_time(NaiveTime::MIN)))
            .ok_or_else(|| Raised::value_error("day is out of range for month"))
    }

    pub(super) fn to_partition_date(&self, key: &str) -> Result<DateTime<Utc>, Raised> {
        let anchor = self.grain.start(self.decode_downstream(key)?)?;
        let aware = match anchor.is_naive() {
            true => Moment::make_aware(anchor.local, self.zone)?,
            false => anchor,
        };
        aware
            .instant()
            .ok_or_else(|| Raised::of("OverflowError", "date value out of range"))
    }

    pub(super) fn encode_upstream(&self, moment: &Moment) -> Result<String, Raised> {
        let local = match moment.instant() {
            None => moment.local,
            Some(instant) => Moment::at(instant, self.zone).local,
        };
        let aware = Moment::make_aware(local, self.zone)?;
        Ok(strftime(&aware, &self.input_format))
    }

    fn unparsable(&self, key: &str) -> Raised {
        let wanted = match self.grain {
            Grain::Quarter => "the %Y directive and the {quarter} placeholder",
            Grain::Hour | Grain::Day | Grain::Week | Grain::Month | Grain::Year => {
                "the %Y, %m and %d directives"
            }
        };
        let class = self.grain.name();
        Raised::value_error(format!(
            "{class}.decode_downstream could not parse {} with output_format {}; output_format must include {wanted}.",
            repr(key),
            repr(&self.output_format)
        ))
    }
}

/// `str.format(quarter=…)`
fn with_quarter(text: &str, quarter: u32) -> Result<String, Raised> {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        written.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            written.push_str(&rest[..1]);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{quarter}") {
            written.push_str(&quarter.to_string());
            rest = after;
        } else if let Some((name, _)) = rest
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            return Err(Raised::of("KeyError", repr(name)));
        } else {
            return Err(Raised::value_error(format!(
                "Single '{}' encountered in format string",
                &rest[..1]
            )));
        }
    }
    Ok(written + rest)
}

/// What reads a key of this format back: each directive and placeholder is a group.
/// `airflow: _compile_output_format_regex`
pub(super) fn key_pattern(format: &str, grain: Grain) -> Result<Regex, String> {
    let mut pattern = String::from("^");
    let mut named: Vec<&str> = Vec::new();
    let mut after_default = false;
    let mut rest = format;
    while let Some(letter) = rest.chars().next() {
        let directive = rest
            .get(1..2)
            .filter(|name| letter == '%' && "YmdHMSVUW".contains(name));
        let placeholder = rest
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        if let Some(name) = directive {
            if named.contains(&name) {
                return Err(format!(
                    "output_format {} reuses directive '%{name}'; each strftime directive may appear at most once.",
                    repr(format)
                ));
            }
            named.push(name);
            let digits = if name == "Y" { 4 } else { 2 };
            pattern.push_str(&format!("(?P<{name}>[0-9]{{{digits}}})"));
            rest = &rest[2..];
            after_default = false;
        } else if let Some((name, after)) = placeholder {
            let mut letters = name.chars();
            let is_name = letters
                .next()
                .is_some_and(|first| first.is_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_alphanumeric() || letter == '_');
            if !is_name {
                return Err(format!(
                    "output_format {} has invalid placeholder {{{name}}}; placeholder names must be valid Python identifiers.",
                    repr(format)
                ));
            }
            if named.contains(&name) {
                return Err(format!(
                    "output_format {} reuses placeholder {{{name}}}; each placeholder may appear at most once.",
                    repr(format)
                ));
            }
            let is_default = grain != Grain::Quarter || name != "quarter";
            if is_default && after_default {
                return Err(format!(
                    "output_format {} has adjacent default-pattern placeholders ending at {{{name}}}",
                    repr(format)
                ));
            }
            named.push(name);
            let expression = if is_default { r"\w+" } else { "[1-4]" };
            pattern.push_str(&format!("(?P<{name}>{expression})"));
            rest = after;
            after_default = is_default;
        } else {
            pattern.push_str(&regex::escape(&rest[..letter.len_utf8()]));
            rest = &rest[letter.len_utf8()..];
            after_default = false;
        }
    }
    // Python's `$` lets a last newline through.
    pattern.push_str(r"\n?\z");
    Regex::new(&pattern).map_err(|error| error.to_string())
}
