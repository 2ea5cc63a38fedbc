//! Checks JSON as it streams by, in memory that does not grow with it.
//!
//! Stricter than the grammar where what follows is: no NUL and no lone surrogate, which Postgres refuses, and no
//! deeper than `serde_json` reads.

/// Containers within each other; one more, and `serde_json` refuses to read it.
const DEEPEST: usize = 127;

/// What is wrong, and after how many bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) at: u64,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    KeyOrEnd,
    /// After a comma in an object.
    Key,
    Colon,
    /// After a value inside a container.
    CommaOrEnd,
    /// After the outermost value.
    Nothing,
    Text(Text),
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
}

/// Inside a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Escape,
    /// `\u` with so many digits read, and what they say.
    Hex {
        digits: u8,
        value: u16,
    },
    /// The first half of a pair is read: `\` must follow, then `u`.
    Pair,
    PairU,
    PairHex {
        digits: u8,
        value: u16,
    },
    /// More bytes of one character, the next of them within bounds.
    Utf8 {
        more: u8,
        low: u8,
        high: u8,
    },
}

/// What was read of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

#[derive(Debug)]
pub(super) struct JsonText {
    next: Next,
    /// The containers around: whether each is an object.
    around: Vec<bool>,
    /// The text that is read is a key.
    in_key: bool,
    at: u64,
}

impl Default for JsonText {
    fn default() -> Self {
        Self {
            next: Next::Value,
            around: Vec::new(),
            in_key: false,
            at: 0,
        }
    }
}

impl JsonText {
    /// # Errors
    /// The first thing that no JSON text has here.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        for &byte in bytes {
            self.step(byte)
                .map_err(|what| Fault { what, at: self.at })?;
            self.at += 1;
        }
        Ok(())
    }

    /// # Errors
    /// When the text is cut off.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        if let Next::Number(number) = self.next {
            self.end_number(number)
                .map_err(|what| Fault { what, at: self.at })?;
        }
        match self.next {
            Next::Nothing => Ok(()),
            _ => Err(Fault {
                what: "unexpected end",
                at: self.at,
            }),
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        if let Next::Number(number) = self.next {
            match number.then(byte) {
                Some(more) => {
                    self.next = Next::Number(more);
                    return Ok(());
                }
                None => self.end_number(number)?,
            }
        }
        match self.next {
            Next::Text(text) => return self.step_text(text, byte),
            Next::Word(rest) => return self.step_word(rest, byte),
            _ => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        match (self.next, byte) {
            (Next::ValueOrEnd, b']') | (Next::KeyOrEnd, b'}') => self.close(),
            (Next::Value | Next::ValueOrEnd, _) => self.begin(byte),
            (Next::KeyOrEnd | Next::Key, b'"') => {
                self.in_key = true;
                self.next = Next::Text(Text::Plain);
                Ok(())
            }
            (Next::Colon, b':') => {
                self.next = Next::Value;
                Ok(())
            }
            (Next::CommaOrEnd, b',') => {
                self.next = if self.around.last() == Some(&true) {
                    Next::Key
                } else {
                    Next::Value
                };
                Ok(())
            }
            (Next::CommaOrEnd, b'}') if self.around.last() == Some(&true) => self.close(),
            (Next::CommaOrEnd, b']') if self.around.last() == Some(&false) => self.close(),
            _ => Err("unexpected character"),
        }
    }

    fn begin(&mut self, byte: u8) -> Result<(), &'static str> {
        self.next = match byte {
            b'{' | b'[' => {
                if self.around.len() == DEEPEST {
                    return Err("nested too deeply");
                }
                self.around.push(byte == b'{');
                if byte == b'{' {
                    Next::KeyOrEnd
                } else {
                    Next::ValueOrEnd
                }
            }
            b'"' => Next::Text(Text::Plain),
            b'-' => Next::Number(Number::Minus),
            b'0' => Next::Number(Number::Zero),
            b'1'..=b'9' => Next::Number(Number::Whole),
            b't' => Next::Word(b"rue"),
            b'f' => Next::Word(b"alse"),
            b'n' => Next::Word(b"ull"),
            _ => return Err("unexpected character"),
        };
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        self.around.pop();
        self.end_value();
        Ok(())
    }

    fn end_value(&mut self) {
        self.next = if self.around.is_empty() {
            Next::Nothing
        } else {
            Next::CommaOrEnd
        };
    }

    fn end_number(&mut self, number: Number) -> Result<(), &'static str> {
        match number {
            Number::Zero | Number::Whole | Number::Fraction | Number::Exponent => {
                self.end_value();
                Ok(())
            }
            Number::Minus | Number::Point | Number::E | Number::Sign => Err("not a number"),
        }
    }

    fn step_word(&mut self, rest: &'static [u8], byte: u8) -> Result<(), &'static str> {
        match rest {
            [expected, rest @ ..] if *expected == byte => {
                if rest.is_empty() {
                    self.end_value();
                } else {
                    self.next = Next::Word(rest);
                }
                Ok(())
            }
            _ => Err("unexpected character"),
        }
    }

    fn step_text(&mut self, text: Text, byte: u8) -> Result<(), &'static str> {
        if text == Text::Plain && byte == b'"' {
            if std::mem::take(&mut self.in_key) {
                self.next = Next::Colon;
            } else {
                self.end_value();
            }
            return Ok(());
        }
        self.next = Next::Text(text.then(byte)?);
        Ok(())
    }
}

impl Number {
    /// What the number is with one more byte; `None` when the byte is no part of it.
    fn then(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::E),
            (Self::E, b'+' | b'-') => Some(Self::Sign),
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Some(Self::Exponent),
            _ => None,
        }
    }
}

impl Text {
    fn then(self, byte: u8) -> Result<Self, &'static str> {
        match self {
            Self::Plain => Self::plain(byte),
            Self::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(Self::Plain),
                b'u' => Ok(Self::Hex {
                    digits: 0,
                    value: 0,
                }),
                _ => Err("unknown escape"),
            },
            Self::Hex { digits, value } => {
                let value = value << 4 | hex(byte)?;
                match (digits, value) {
                    (0..=2, _) => Ok(Self::Hex {
                        digits: digits + 1,
                        value,
                    }),
                    (_, 0) => Err("a NUL character, which the database can't hold,"),
                    (_, 0xD800..=0xDBFF) => Ok(Self::Pair),
                    (_, 0xDC00..=0xDFFF) => Err("lone surrogate"),
                    _ => Ok(Self::Plain),
                }
            }
            Self::Pair if byte == b'\\' => Ok(Self::PairU),
            Self::PairU if byte == b'u' => Ok(Self::PairHex {
                digits: 0,
                value: 0,
            }),
            Self::Pair | Self::PairU => Err("lone surrogate"),
            Self::PairHex { digits, value } => {
                let value = value << 4 | hex(byte)?;
                match (digits, value) {
                    (0..=2, _) => Ok(Self::PairHex {
                        digits: digits + 1,
                        value,
                    }),
                    (_, 0xDC00..=0xDFFF) => Ok(Self::Plain),
                    _ => Err("lone surrogate"),
                }
            }
            Self::Utf8 { more, low, high } if (low..=high).contains(&byte) => Ok(match more {
                1 => Self::Plain,
                more => Self::Utf8 {
                    more: more - 1,
                    low: 0x80,
                    high: 0xBF,
                },
            }),
            Self::Utf8 { .. } => Err("not UTF-8"),
        }
    }

    /// The first byte of a character. The bounds of the second are those of Unicode's table 3-7.
    fn plain(byte: u8) -> Result<Self, &'static str> {
        let utf8 = |more, low, high| Ok(Self::Utf8 { more, low, high });
        match byte {
            b'\\' => Ok(Self::Escape),
            0x00..=0x1F => Err("control character in a text"),
            0x20..=0x7F => Ok(Self::Plain),
            0xC2..=0xDF => utf8(1, 0x80, 0xBF),
            0xE0 => utf8(2, 0xA0, 0xBF),
            0xED => utf8(2, 0x80, 0x9F),
            0xE1..=0xEF => utf8(2, 0x80, 0xBF),
            0xF0 => utf8(3, 0x90, 0xBF),
            0xF1..=0xF3 => utf8(3, 0x80, 0xBF),
            0xF4 => utf8(3, 0x80, 0x8F),
            0x80..=0xC1 | 0xF5..=0xFF => Err("not UTF-8"),
        }
    }
}

fn hex(byte: u8) -> Result<u16, &'static str> {
    match byte {
        b'0'..=b'9' => Ok(u16::from(byte - b'0')),
        b'a'..=b'f' => Ok(u16::from(byte - b'a') + 10),
        b'A'..=b'F' => Ok(u16::from(byte - b'A') + 10),
        _ => Err("not a hexadecimal digit"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{Fault, JsonText};

    fn check(pieces: &[&[u8]]) -> Result<(), Fault> {
        let mut text = JsonText::default();
        for piece in pieces {
            text.feed(piece)?;
        }
        text.finish()
    }

    #[test]
    fn what_is_no_json_is_said() {
        let lines: Vec<String> = [
            "",
            " ",
            "1 2",
            "NaN",
            "-",
            "01",
            "1.",
            "1e",
            "[1,]",
            "[1",
            "{\"a\"}",
            "{\"a\":1,}",
            "{1:2}",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\u00g0\"",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\t\"",
            "]",
            "[}",
        ]
        .iter()
        .map(|text| match check(&[text.as_bytes()]) {
            Ok(()) => format!("{text:?} passes"),
            Err(fault) => format!("{text:?}: {fault}"),
        })
        .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        "": unexpected end at byte 0
        " ": unexpected end at byte 1
        "1 2": unexpected character at byte 2
        "NaN": unexpected character at byte 0
        "-": not a number at byte 1
        "01": unexpected character at byte 1
        "1.": not a number at byte 2
        "1e": not a number at byte 2
        "[1,]": unexpected character at byte 3
        "[1": unexpected end at byte 2
        "{\"a\"}": unexpected character at byte 4
        "{\"a\":1,}": unexpected character at byte 7
        "{1:2}": unexpected character at byte 1
        "tru": unexpected end at byte 3
        "\"a": unexpected end at byte 2
        "\"\\x\"": unknown escape at byte 2
        "\"\\u00g0\"": not a hexadecimal digit at byte 5
        "\"\\u0000\"": a NUL character, which the database can't hold, at byte 6
        "\"\\ud800\"": lone surrogate at byte 7
        "\"\\ud800\\u0041\"": lone surrogate at byte 12
        "\"\\udc00\"": lone surrogate at byte 6
        "\"\t\"": control character in a text at byte 1
        "]": unexpected character at byte 0
        "[}": unexpected character at byte 1
        "#);
    }

    #[test]
    fn depth_ends_where_serde_json_ends() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for depth in [126, 127, 128, 129] {
            let text = nested(depth);
            assert_eq!(
                check(&[text.as_bytes()]).is_ok(),
                serde_json::from_str::<Value>(&text).is_ok(),
                "{depth}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_what_serde_json_reads(
            text in proptest::collection::vec(
                prop_oneof![
                    Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\""), Just("\\"), Just("u00e9"),
                    Just("ud83d"), Just("ude00"), Just("true"), Just("null"), Just("0"), Just("12"), Just("-"), Just("."),
                    Just("e"), Just("+"), Just("a"), Just("é"), Just("😀"), Just(" "), Just("\"k\":"), Just("\"v\","),
                ],
                0..12,
            ),
            split in 0_usize..40,
        ) {
            let text = text.concat();
            let (one, two) = text.as_bytes().split_at(split.min(text.len()));
            let read = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(check(&[one, two]).is_ok(), read, "{}", text);
        }

        #[test]
        fn bytes_are_utf_8_or_refused(bytes in proptest::collection::vec(0x20_u8..=0xff, 0..6)) {
            prop_assume!(!bytes.contains(&b'"') && !bytes.contains(&b'\\'));
            let text = [b"\"", bytes.as_slice(), b"\""].concat();
            prop_assert_eq!(check(&[&text]).is_ok(), std::str::from_utf8(&text).is_ok());
        }
    }
}
