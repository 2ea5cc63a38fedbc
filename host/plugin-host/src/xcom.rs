//! Where XCom values live: the trait, and what stands in Airflow's `xcom` table for a value.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{Error, Payload, Scope, XcomCoordinate};

/// The only key of the object that stands in the `xcom` table for a value kept elsewhere.
pub const XCOM_MARKER: &str = "__modalflow_xcom__";

/// A pointer to a value that only the plugin understands, with a line for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    pub uri: String,
    pub size: Option<u64>,
    /// Shown by the UI in place of the value.
    pub preview: Option<String>,
    /// What the plugin wants to be given back, such as a checksum.
    pub attributes: BTreeMap<String, String>,
}

/// What an `XcomBackend` made of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    InDatabase(Value),
    Elsewhere(Reference),
}

impl Stored {
    /// The JSON for the `value` column. A user's own object that looks like ours is wrapped, so that it comes back as it was.
    pub fn to_column(&self) -> Value {
        match self {
            Stored::InDatabase(value) if looks_like_ours(value) => {
                json!({ XCOM_MARKER: { "value": value } })
            }
            Stored::InDatabase(value) => value.clone(),
            Stored::Elsewhere(reference) => json!({ XCOM_MARKER: reference.to_json() }),
        }
    }

    /// What a `value` column says. Everything that is not exactly our form is the value itself.
    pub fn from_column(column: Value) -> Stored {
        let Some(inner) = marked(&column) else {
            return Stored::InDatabase(column);
        };
        if inner.len() == 1
            && let Some(value) = inner.get("value")
        {
            return Stored::InDatabase(value.clone());
        }
        match Reference::from_json(inner) {
            Some(reference) => Stored::Elsewhere(reference),
            None => Stored::InDatabase(column),
        }
    }
}

impl Reference {
    fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("uri".into(), json!(self.uri));
        if let Some(size) = self.size {
            object.insert("size".into(), json!(size));
        }
        for (name, value) in &self.attributes {
            if !RESERVED.contains(&name.as_str()) {
                object.insert(name.clone(), json!(value));
            }
        }
        if let Some(preview) = &self.preview {
            object.insert("preview".into(), json!(preview));
        }
        Value::Object(object)
    }

    fn from_json(object: &serde_json::Map<String, Value>) -> Option<Reference> {
        let mut reference = Reference {
            uri: object.get("uri")?.as_str()?.to_owned(),
            ..Reference::default()
        };
        for (name, value) in object {
            match name.as_str() {
                "uri" => {}
                "size" => reference.size = Some(value.as_u64()?),
                "preview" => reference.preview = Some(value.as_str()?.to_owned()),
                _ => {
                    let text = value.as_str()?.to_owned();
                    reference.attributes.insert(name.clone(), text);
                }
            }
        }
        Some(reference)
    }
}

/// Names that attributes may not take.
pub(crate) const RESERVED: [&str; 4] = ["uri", "size", "preview", "value"];

fn marked(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(XCOM_MARKER)?.as_object()
}

fn looks_like_ours(value: &Value) -> bool {
    marked(value).is_some()
}

#[async_trait]
pub trait XcomBackend: Send + Sync {
    /// Keeps one JSON value; the answer goes into the row.
    async fn put(&self, at: &XcomCoordinate, value: Payload) -> Result<Stored, Error>;

    /// The JSON value that a row stands for.
    async fn get(&self, at: &XcomCoordinate, stored: &Stored) -> Result<Payload, Error>;

    /// The rows in `scope` are going away, `known` are their references; the number of values removed.
    async fn purge(&self, scope: &Scope, known: &[Reference]) -> Result<u64, Error>;
}

#[cfg(test)]
mod tests {
    use super::{Reference, Stored, XCOM_MARKER};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn sample() -> Stored {
        Stored::Elsewhere(Reference {
            uri: "xcom:etl/run/extract/rows".into(),
            size: Some(70_000),
            preview: Some("[1, 2, 3…".into()),
            attributes: [("sha256".to_owned(), "ab".to_owned())].into(),
        })
    }

    #[test]
    fn a_reference_is_readable_in_the_column() {
        insta::assert_snapshot!(sample().to_column(), @r#"{"__modalflow_xcom__":{"preview":"[1, 2, 3…","sha256":"ab","size":70000,"uri":"xcom:etl/run/extract/rows"}}"#);
        assert_eq!(Stored::from_column(sample().to_column()), sample());
    }

    #[test]
    fn a_users_own_object_is_never_taken_for_a_reference() {
        let cases = [
            json!({ XCOM_MARKER: 1 }),
            json!({ XCOM_MARKER: {} }),
            json!({ XCOM_MARKER: { "value": 1 } }),
            json!({ XCOM_MARKER: { "uri": "xcom:other/task" } }),
            json!({ XCOM_MARKER: { XCOM_MARKER: { "uri": "x" } } }),
            sample().to_column(),
        ];
        for value in cases {
            let stored = Stored::InDatabase(value.clone());
            assert_eq!(Stored::from_column(stored.to_column()), stored, "{value}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            let key = prop_oneof![
                Just(XCOM_MARKER.to_owned()),
                Just("uri".to_owned()),
                Just("value".to_owned()),
                "[a-c]"
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..3)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in any_json()) {
            let stored = Stored::InDatabase(value);
            prop_assert_eq!(Stored::from_column(stored.to_column()), stored);
        }
    }
}
