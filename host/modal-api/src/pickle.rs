//! Python's pickles, for what Python programs and we share in dicts and queues. They are read as data: nothing in one is ever
//! executed, and one that wants a class or a function is refused.
//!
//! Written are the bytes that Python itself writes (protocol 4), since a dict compares its keys byte by byte.

use serde_pickle::{DeOptions, HashableValue};

use crate::{Error, pickle_shape};

pub use serde_pickle::Value;

const PROTO: [u8; 2] = [0x80, 4];
const STOP: u8 = b'.';
const MEMOIZE: u8 = 0x94;
const FRAME: u8 = 0x95;
/// Shorter bodies stand without a frame.
const LEAST_FRAME: usize = 4;
/// Payloads of this size stand outside of frames.
const LARGE: usize = 64 << 10;
/// Deeper ones are refused before they can exhaust the stack.
const MOST_DEPTH: usize = 100;

/// Reads a pickle of any protocol.
///
/// # Errors
/// [`Error::Decode`] when it is no pickle, or one of more than plain data.
pub fn read(bytes: &[u8]) -> Result<Value, Error> {
    pickle_shape::check(bytes)?;
    serde_pickle::value_from_slice(bytes, DeOptions::new())
        .map_err(|error| Error::Decode(format!("not a pickle of plain data: {error}")))
}

/// Writes texts, numbers, bytes, None, truth values, lists, tuples and dicts of these as Python does.
///
/// # Errors
/// [`Error::Encode`] for anything else.
pub fn write(value: &Value) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::default();
    writer.value(value, 0)?;
    writer.body.push(STOP);
    writer.end_frame();
    Ok([&PROTO[..], &writer.whole].concat())
}

/// A text as Python writes it: the usual key of a dict.
pub fn text(text: &str) -> Result<Vec<u8>, Error> {
    write(&Value::String(text.to_owned()))
}

/// The text that a pickle holds, if it holds one.
#[must_use]
pub fn as_text(bytes: &[u8]) -> Option<String> {
    match read(bytes) {
        Ok(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The same data as CBOR has it; none for what CBOR lacks.
pub(crate) fn to_cbor(value: Value) -> Option<ciborium::Value> {
    use ciborium::Value as Cbor;
    let list = |items: Vec<Value>| items.into_iter().map(to_cbor).collect::<Option<Vec<_>>>();
    Some(match value {
        Value::None => Cbor::Null,
        Value::Bool(truth) => Cbor::Bool(truth),
        Value::I64(number) => Cbor::from(number),
        Value::F64(number) => Cbor::Float(number),
        Value::Bytes(bytes) => Cbor::Bytes(bytes),
        Value::String(text) => Cbor::Text(text),
        Value::List(items) | Value::Tuple(items) => Cbor::Array(list(items)?),
        Value::Dict(entries) => Cbor::Map(
            entries
                .into_iter()
                .map(|(key, value)| Some((to_cbor(key.into_value())?, to_cbor(value)?)))
                .collect::<Option<_>>()?,
        ),
        Value::Int(_) | Value::Set(_) | Value::FrozenSet(_) => return None,
    })
}

#[derive(Debug, Default)]
struct Writer {
    /// What is complete, frames with their heads.
    whole: Vec<u8>,
    /// The frame that is being written.
    body: Vec<u8>,
}

impl Writer {
    // CPython: commit_frame
    fn end_frame(&mut self) {
        if self.body.len() >= LEAST_FRAME {
            self.whole.push(FRAME);
            self.whole.extend((self.body.len() as u64).to_le_bytes());
        }
        self.whole.append(&mut self.body);
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MOST_DEPTH {
            return Err(Error::Encode(format!("more than {MOST_DEPTH} levels deep")));
        }
        match value {
            Value::None => self.body.push(b'N'),
            Value::Bool(true) => self.body.push(0x88),
            Value::Bool(false) => self.body.push(0x89),
            Value::I64(number) => self.integer(*number),
            Value::F64(number) => {
                self.body.push(b'G');
                self.body.extend(number.to_be_bytes());
            }
            Value::String(text) => self.payload(text.as_bytes(), [0x8c, b'X', 0x8d]),
            Value::Bytes(bytes) => self.payload(bytes, [b'C', b'B', 0x8e]),
            Value::List(items) => {
                self.body.extend([b']', MEMOIZE]);
                self.items(items, depth)?;
            }
            Value::Tuple(items) => self.tuple(items, depth)?,
            Value::Dict(entries) => {
                self.body.extend([b'}', MEMOIZE]);
                self.entries(entries, depth)?;
            }
            other => {
                return Err(Error::Encode(format!("{other} is not written as a pickle")));
            }
        }
        Ok(())
    }

    // CPython: save_long
    fn integer(&mut self, number: i64) {
        if let Ok(byte) = u8::try_from(number) {
            self.body.extend([b'K', byte]);
        } else if let Ok(short) = u16::try_from(number) {
            self.body.push(b'M');
            self.body.extend(short.to_le_bytes());
        } else if let Ok(word) = i32::try_from(number) {
            self.body.push(b'J');
            self.body.extend(word.to_le_bytes());
        } else {
            // As few bytes as keep the sign.
            let bytes = number.to_le_bytes();
            let sign = if number < 0 { 0xff } else { 0 };
            let mut length = bytes.len();
            while length > 1
                && bytes[length - 1] == sign
                && (bytes[length - 2] & 0x80 != 0) == (number < 0)
            {
                length -= 1;
            }
            self.body.push(0x8a);
            self.body.push(u8::try_from(length).unwrap_or(8));
            self.body.extend(&bytes[..length]);
        }
    }

    /// A text or bytes, with the opcodes for a length in one, four and eight bytes.
    // CPython: write_unicode_binary, _save_bytes_data
    fn payload(&mut self, bytes: &[u8], [short, long, huge]: [u8; 3]) {
        let mut head = Vec::with_capacity(9);
        if let Ok(length) = u8::try_from(bytes.len()) {
            head.extend([short, length]);
        } else if let Ok(length) = u32::try_from(bytes.len()) {
            head.push(long);
            head.extend(length.to_le_bytes());
        } else {
            head.push(huge);
            head.extend((bytes.len() as u64).to_le_bytes());
        }
        if bytes.len() < LARGE {
            self.body.extend(head);
            self.body.extend(bytes);
        } else {
            self.end_frame();
            self.whole.extend(head);
            self.whole.extend(bytes);
        }
        self.body.push(MEMOIZE);
    }

    fn items(&mut self, items: &[Value], depth: usize) -> Result<(), Error> {
        // CPython: batch_list, a thousand at a time
        for batch in items.chunks(1000) {
            if let [one] = batch {
                self.value(one, depth + 1)?;
                self.body.push(b'a');
                continue;
            }
            self.body.push(b'(');
            for item in batch {
                self.value(item, depth + 1)?;
            }
            self.body.push(b'e');
        }
        Ok(())
    }

    fn tuple(&mut self, items: &[Value], depth: usize) -> Result<(), Error> {
        if items.is_empty() {
            self.body.push(b')');
            return Ok(());
        }
        if items.len() > 3 {
            self.body.push(b'(');
        }
        for item in items {
            self.value(item, depth + 1)?;
        }
        self.body.push(match items.len() {
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
        self.body.push(MEMOIZE);
        Ok(())
    }

    fn entries(
        &mut self,
        entries: &std::collections::BTreeMap<HashableValue, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        let entries: Vec<_> = entries.iter().collect();
        for batch in entries.chunks(1000) {
            let many = batch.len() > 1;
            if many {
                self.body.push(b'(');
            }
            for (key, value) in batch {
                self.value(&(*key).clone().into_value(), depth + 1)?;
                self.value(value, depth + 1)?;
            }
            self.body.push(if many { b'u' } else { b's' });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Value, read, text, write};

    /// As `modal._serialization.serialize` writes them.
    #[test]
    fn texts_numbers_and_bytes_have_the_bytes_that_python_writes() {
        let hex = |value: Value| hex::encode(write(&value).unwrap());
        let cases = [
            (
                Value::String("k".to_owned()),
                "80049505000000000000008c016b942e",
            ),
            (
                Value::String(String::new()),
                "80049504000000000000008c00942e",
            ),
            (Value::I64(0), "80044b002e"),
            (Value::I64(255), "80044bff2e"),
            (Value::I64(256), "80049504000000000000004d00012e"),
            (Value::I64(-1), "80049506000000000000004affffffff2e"),
            (
                Value::I64(1 << 31),
                "80049508000000000000008a0500000080002e",
            ),
            (Value::None, "80044e2e"),
            (Value::Bool(true), "8004882e"),
            (Value::Bool(false), "8004892e"),
            (
                Value::F64(1.5),
                "8004950a00000000000000473ff80000000000002e",
            ),
            (
                Value::Bytes(b"ab".to_vec()),
                "80049506000000000000004302616294 2e",
            ),
            (Value::List(vec![]), "80045d942e"),
            (Value::Tuple(vec![]), "8004292e"),
        ];
        for (value, expected) in cases {
            assert_eq!(hex(value.clone()), expected.replace(' ', ""), "{value}");
        }
        let long = write(&Value::String("x".repeat(300))).unwrap();
        assert_eq!(
            hex::encode(&long[..16]),
            "80049533010000000000005 82c010000".replace(' ', "")
        );
        let large = write(&Value::String("x".repeat(65_536))).unwrap();
        assert_eq!(hex::encode(&large[..7]), "80045800000100");
        assert_eq!(hex::encode(&large[large.len() - 2..]), "942e");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let nested = Value::Dict(BTreeMap::from([(
            serde_pickle::HashableValue::String("a".to_owned()),
            Value::List(vec![
                Value::Tuple(vec![Value::I64(-7), Value::None]),
                Value::Bytes(vec![0; 70_000]),
                Value::I64(i64::MIN),
                Value::I64(i64::MAX),
            ]),
        )]));
        assert_eq!(read(&write(&nested).unwrap()).unwrap(), nested);
    }

    #[test]
    fn a_pickle_that_wants_to_run_something_is_refused() {
        let harmful = b"cos\nsystem\n(S'true'\ntR.";
        assert!(read(harmful).is_err());
        assert!(read(b"").is_err());
        assert_eq!(super::as_text(&text("ä").unwrap()).unwrap(), "ä");
        assert!(super::as_text(b"\x80\x04K\x01.").is_none());
    }
}
