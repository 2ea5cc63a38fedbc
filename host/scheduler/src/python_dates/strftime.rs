//! `datetime.strftime`: Python fills in `%f`, `%z` and `%Z`, the C library the rest.

use chrono::{Datelike, Timelike};

use super::{MONTHS, Moment, WEEKDAYS};

/// The text of the moment; what is no directive stays as it is, as in the C library.
pub(crate) fn strftime(moment: &Moment, format: &str) -> String {
    let mut text = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (directive, length) = Directive::read(rest);
        match directive.and_then(|directive| directive.write(moment)) {
            Some(written) => text.push_str(&written),
            None => text.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    text.push_str(rest);
    text
}

/// `%`, flags, a width, a modifier, a letter.
struct Directive {
    flag: Option<char>,
    upper: bool,
    swap: bool,
    width: Option<usize>,
    letter: char,
}

/// A number with its usual width, or words.
enum Field {
    Number(i64, usize),
    /// Padded with a blank.
    Blank(i64, usize),
    Text(String),
}

impl Directive {
    /// The directive that the text starts with, if it does, and how long it is.
    fn read(text: &str) -> (Option<Self>, usize) {
        let mut directive = Self {
            flag: None,
            upper: false,
            swap: false,
            width: None,
            letter: '%',
        };
        let mut letters = text.char_indices().skip(1).peekable();
        while let Some((_, flag)) = letters.next_if(|(_, letter)| "_-0^#".contains(*letter)) {
            match flag {
                '^' => directive.upper = true,
                '#' => directive.swap = true,
                flag => directive.flag = Some(flag),
            }
        }
        while let Some((_, digit)) = letters.next_if(|(_, letter)| letter.is_ascii_digit()) {
            let digit = digit
                .to_digit(10)
                .and_then(|digit| usize::try_from(digit).ok());
            let width = directive.width.unwrap_or(0).saturating_mul(10);
            directive.width = Some(width.saturating_add(digit.unwrap_or(0)).min(255));
        }
        let _ = letters.next_if(|(_, letter)| *letter == 'E' || *letter == 'O');
        match letters.next() {
            None => (None, text.len()),
            Some((at, letter)) => {
                directive.letter = letter;
                (Some(directive), at + letter.len_utf8())
            }
        }
    }

    fn write(&self, moment: &Moment) -> Option<String> {
        // Python replaces these itself, and knows no flags for them.
        let is_plain = self.flag.is_none() && !self.upper && !self.swap && self.width.is_none();
        if "fzZ".contains(self.letter) && !is_plain {
            return None;
        }
        let text = match self.field(moment)? {
            Field::Number(number, width) => self.padded(number, width, '0'),
            Field::Blank(number, width) => self.padded(number, width, ' '),
            Field::Text(text) => {
                let text = self.cased(text);
                let width = self.width.unwrap_or(0);
                let pad = if self.flag == Some('0') { '0' } else { ' ' };
                let missing = width.saturating_sub(text.chars().count());
                String::from(pad).repeat(missing) + &text
            }
        };
        Some(text)
    }

    fn padded(&self, number: i64, width: usize, pad: char) -> String {
        let digits = number.to_string();
        if self.flag == Some('-') {
            return digits;
        }
        let pad = match self.flag {
            Some('_') => ' ',
            Some('0') => '0',
            _ => pad,
        };
        let width = self.width.unwrap_or(width);
        String::from(pad).repeat(width.saturating_sub(digits.len())) + &digits
    }

    fn cased(&self, text: String) -> String {
        match (self.upper, self.swap, self.letter) {
            (_, true, 'p') => text.to_lowercase(),
            (true, ..) | (_, true, _) => text.to_uppercase(),
            _ => text,
        }
    }

    fn field(&self, moment: &Moment) -> Option<Field> {
        let at = &moment.local;
        let year = i64::from(at.year());
        let weekday = at.weekday();
        let name =
            |names: &[&str], index: u32| names[usize::try_from(index).unwrap_or(0)].to_owned();
        let day_name = || name(&WEEKDAYS, weekday.num_days_from_monday());
        let month_name = || name(&MONTHS, at.month0());
        let two = |number: u32| Field::Number(number.into(), 2);
        let blank = |number: u32| Field::Blank(number.into(), 2);
        let twelve = (at.hour() + 11) % 12 + 1;
        let half = if at.hour() < 12 { "AM" } else { "PM" };
        let composed = |format: &str| Field::Text(strftime(moment, format));
        Some(match self.letter {
            '%' => Field::Text("%".to_owned()),
            'a' => Field::Text(day_name()[..3].to_owned()),
            'A' => Field::Text(day_name()),
            'b' | 'h' => Field::Text(month_name()[..3].to_owned()),
            'B' => Field::Text(month_name()),
            'c' => composed("%a %b %e %H:%M:%S %Y"),
            'C' => Field::Number(year / 100, 2),
            'd' => two(at.day()),
            'D' | 'x' => composed("%m/%d/%y"),
            'e' => blank(at.day()),
            'f' => Field::Number((at.nanosecond() / 1000).into(), 6),
            'F' => composed("%Y-%m-%d"),
            'g' => Field::Number(i64::from(at.iso_week().year()) % 100, 2),
            'G' => Field::Number(at.iso_week().year().into(), 1),
            'H' => two(at.hour()),
            'I' => two(twelve),
            'j' => Field::Number(at.ordinal().into(), 3),
            'k' => blank(at.hour()),
            'l' => blank(twelve),
            'm' => two(at.month()),
            'M' => two(at.minute()),
            'n' => Field::Text("\n".to_owned()),
            'p' => Field::Text(half.to_owned()),
            'P' => Field::Text(half.to_lowercase()),
            'r' => composed("%I:%M:%S %p"),
            'R' => composed("%H:%M"),
            // On the clock of a process in UTC.
            's' => Field::Number(at.and_utc().timestamp(), 1),
            'S' => two(at.second()),
            't' => Field::Text("\t".to_owned()),
            'T' | 'X' => composed("%H:%M:%S"),
            'u' => Field::Number(weekday.number_from_monday().into(), 1),
            'U' => two((at.ordinal() + 6 - weekday.num_days_from_sunday()) / 7),
            'V' => two(at.iso_week().week()),
            'w' => Field::Number(weekday.num_days_from_sunday().into(), 1),
            'W' => two((at.ordinal() + 6 - weekday.num_days_from_monday()) / 7),
            'y' => Field::Number(year % 100, 2),
            'Y' => Field::Number(year, 1),
            'z' => Field::Text(moment.offset().map_or_else(String::new, |offset| {
                let seconds = offset.local_minus_utc();
                let (sign, seconds) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
                let rest = match seconds % 60 {
                    0 => String::new(),
                    rest => format!("{rest:02}"),
                };
                format!("{sign}{:02}{:02}{rest}", seconds / 3600, seconds / 60 % 60)
            })),
            'Z' => Field::Text(moment.zone_name()),
            _ => return None,
        })
    }
}
