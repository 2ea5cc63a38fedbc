//! A JSON object in a request body, read field by field.
//!
//! A getter that finds its field missing or wrong notes a complaint and answers a default; nothing may be done with
//! the values before [`Fields::finish`] found no complaint. Values stay the text that was sent, so that what is only
//! passed on loses no digit.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Complaints;
use crate::dates::{self, BadDate};
use crate::problem::Problem;

/// The fields of one object.
pub(crate) struct Fields {
    /// Where the object stands, as pydantic says it: `["body"]`, `["body", "success"]`.
    at: Vec<Value>,
    all: BTreeMap<String, Box<RawValue>>,
    asked_for: Vec<&'static str>,
    complaints: Complaints,
}

impl Fields {
    /// # Errors
    /// 422 for an empty body, what is not JSON, or not an object.
    pub(crate) fn of_body(body: &Bytes) -> Result<Self, Problem> {
        let raw = raw_body(body)?;
        let all = serde_json::from_str(raw.get()).map_err(|_| {
            let mut complaints = Complaints::default();
            complaints.add(
                "model_attributes_type",
                json!(["body"]),
                "Input should be a valid dictionary or object to extract fields from",
                &raw,
            );
            complaints.into_problem()
        })?;
        Ok(Self {
            at: vec![json!("body")],
            all,
            asked_for: Vec::new(),
            complaints: Complaints::default(),
        })
    }

    /// Says in complaints that the object was taken as one of several forms.
    pub(crate) fn taken_as(mut self, form: &str) -> Self {
        self.at.push(json!(form));
        self
    }

    /// A field as it is, without asking for it: to choose a form by.
    pub(crate) fn peek(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.all.get(name)?.get()).ok()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    pub(crate) fn string(&mut self, name: &'static str) -> String {
        let raw = self.required(name);
        raw.and_then(|raw| self.read_string(name, &raw))
            .unwrap_or_default()
    }

    pub(crate) fn optional_string(&mut self, name: &'static str) -> Option<String> {
        let raw = self.given(name)?;
        self.read_string(name, &raw)
    }

    /// `Some(None)` when the field is null, `None` when it is left out.
    pub(crate) fn nullable_string(&mut self, name: &'static str) -> Option<Option<String>> {
        self.asked_for.push(name);
        let raw = self.all.get(name)?.clone();
        Some(if raw.get() == "null" {
            None
        } else {
            self.read_string(name, &raw)
        })
    }

    pub(crate) fn integer(&mut self, name: &'static str) -> i32 {
        let Some(raw) = self.required(name) else {
            return 0;
        };
        let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let read = match &value {
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        match (read.map(i32::try_from), value) {
            (Some(Ok(read)), _) => read,
            (Some(Err(_)), _) => self.complain(
                "less_than_equal",
                name,
                "Input should be less than or equal to 2147483647",
                &raw,
            ),
            (None, Value::String(_)) => self.complain(
                "int_parsing",
                name,
                "Input should be a valid integer, unable to parse string as an integer",
                &raw,
            ),
            (None, _) => self.complain("int_type", name, "Input should be a valid integer", &raw),
        }
    }

    pub(crate) fn optional_float(&mut self, name: &'static str) -> Option<f64> {
        let raw = self.given(name)?;
        match serde_json::from_str::<f64>(raw.get()) {
            Ok(read) => Some(read),
            Err(_) => self.complain("float_type", name, "Input should be a valid number", &raw),
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let Some(raw) = self.given(name) else {
            return default;
        };
        match serde_json::from_str(raw.get()) {
            Ok(read) => read,
            Err(_) => self.complain("bool_type", name, "Input should be a valid boolean", &raw),
        }
    }

    pub(crate) fn date(&mut self, name: &'static str) -> DateTime<Utc> {
        let raw = self.required(name);
        raw.and_then(|raw| self.read_date(name, &raw))
            .unwrap_or_default()
    }

    pub(crate) fn optional_date(&mut self, name: &'static str) -> Option<DateTime<Utc>> {
        let raw = self.given(name)?;
        self.read_date(name, &raw)
    }

    pub(crate) fn optional_duration(&mut self, name: &'static str) -> Option<TimeDelta> {
        let raw = self.given(name)?;
        let value = serde_json::from_str(raw.get()).unwrap_or_default();
        let read = dates::parse_duration(&value);
        if read.is_none() {
            self.complain::<()>(
                "time_delta_parsing",
                name,
                "Input should be a valid timedelta",
                &raw,
            );
        }
        read
    }

    /// The JSON text of an object; `{}` when left out.
    pub(crate) fn object(&mut self, name: &'static str) -> String {
        self.asked_for.push(name);
        match self.all.get(name).cloned() {
            None => "{}".to_owned(),
            Some(raw) if raw.get().starts_with('{') => raw.get().to_owned(),
            Some(raw) => self.complain(
                "dict_type",
                name,
                "Input should be a valid dictionary",
                &raw,
            ),
        }
    }

    /// The JSON text of any value but an absent one.
    pub(crate) fn any(&mut self, name: &'static str) -> String {
        self.required(name)
            .map(|raw| raw.get().to_owned())
            .unwrap_or_default()
    }

    /// A list of values of one kind; empty when left out.
    pub(crate) fn list<T: serde::de::DeserializeOwned>(&mut self, name: &'static str) -> Vec<T> {
        let Some(raw) = self.given(name) else {
            return Vec::new();
        };
        self.read_list(name, &raw)
    }

    /// `None` when left out or null.
    pub(crate) fn optional_list<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Option<Vec<T>> {
        let raw = self.given(name)?;
        Some(self.read_list(name, &raw))
    }

    /// A field that must be there and may be null.
    pub(crate) fn required_nullable_string(&mut self, name: &'static str) -> Option<String> {
        let raw = self.required(name).filter(|raw| raw.get() != "null")?;
        self.read_string(name, &raw)
    }

    /// Complains that a list is empty; not of one that is missing, which has its complaint already.
    pub(crate) fn too_short(&mut self, name: &'static str) {
        let Some(raw) = self
            .all
            .get(name)
            .filter(|raw| raw.get().starts_with('['))
            .cloned()
        else {
            return;
        };
        let loc = self.loc(name);
        self.complaints.add_with(json!({
            "type": "too_short",
            "loc": loc,
            "msg": "List should have at least 1 item after validation, not 0",
            "input": raw,
            "ctx": {"field_type": "List", "min_length": 1, "actual_length": 0},
        }));
    }

    pub(crate) fn required_list<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Vec<T> {
        let raw = self.required(name);
        raw.map(|raw| self.read_list(name, &raw))
            .unwrap_or_default()
    }

    pub(crate) fn complain<T: Default>(
        &mut self,
        kind: &str,
        name: &str,
        message: &str,
        input: &RawValue,
    ) -> T {
        let loc = self.loc(name);
        self.complaints.add(kind, loc, message, input);
        T::default()
    }

    pub(crate) fn complain_with(&mut self, complaint: Value) {
        self.complaints.add_with(complaint);
    }

    /// Ends the reading; unknown fields are refused.
    ///
    /// # Errors
    /// 422 when there is a complaint.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<(String, Box<RawValue>)> = self
            .all
            .iter()
            .filter(|(name, _)| !self.asked_for.contains(&name.as_str()))
            .map(|(name, raw)| (name.clone(), raw.clone()))
            .collect();
        for (name, raw) in unknown {
            self.complain::<()>(
                "extra_forbidden",
                &name,
                "Extra inputs are not permitted",
                &raw,
            );
        }
        self.complaints.check()
    }

    /// Ends the reading; unknown fields are passed over.
    ///
    /// # Errors
    /// 422 when there is a complaint.
    pub(crate) fn finish_open(self) -> Result<(), Problem> {
        self.complaints.check()
    }

    fn required(&mut self, name: &'static str) -> Option<Box<RawValue>> {
        self.asked_for.push(name);
        let found = self.all.get(name).cloned();
        if found.is_none() {
            let loc = self.loc(name);
            self.complaints.missing(loc, &self.all);
        }
        found
    }

    /// A field that may be left out or null.
    fn given(&mut self, name: &'static str) -> Option<Box<RawValue>> {
        self.asked_for.push(name);
        self.all
            .get(name)
            .filter(|raw| raw.get() != "null")
            .cloned()
    }

    fn read_string(&mut self, name: &str, raw: &RawValue) -> Option<String> {
        match serde_json::from_str(raw.get()) {
            Ok(read) => Some(read),
            Err(_) => self.complain("string_type", name, "Input should be a valid string", raw),
        }
    }

    fn read_date(&mut self, name: &str, raw: &RawValue) -> Option<DateTime<Utc>> {
        let text: Result<String, _> = serde_json::from_str(raw.get());
        match text.map(|text| dates::parse(&text)) {
            Ok(Ok(date)) => Some(date),
            Ok(Err(BadDate::NoTimeZone)) => self.complain(
                "timezone_aware",
                name,
                "Input should have timezone info",
                raw,
            ),
            Ok(Err(BadDate::NoDate)) | Err(_) => self.complain(
                "datetime_type",
                name,
                "Input should be a valid datetime",
                raw,
            ),
        }
    }

    fn read_list<T: serde::de::DeserializeOwned>(&mut self, name: &str, raw: &RawValue) -> Vec<T> {
        if !raw.get().starts_with('[') {
            return self.complain("list_type", name, "Input should be a valid list", raw);
        }
        match serde_json::from_str(raw.get()) {
            Ok(read) => read,
            Err(error) => self.complain("list_item", name, &error.to_string(), raw),
        }
    }

    fn loc(&self, name: &str) -> Value {
        let mut loc = self.at.clone();
        loc.push(json!(name));
        Value::Array(loc)
    }
}

/// A body as JSON text, checked to be JSON.
///
/// # Errors
/// 422 when it is empty or not JSON.
pub(crate) fn raw_body(body: &Bytes) -> Result<Box<RawValue>, Problem> {
    let mut complaints = Complaints::default();
    if body.is_empty() {
        complaints.missing(json!(["body"]), Value::Null);
    } else {
        match serde_json::from_slice(body) {
            Ok(raw) => return Ok(raw),
            Err(error) => complaints.add_with(json!({
                "type": "json_invalid",
                "loc": ["body", error.column()],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": error.to_string()},
            })),
        }
    }
    Err(complaints.into_problem())
}

fn whole(float: f64) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a whole number within range"
    )]
    (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
}
