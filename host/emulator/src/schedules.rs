//! Functions that are called because time passes: cron lines and periods. Pure but for the call itself.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeZone, Timelike};
use chrono_tz::Tz;
use modal_api::wire::{self, schedule::ScheduleOneof};
use tonic::Status;

use crate::{
    core::{Core, Inner},
    handles, ids,
    record::{CallCreated, Event, NewInput},
    rows::{Change, Row, Rows, Table},
};

/// A date like February 30 never comes: nobody looks further than the next leap day.
const HORIZON_DAYS: u64 = 366 * 8;

/// When a function was called last by its schedule.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ScheduleRow {
    #[prost(double, tag = "1")]
    fired_at: f64,
}

impl Row for ScheduleRow {
    const TABLE: Table = Table::Schedules;
}

/// A schedule and when it is due next.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    rule: Rule,
    pub(crate) next: f64,
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(Box<Cron>),
    Period(f64),
}

impl Schedule {
    pub(crate) fn of(schedule: &wire::Schedule) -> Option<Self> {
        let rule = rule(schedule).ok()?;
        Some(Self {
            rule,
            next: f64::MAX,
        })
    }

    /// Cron lines go by the clock, periods by the last deployment; what was missed while nobody was there is not made up for.
    pub(crate) fn starting(
        mut self,
        rows: &Rows,
        function_id: &str,
        deployed_at: f64,
        now: f64,
    ) -> Self {
        let fired_at = rows
            .get::<ScheduleRow>(function_id)
            .map_or(0.0, |row| row.fired_at);
        self.next = match &self.rule {
            Rule::Cron(_) => self.after(now.max(fired_at)),
            Rule::Period(_) => self.after(deployed_at.max(fired_at)).max(now),
        };
        self
    }

    fn after(&self, moment: f64) -> f64 {
        match &self.rule {
            Rule::Period(seconds) => moment + seconds,
            Rule::Cron(cron) => cron.after(moment).unwrap_or(f64::MAX),
        }
    }
}

pub(crate) fn check(schedule: &wire::Schedule) -> Result<(), Status> {
    rule(schedule)
        .map(drop)
        .map_err(|reason| Status::invalid_argument(format!("invalid schedule: {reason}")))
}

impl Core {
    /// Calls what is due by the wall clock; answers when the next is.
    pub(crate) fn fire_schedules(&self, inner: &mut Inner, wall: f64) -> f64 {
        let mut due = Vec::new();
        let mut next = f64::MAX;
        for (function_id, function) in &mut inner.functions {
            let (Some(schedule), Some(deployed)) = (&mut function.schedule, &function.deployed)
            else {
                continue;
            };
            if schedule.next <= wall {
                due.push((function_id.clone(), deployed.clone()));
                schedule.next = schedule.after(wall);
            }
            next = next.min(schedule.next);
        }
        for (function_id, deployed) in due {
            let mut change = Change::default();
            change.put(&function_id, &ScheduleRow { fired_at: wall });
            inner.note(change.into_event());
            let event = CallCreated {
                function_call_id: ids::function_call(),
                function_id: function_id.clone(),
                invocation_type: wire::FunctionCallInvocationType::Async.into(),
                created_at: wall,
                idempotency_key: String::new(),
                inputs: vec![NewInput {
                    input_id: ids::input(),
                    idx: 0,
                    input: Some(handles::no_arguments(&deployed.definition)),
                }],
            };
            tracing::info!(function_id, "its schedule calls a function");
            inner.note(Event::CallCreated(event));
            self.dispatch(inner, &function_id);
        }
        next
    }
}

fn rule(schedule: &wire::Schedule) -> Result<Rule, String> {
    match &schedule.schedule_oneof {
        Some(ScheduleOneof::Cron(cron)) => Cron::parse(&cron.cron_string, &cron.timezone)
            .map(Box::new)
            .map(Rule::Cron),
        Some(ScheduleOneof::Period(period)) => {
            let days = f64::from(period.years) * 365.0
                + f64::from(period.months) * 30.0
                + f64::from(period.weeks) * 7.0
                + f64::from(period.days);
            let seconds = days * 86_400.0
                + f64::from(period.hours) * 3600.0
                + f64::from(period.minutes) * 60.0
                + f64::from(period.seconds);
            if seconds >= 1.0 {
                Ok(Rule::Period(seconds))
            } else {
                Err("a period of less than a second".to_owned())
            }
        }
        None => Err("neither cron nor period".to_owned()),
    }
}

/// Five fields: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// If both kinds of days are restricted, one of them is enough.
    any_day: bool,
    timezone: Tz,
}

impl Cron {
    fn parse(text: &str, timezone: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!("'{text}' has not five fields"));
        };
        const MONTHS: [&str; 12] = [
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ];
        const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let timezone = if timezone.is_empty() { "UTC" } else { timezone };
        let mut weekdays = set(weekday, 0, 7, &DAYS, 0)?;
        if weekdays & (1 << 7) != 0 {
            // Sunday has two numbers.
            weekdays |= 1;
        }
        Ok(Self {
            minutes: set(minute, 0, 59, &[], 0)?,
            hours: set(hour, 0, 23, &[], 0)?,
            days: set(day, 1, 31, &[], 0)?,
            months: set(month, 1, 12, &MONTHS, 1)?,
            weekdays,
            any_day: !day.starts_with('*') && !weekday.starts_with('*'),
            timezone: timezone
                .parse()
                .map_err(|_| format!("unknown timezone '{timezone}'"))?,
        })
    }

    /// The first minute after a moment that the line names.
    fn after(&self, moment: f64) -> Option<f64> {
        let now = DateTime::from_timestamp(moment as i64, 0)?.with_timezone(&self.timezone);
        let mut day = now.date_naive();
        let last = day + Days::new(HORIZON_DAYS);
        while day <= last {
            if self.names_day(day)
                && let Some(found) = self.within(day, moment)
            {
                return Some(found);
            }
            day = day.succ_opt()?;
        }
        None
    }

    fn names_day(&self, day: NaiveDate) -> bool {
        let in_month = self.days & (1 << day.day()) != 0;
        let in_week = self.weekdays & (1 << day.weekday().num_days_from_sunday()) != 0;
        let is_named = if self.any_day {
            in_month || in_week
        } else {
            in_month && in_week
        };
        is_named && self.months & (1 << day.month()) != 0
    }

    fn within(&self, day: NaiveDate, moment: f64) -> Option<f64> {
        let times = (0..24 * 60).filter(|minute| {
            self.hours & (1 << (minute / 60)) != 0 && self.minutes & (1 << (minute % 60)) != 0
        });
        times
            .filter_map(|minute| {
                let local = day.and_hms_opt(minute / 60, minute % 60, 0)?;
                // An hour that the clocks leave out does not come; one that comes twice counts once.
                let instant = self.timezone.from_local_datetime(&local).earliest()?;
                debug_assert_eq!(instant.minute(), minute % 60);
                Some(instant.timestamp() as f64)
            })
            .find(|instant| *instant > moment)
    }
}

/// A field as a set of bits: `*`, `*/5`, `1-5`, `1-9/2`, `mon`, and lists of these.
fn set(text: &str, least: u32, most: u32, names: &[&str], offset: u32) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no field of a cron line");
    let number = |word: &str| -> Result<u32, String> {
        let lower = word.to_ascii_lowercase();
        let named = (offset..).zip(names).find(|(_, name)| **name == lower);
        let value = match named {
            Some((value, _)) => value,
            None => word.parse().map_err(|_| wrong())?,
        };
        if (least..=most).contains(&value) {
            Ok(value)
        } else {
            Err(wrong())
        }
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().map_err(|_| wrong())?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if step == 0 || from > to {
            return Err(wrong());
        }
        for value in (from..=to).step_by(step as usize) {
            bits |= 1_u64 << value;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::Cron;

    fn next(line: &str, timezone: &str, from: &str) -> String {
        let from = DateTime::parse_from_rfc3339(from).unwrap().timestamp();
        match Cron::parse(line, timezone) {
            Ok(cron) => cron
                .after(from as f64)
                .and_then(|moment| DateTime::from_timestamp(moment as i64, 0))
                .map_or("never".to_owned(), |moment| moment.to_rfc3339()),
            Err(error) => error,
        }
    }

    #[test]
    fn cron_lines_name_minutes() {
        let from = "2026-03-28T12:00:00Z";
        let told: Vec<_> = [
            ("* * * * *", "UTC"),
            ("*/25 9-17/4 * * mon-fri", "UTC"),
            ("0 0 29 2 *", "UTC"),
            ("0 0 13 * fri", "UTC"),
            ("0 0 30 feb *", "UTC"),
            ("30 2 * * 7", "Europe/Berlin"),
            ("0 12 * * *", "Asia/Tokyo"),
            ("61 * * * *", "UTC"),
            ("* * * *", "UTC"),
            ("* * * * *", "Mars/North"),
        ]
        .into_iter()
        .map(|(line, timezone)| format!("{line}: {}", next(line, timezone, from)))
        .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        * * * * *: 2026-03-28T12:01:00+00:00
        */25 9-17/4 * * mon-fri: 2026-03-30T09:00:00+00:00
        0 0 29 2 *: 2028-02-29T00:00:00+00:00
        0 0 13 * fri: 2026-04-03T00:00:00+00:00
        0 0 30 feb *: never
        30 2 * * 7: 2026-04-05T00:30:00+00:00
        0 12 * * *: 2026-03-29T03:00:00+00:00
        61 * * * *: '61' is no field of a cron line
        * * * *: '* * * *' has not five fields
        * * * * *: unknown timezone 'Mars/North'
        "#);
    }
}
