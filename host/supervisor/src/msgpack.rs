//! MessagePack to JSON and back without a tree between, so that a large XCom costs its bytes and no more.
//! Only what JSON can say passes, besides the timestamps that the task runner sends in its own messages.

use std::fmt::Formatter;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

const DEEPEST: usize = 500;

/// Why bytes could not be turned into the other format.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the message ends too early")]
    Short,
    #[error("strings must be UTF-8")]
    Text,
    #[error("out of range float values are not JSON compliant: {0}")]
    Float(f64),
    #[error("a map key must be a string")]
    Key,
    #[error("{0} have no JSON form")]
    Kind(&'static str),
    #[error("values are nested deeper than {DEEPEST}")]
    Deep,
}

/// Takes one value off the front of `input` and appends it to `out` as JSON text.
pub(crate) fn to_json(input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    value_to_json(input, out, 0)
}

/// Takes an unsigned integer off the front.
pub(crate) fn take_unsigned(input: &mut &[u8]) -> Result<u64, Error> {
    match take_byte(input)? {
        small @ 0x00..=0x7f => Ok(u64::from(small)),
        0xcc => Ok(u64::from(take_byte(input)?)),
        0xcd => Ok(big_endian(take(input, 2)?)),
        0xce => Ok(big_endian(take(input, 4)?)),
        0xcf => Ok(big_endian(take(input, 8)?)),
        _ => Err(Error::Kind("request ids that are no unsigned numbers")),
    }
}

/// Takes the head of an array off the front and says how many items follow.
pub(crate) fn take_array_length(input: &mut &[u8]) -> Result<usize, Error> {
    match take_byte(input)? {
        head @ 0x90..=0x9f => Ok(usize::from(head & 0x0f)),
        0xdc => Ok(length(take(input, 2)?)),
        0xdd => Ok(length(take(input, 4)?)),
        _ => Err(Error::Kind("frames that are no arrays")),
    }
}

fn value_to_json(input: &mut &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(Error::Deep);
    }
    match take_byte(input)? {
        small @ 0x00..=0x7f => push_display(out, small),
        map @ 0x80..=0x8f => map_to_json(input, usize::from(map & 0x0f), out, depth)?,
        array @ 0x90..=0x9f => array_to_json(input, usize::from(array & 0x0f), out, depth)?,
        text @ 0xa0..=0xbf => text_to_json(input, usize::from(text & 0x1f), out)?,
        0xc0 => out.extend_from_slice(b"null"),
        0xc2 => out.extend_from_slice(b"false"),
        0xc3 => out.extend_from_slice(b"true"),
        0xc4..=0xc6 => return Err(Error::Kind("bytes")),
        0xca => {
            let bits = u32::try_from(big_endian(take(input, 4)?)).unwrap_or_default();
            float_to_json(f64::from(f32::from_bits(bits)), out)?;
        }
        0xcb => float_to_json(f64::from_bits(big_endian(take(input, 8)?)), out)?,
        unsigned @ 0xcc..=0xcf => {
            push_display(out, big_endian(take(input, 1 << (unsigned - 0xcc))?))
        }
        signed @ 0xd0..=0xd3 => {
            let bytes = take(input, 1 << (signed - 0xd0))?;
            let unused = 64 - 8 * u32::try_from(bytes.len()).unwrap_or(8);
            push_display(out, (big_endian(bytes) << unused).cast_signed() >> unused);
        }
        extension @ 0xd4..=0xd8 => timestamp_to_json(input, 1 << (extension - 0xd4), out)?,
        0xc7 => {
            let size = usize::from(take_byte(input)?);
            timestamp_to_json(input, size, out)?;
        }
        0xc1 | 0xc8 | 0xc9 => return Err(Error::Kind("extension values")),
        0xd9 => sized(input, 1, |input, size| text_to_json(input, size, out))?,
        0xda => sized(input, 2, |input, size| text_to_json(input, size, out))?,
        0xdb => sized(input, 4, |input, size| text_to_json(input, size, out))?,
        0xdc => sized(input, 2, |input, size| {
            array_to_json(input, size, out, depth)
        })?,
        0xdd => sized(input, 4, |input, size| {
            array_to_json(input, size, out, depth)
        })?,
        0xde => sized(input, 2, |input, size| map_to_json(input, size, out, depth))?,
        0xdf => sized(input, 4, |input, size| map_to_json(input, size, out, depth))?,
        negative @ 0xe0..=0xff => push_display(out, negative.cast_signed()),
    }
    Ok(())
}

fn sized(
    input: &mut &[u8],
    width: usize,
    body: impl FnOnce(&mut &[u8], usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let size = length(take(input, width)?);
    body(input, size)
}

fn map_to_json(
    input: &mut &[u8],
    size: usize,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Error> {
    out.push(b'{');
    for index in 0..size {
        if index > 0 {
            out.push(b',');
        }
        if !matches!(input.first(), Some(0xa0..=0xbf | 0xd9..=0xdb)) {
            return Err(Error::Key);
        }
        value_to_json(input, out, depth + 1)?;
        out.push(b':');
        value_to_json(input, out, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

fn array_to_json(
    input: &mut &[u8],
    size: usize,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Error> {
    out.push(b'[');
    for index in 0..size {
        if index > 0 {
            out.push(b',');
        }
        value_to_json(input, out, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

fn text_to_json(input: &mut &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let text = std::str::from_utf8(take(input, size)?).map_err(|_| Error::Text)?;
    push_text(out, text);
    Ok(())
}

/// Appends a JSON string.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can always be written to memory");
}

fn float_to_json(value: f64, out: &mut Vec<u8>) -> Result<(), Error> {
    if !value.is_finite() {
        return Err(Error::Float(value));
    }
    serde_json::to_writer(out, &value).expect("a number can always be written to memory");
    Ok(())
}

/// The one extension the runner sends: a point in time (`-1` in MessagePack's own list), as RFC 3339.
fn timestamp_to_json(input: &mut &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let kind = take_byte(input)?;
    let bytes = take(input, size)?;
    if kind != 0xff {
        return Err(Error::Kind("extension values"));
    }
    let (seconds, nanoseconds) = match size {
        4 => (big_endian(bytes).cast_signed(), 0),
        8 => {
            let both = big_endian(bytes);
            ((both & 0x3_ffff_ffff).cast_signed(), both >> 34)
        }
        12 => (
            big_endian(&bytes[4..]).cast_signed(),
            big_endian(&bytes[..4]),
        ),
        _ => return Err(Error::Kind("timestamps of this size")),
    };
    let time: DateTime<Utc> = u32::try_from(nanoseconds)
        .ok()
        .and_then(|nanoseconds| DateTime::from_timestamp(seconds, nanoseconds))
        .ok_or(Error::Kind("times so far away"))?;
    push_text(out, &time.to_rfc3339_opts(SecondsFormat::Micros, true));
    Ok(())
}

fn push_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{value}").expect("memory can always be written to");
}

fn take_byte(input: &mut &[u8]) -> Result<u8, Error> {
    let (first, rest) = input.split_first().ok_or(Error::Short)?;
    *input = rest;
    Ok(*first)
}

fn take<'a>(input: &mut &'a [u8], size: usize) -> Result<&'a [u8], Error> {
    let (taken, rest) = input.split_at_checked(size).ok_or(Error::Short)?;
    *input = rest;
    Ok(taken)
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn length(bytes: &[u8]) -> usize {
    usize::try_from(big_endian(bytes)).unwrap_or(usize::MAX)
}

/// Appends whatever `source` holds (JSON text, a `Value`) to `out` as MessagePack.
pub(crate) fn from_json<'de, D: Deserializer<'de>>(
    source: D,
    out: &mut Vec<u8>,
) -> Result<(), D::Error> {
    Sink(out).deserialize(source)
}

/// Appends a MessagePack string.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    match u32::try_from(text.len()) {
        Ok(size @ 0..=31) => out.push(0xa0 | size.to_be_bytes()[3]),
        Ok(size) => put_head(out, 0xdb, size),
        Err(_) => unreachable!("frames over 4 GiB are refused before"),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends the head of a map with fewer than 16 entries.
pub(crate) fn put_map_head(out: &mut Vec<u8>, entries: u8) {
    debug_assert!(entries < 16, "small maps alone are written by hand");
    out.push(0x80 | entries);
}

/// Appends the head of an array.
pub(crate) fn put_array_head(out: &mut Vec<u8>, items: usize) {
    put_head(out, 0xdd, u32::try_from(items).unwrap_or(u32::MAX));
}

/// Appends an unsigned integer.
pub(crate) fn put_unsigned(out: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(small @ 0..=0x7f) => out.push(small),
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn put_head(out: &mut Vec<u8>, marker: u8, size: u32) {
    out.push(marker);
    out.extend_from_slice(&size.to_be_bytes());
}

struct Sink<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Sink<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sink<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(0xc0);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        put_unsigned(self.0, value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        match u64::try_from(value) {
            Ok(value) => put_unsigned(self.0, value),
            Err(_) => {
                self.0.push(0xd3);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.push(0xcb);
        self.0.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        put_text(self.0, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let start = self.0.len();
        put_head(self.0, 0xdd, 0);
        let mut count = 0_u32;
        while items.next_element_seed(Sink(&mut *self.0))?.is_some() {
            count += 1;
        }
        self.0[start + 1..start + 5].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let start = self.0.len();
        put_head(self.0, 0xdf, 0);
        let mut count = 0_u32;
        while entries.next_key_seed(Sink(&mut *self.0))?.is_some() {
            entries.next_value_seed(Sink(&mut *self.0))?;
            count += 1;
        }
        self.0[start + 1..start + 5].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{from_json, to_json};

    fn there_and_back(text: &str) -> String {
        let mut packed = Vec::new();
        from_json(&mut serde_json::Deserializer::from_str(text), &mut packed).unwrap();
        let mut out = Vec::new();
        let mut rest = packed.as_slice();
        to_json(&mut rest, &mut out).unwrap();
        assert!(rest.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_survives_the_way_through_messagepack() {
        for text in [
            "null",
            "[true,false]",
            "[0,127,128,255,65536,4294967296,18446744073709551615]",
            "[-1,-32,-33,-129,-32769,-2147483649,-9223372036854775808]",
            "[1.0,0.1,-2.5e+300]",
            r#"{"":{"a":[{}]},"ü\"\n":"\u0000"}"#,
        ] {
            assert_eq!(there_and_back(text), text);
        }
        let long = serde_json::to_string(&"x".repeat(70_000)).unwrap();
        assert_eq!(there_and_back(&long), long);
    }

    fn json(mut packed: &[u8]) -> String {
        let mut out = Vec::new();
        match to_json(&mut packed, &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_json_cannot_say_is_named() {
        insta::assert_snapshot!(json(&[0xd6, 0xff, 0x65, 0x92, 0x00, 0x80]), @r#""2024-01-01T00:00:00.000000Z""#);
        insta::assert_snapshot!(json(&[0xd0, 0xff]), @"-1");
        insta::assert_snapshot!(json(&[0xca, 0x3f, 0x80, 0, 0]), @"1.0");
        insta::assert_snapshot!(json(&[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]), @"out of range float values are not JSON compliant: inf");
        insta::assert_snapshot!(json(&[0xc4, 1, 0]), @"bytes have no JSON form");
        insta::assert_snapshot!(json(&[0x81, 1, 1]), @"a map key must be a string");
        insta::assert_snapshot!(json(&[0xa2, 0xff, 0xff]), @"strings must be UTF-8");
        insta::assert_snapshot!(json(&[0xdb, 0xff, 0xff, 0xff, 0xff, 1]), @"the message ends too early");
        insta::assert_snapshot!(json(&[0x91; 600]), @"values are nested deeper than 500");
    }
}
