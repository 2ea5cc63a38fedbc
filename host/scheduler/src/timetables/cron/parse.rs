//! From text to fields. `croniter: _expand`

use super::{Cron, Field, Nth};

/// Lowest and highest value of each field.
const RANGES: [(u32, u32); 7] = [
    (0, 59),
    (0, 23),
    (1, 31),
    (1, 12),
    (0, 6),
    (0, 59),
    (1970, 2099),
];
const DAY: usize = 2;
const MONTH: usize = 3;
const WEEKDAY: usize = 4;
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What one field lists.
#[derive(Default)]
struct Values {
    numbers: Vec<u32>,
    any: bool,
    last: bool,
    nth: Vec<(u32, Nth)>,
    nearest_weekday: Option<u32>,
}

impl Cron {
    /// Airflow's presets (`@daily`) and croniter's own are taken as well.
    pub(crate) fn parse(expression: &str) -> Result<Self, String> {
        let lower = expression.to_lowercase();
        let text = match lower.as_str() {
            "@midnight" | "@daily" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@quarterly" => "0 0 1 */3 *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let texts: Vec<&str> = text.split_ascii_whitespace().collect();
        if !(5..=7).contains(&texts.len()) {
            return Err(format!(
                "it has {} fields, not 5 (or 6 with seconds, 7 with seconds and years)",
                texts.len()
            ));
        }
        let values: Vec<Values> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| values(index, text))
            .collect::<Result<_, String>>()?;
        let field = |index: usize| field(index, &values[index], &texts);
        let weekdays = field(WEEKDAY);
        let nth_weekdays = values[WEEKDAY].nth.clone();
        let mixed = values[WEEKDAY]
            .numbers
            .iter()
            .any(|day| !nth_weekdays.iter().any(|(nth, _)| nth == day));
        if !nth_weekdays.is_empty() && mixed && !weekdays.only_any && weekdays.bits != 0x7f {
            return Err("it mixes weekdays with and without #".to_owned());
        }
        Ok(Self {
            minutes: field(0),
            hours: field(1),
            days: field(DAY),
            last_day: values[DAY].last,
            nearest_weekday: values[DAY].nearest_weekday,
            months: field(MONTH),
            weekdays,
            nth_weekdays,
            seconds: (values.len() > 5).then(|| field(5)),
            years: values
                .get(6)
                .filter(|years| !years.any && years.numbers.len() < 130)
                .map(|years| {
                    years
                        .numbers
                        .iter()
                        .map(|&year| year.cast_signed())
                        .collect()
                }),
        })
    }
}

fn field(index: usize, values: &Values, texts: &[&str]) -> Field {
    let (low, high) = RANGES[index];
    let count = values.numbers.len() + usize::from(values.any) + usize::from(values.last);
    let whole = count == (high - low + 1) as usize;
    // A day field with all its values only counts as `*` when that changes nothing for the other one.
    let stands_alone = match index {
        DAY => texts[WEEKDAY].contains('*'),
        WEEKDAY => texts[DAY].contains('*'),
        _ => true,
    };
    let only_any = (whole && stands_alone) || (values.any && count == 1);
    Field {
        bits: values
            .numbers
            .iter()
            .filter(|&&number| number < 64)
            .fold(0, |bits, number| bits | 1 << number),
        any: values.any || only_any,
        only_any,
    }
}

fn values(index: usize, text: &str) -> Result<Values, String> {
    let mut values = Values::default();
    let text = if text == "?" && (index == DAY || index == WEEKDAY) {
        "*"
    } else {
        text
    };
    let mut open: Vec<String> = text.split(',').map(str::to_owned).collect();
    while let Some(item) = open.pop() {
        let (item, nth) = if index == WEEKDAY {
            split_nth(&item)?
        } else {
            (item, None)
        };
        if index == DAY
            && let Some(day) = nearest_weekday(&item)
        {
            let alone = open.is_empty()
                && values.numbers.is_empty()
                && !values.any
                && !values.last
                && values.nearest_weekday.is_none();
            if !(1..=31).contains(&day) || !alone {
                return Err(format!("{item:?} must be the only day, from 1W to 31W"));
            }
            values.nearest_weekday = Some(day);
            values.numbers.push(day);
            continue;
        }
        if let Some(range) = range(index, &item)? {
            for number in range {
                match nth {
                    Some(Nth::Number(nth)) => open.push(format!("{number}#{nth}")),
                    // `L` is lost on ranges, which can't be written with it.
                    Some(Nth::Last) | None => push(index, &mut values, number, None)?,
                }
            }
        } else {
            single(index, &item, nth, &mut values)?;
        }
    }
    values.numbers.sort_unstable();
    values.numbers.dedup();
    Ok(values)
}

/// `5#2`, `fri#2`, `mon-fri#2`, `L5`
fn split_nth(item: &str) -> Result<(String, Option<Nth>), String> {
    if let Some(day) = item.strip_prefix('l')
        && is_number(day)
    {
        return Ok((day.to_owned(), Some(Nth::Last)));
    }
    let Some((days, nth)) = item.split_once('#') else {
        return Ok((item.to_owned(), None));
    };
    let named_range = days.split_once('-').map_or(
        days.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        |(low, high)| WEEKDAYS.contains(&low) && WEEKDAYS.contains(&high),
    );
    match nth.parse() {
        Ok(number @ 1..=5) if is_number(nth) && named_range => {
            Ok((days.to_owned(), Some(Nth::Number(number))))
        }
        _ => Err(format!("{item:?} is not a weekday from #1 to #5")),
    }
}

/// `15W`, `W15`
fn nearest_weekday(item: &str) -> Option<u32> {
    let day = item.strip_prefix('w').or_else(|| item.strip_suffix('w'))?;
    is_number(day).then(|| day.parse().ok()).flatten()
}

/// `1-5`, `1-9/2`, `*/2`, `5/10`; `None` for anything else.
fn range(index: usize, item: &str) -> Result<Option<Vec<u32>>, String> {
    let (lowest, highest) = RANGES[index];
    let (bounds, step) = match item.split_once('/') {
        Some((bounds, step)) => (bounds, Some(step)),
        None => (item, None),
    };
    let number = |text: &str| -> Result<u32, String> {
        let value = if is_number(text) {
            text.parse().map_err(|_| format!("{text:?} is too big"))?
        } else {
            name(index, text)?
        };
        Ok(if index == WEEKDAY && value == 7 {
            0
        } else {
            value
        })
    };
    let step_of = |text: &str| -> Result<u32, String> {
        match text.parse() {
            Ok(step) if step > 0 && is_number(text) => Ok(step),
            _ => Err(format!("{item:?} has the step {text:?}")),
        }
    };
    let (low, high, step, is_start) = match (bounds.split_once('-'), step) {
        (Some((low, "l")), step) if index == DAY => (number(low)?, highest, step, false),
        (Some((low, high)), step) => (number(low)?, number(high)?, step, false),
        (None, Some(step)) if bounds == "*" => (lowest, highest, Some(step), false),
        (None, Some(step)) => (number(bounds)?, highest, Some(step), true),
        (None, None) => return Ok(None),
    };
    let step = step.map_or(Ok(1), step_of)?;
    if low.max(high) > highest {
        return Err(format!("{item:?} is out of range"));
    }
    if low == high && is_start {
        return Ok(Some(vec![low]));
    }
    // An equal range is the whole cycle: `jan-jan`.
    let (low, high) = if low == high {
        (lowest, highest)
    } else {
        (low, high)
    };
    let stepped = |from: u32, to: u32| (from..=to).step_by(step as usize);
    if low <= high {
        return Ok(Some(stepped(low, high).collect()));
    }
    // Wraps: `sat-mon`, `apr-jan/3`. The step goes on over the end of the field.
    let mut numbers: Vec<u32> = stepped(low, highest).collect();
    let mut skip = 0;
    if let Some(&last) = numbers.last() {
        let size = highest - lowest + 1;
        let left = highest - last;
        let position = last - lowest;
        if position + step > size && left < step {
            skip = step - left;
        }
    }
    numbers.extend(stepped(lowest + skip, high));
    Ok(Some(numbers))
}

fn single(index: usize, item: &str, nth: Option<Nth>, values: &mut Values) -> Result<(), String> {
    match item {
        "*" => values.any = true,
        "l" if index == DAY => values.last = true,
        text => {
            let number = if is_number(text) {
                text.parse().map_err(|_| format!("{text:?} is too big"))?
            } else {
                name(index, text)?
            };
            push(index, values, number, nth)?;
        }
    }
    Ok(())
}

fn push(index: usize, values: &mut Values, number: u32, nth: Option<Nth>) -> Result<(), String> {
    let number = if index == WEEKDAY && number == 7 {
        0
    } else {
        number
    };
    let (low, high) = RANGES[index];
    if !(low..=high).contains(&number) {
        return Err(format!("{number} is out of range ({low} to {high})"));
    }
    values.numbers.push(number);
    values.nth.extend(nth.map(|nth| (number, nth)));
    Ok(())
}

fn name(index: usize, text: &str) -> Result<u32, String> {
    let names: &[&str] = match index {
        MONTH => &MONTHS,
        WEEKDAY => &WEEKDAYS,
        _ => &[],
    };
    let position = names.iter().position(|name| *name == text);
    let first = u32::from(index == MONTH);
    position
        .and_then(|position| u32::try_from(position).ok())
        .map(|position| position + first)
        .ok_or_else(|| format!("{text:?} is not a value of that field"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
