//! YAML as a tree that knows its lines. It knows no key of ours.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::{Error, Result};

/// A value and the line it begins on.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What YAML can say, as far as a config file needs it.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Truth(bool),
    Whole(i128),
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

/// Parses one document; an empty one is an empty mapping.
pub(super) fn parse(text: &str, file: &str) -> Result<Node> {
    let broken = |error: serde_saphyr::Error| Error::Config {
        place: match error.location() {
            Some(location) => format!("{file}, line {}", location.line()),
            None => file.to_owned(),
        },
        problem: error
            .without_snippet()
            .to_string()
            .lines()
            .next()
            .unwrap_or("not YAML")
            // The rest is advice to programmers.
            .split(", set DuplicateKeyPolicy")
            .next()
            .unwrap_or("not YAML")
            .to_owned(),
        hint: "the file is YAML: sections, and below each its keys indented by two spaces"
            .to_owned(),
    };
    let root: Option<Node> = serde_saphyr::from_str(text).map_err(broken)?;
    Ok(root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

impl Node {
    /// The entries of a mapping; nothing at all is an empty one.
    pub(super) fn mapping(
        &self,
        name: &str,
        file: &str,
    ) -> Result<impl Iterator<Item = (&str, &Node)>> {
        let entries: &[(String, Node)] = match &self.value {
            Value::Mapping(entries) => entries,
            Value::Null => &[],
            other => {
                return Err(Error::Config {
                    place: format!("{file}, line {}", self.line),
                    problem: format!(
                        "expected keys{}, found {other}",
                        if name.is_empty() {
                            String::new()
                        } else {
                            format!(" below {name}:")
                        }
                    ),
                    hint: "write `section:`, and below it its keys indented by two spaces"
                        .to_owned(),
                });
            }
        };
        Ok(entries.iter().map(|(key, node)| (key.as_str(), node)))
    }
}

impl Value {
    /// What it is, without what it says.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Truth(_) => "a truth value",
            Value::Whole(_) | Value::Fraction(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Mapping(_) => "keys",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Truth(truth) => write!(f, "{truth}"),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Fraction(number) => write!(f, "{number}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Null | Value::List(_) | Value::Mapping(_) => f.write_str(self.kind()),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Node, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node {
            line: spanned.referenced.line(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> std::result::Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_bool<E>(self, truth: bool) -> std::result::Result<Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> std::result::Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(Value::Fraction(number))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<String, Node>()? {
            entries.push(entry);
        }
        Ok(Value::Mapping(entries))
    }
}
