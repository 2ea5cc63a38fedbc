//! The query of a request, read name by name, with complaints collected as in a body.

use std::ops::RangeInclusive;

use axum::extract::{FromRequestParts, Query};
use chrono::{DateTime, Utc};
use http::request::Parts;
use serde_json::{Value, json};

use super::Complaints;
use crate::dates::{self, BadDate};
use crate::problem::Problem;

/// The query's pairs, in their order.
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    complaints: Complaints,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(http::StatusCode::BAD_REQUEST, "the query can't be read"))?;
        Ok(Self {
            pairs,
            complaints: Complaints::default(),
        })
    }
}

impl Params {
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        // The last one counts, as in Starlette.
        self.pairs
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    pub(crate) fn required(&mut self, name: &str) -> String {
        match self.optional(name) {
            Some(value) => value.to_owned(),
            None => {
                self.complaints.missing(json!(["query", name]), Value::Null);
                String::new()
            }
        }
    }

    /// As [`Self::required`], at least one character.
    pub(crate) fn required_name(&mut self, name: &str) -> String {
        let value = self.required(name);
        if value.is_empty() && self.optional(name).is_some() {
            self.complaints.add_with(json!({
                "type": "string_too_short",
                "loc": ["query", name],
                "msg": "String should have at least 1 character",
                "input": value,
                "ctx": {"min_length": 1},
            }));
        }
        value
    }

    pub(crate) fn integer<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let value = self.optional(name)?.to_owned();
        let read = value.trim().parse().ok();
        if read.is_none() {
            self.complaints.add(
                "int_parsing",
                json!(["query", name]),
                "Input should be a valid integer, unable to parse string as an integer",
                value,
            );
        }
        read
    }

    /// A number within bounds, which are named in the complaint.
    pub(crate) fn bounded(&mut self, name: &str, default: i64, bounds: RangeInclusive<i64>) -> i64 {
        let value = self.integer(name).unwrap_or(default);
        let (low, high) = (*bounds.start(), *bounds.end());
        let complaint = if value < low {
            Some(("greater_than_equal", "greater", "ge", low))
        } else if value > high {
            Some(("less_than_equal", "less", "le", high))
        } else {
            None
        };
        if let Some((kind, word, symbol, bound)) = complaint {
            self.complaints.add_with(json!({
                "type": kind,
                "loc": ["query", name],
                "msg": format!("Input should be {word} than or equal to {bound}"),
                "input": self.optional(name),
                "ctx": {symbol: bound},
            }));
        }
        value
    }

    pub(crate) fn required_date(&mut self, name: &str) -> DateTime<Utc> {
        let value = self.required(name);
        if self.optional(name).is_none() {
            return DateTime::default();
        }
        self.read_date(json!(["query", name]), &value)
            .unwrap_or_default()
    }

    pub(crate) fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.optional(name).map(str::to_owned) else {
            return default;
        };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => true,
            "0" | "false" | "f" | "no" | "n" | "off" => false,
            _ => {
                self.complaints.add(
                    "bool_parsing",
                    json!(["query", name]),
                    "Input should be a valid boolean, unable to interpret input",
                    value,
                );
                default
            }
        }
    }

    pub(crate) fn date(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let value = self.optional(name)?.to_owned();
        self.read_date(json!(["query", name]), &value)
    }

    pub(crate) fn dates(&mut self, name: &str) -> Vec<DateTime<Utc>> {
        let values = self.all(name);
        values
            .iter()
            .enumerate()
            .filter_map(|(at, value)| self.read_date(json!(["query", name, at]), value))
            .collect()
    }

    /// One of Airflow's names for a state.
    pub(crate) fn named<T: std::str::FromStr<Err = model::UnknownName>>(
        &mut self,
        name: &str,
    ) -> Option<T> {
        let value = self.optional(name)?.to_owned();
        match value.parse() {
            Ok(read) => Some(read),
            Err(error) => {
                self.complaints
                    .add("enum", json!(["query", name]), &error.to_string(), value);
                None
            }
        }
    }

    /// # Errors
    /// 422 when there is a complaint.
    pub(crate) fn check(&mut self) -> Result<(), Problem> {
        std::mem::take(&mut self.complaints).check()
    }

    fn read_date(&mut self, loc: Value, value: &str) -> Option<DateTime<Utc>> {
        match dates::parse(value) {
            Ok(date) => Some(date),
            Err(BadDate::NoTimeZone) => {
                self.complaints.add(
                    "timezone_aware",
                    loc,
                    "Input should have timezone info",
                    value,
                );
                None
            }
            Err(BadDate::NoDate) => {
                self.complaints.add(
                    "datetime_from_date_parsing",
                    loc,
                    "Input should be a valid datetime",
                    value,
                );
                None
            }
        }
    }
}
