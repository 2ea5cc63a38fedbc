//! Typed looks into a JSON document that say where they failed. Airflow's `{"__type", "__var"}` wrapping is
//! taken off on the way.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use crate::Error;
use crate::expand_input::decoded;

/// An object at a known place, with what to fall back to for fields that it lacks.
pub(super) struct Fields<'a> {
    pub(super) dag_id: &'a str,
    /// Where the object stands: `tasks[3]`.
    pub(super) at: String,
    /// Looked through in this order.
    pub(super) layers: Vec<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    /// The value in the first layer that has the field; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        let found = self.layers.iter().find_map(|layer| layer.get(name))?;
        let (_, value) = decoded(found);
        (!value.is_null()).then_some(value)
    }

    pub(super) fn malformed(&self, name: &str, expected: &'static str) -> Error {
        let at = if self.at.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at)
        };
        Error::Malformed {
            dag_id: self.dag_id.to_owned(),
            at,
            expected,
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &'static str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => take(value)
                .map(Some)
                .ok_or_else(|| self.malformed(name, expected)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Error> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, Error> {
        self.text(name)?
            .ok_or_else(|| self.malformed(name, "a string"))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        Ok(self
            .typed(name, "true or false", Value::as_bool)?
            .unwrap_or(false))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Error> {
        self.typed(name, "a number", |value| match value {
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            other => other.as_f64(),
        })
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i32>, Error> {
        self.typed(name, "a whole number of 32 bits", |value| {
            if let Some(whole) = value.as_i64() {
                return i32::try_from(whole).ok();
            }
            let number = value.as_f64()?;
            let fits = number.fract() == 0.0
                && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
            #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
            fits.then_some(number as i32)
        })
    }

    pub(super) fn date(&self, name: &str) -> Result<Option<DateTime<Utc>>, Error> {
        self.typed(name, "seconds since 1970", |value| {
            from_epoch(value.as_f64()?)
        })
    }

    pub(super) fn delta(&self, name: &str) -> Result<Option<TimeDelta>, Error> {
        self.typed(name, "a number of seconds", |value| {
            micros(value.as_f64()?).map(TimeDelta::microseconds)
        })
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], Error> {
        Ok(self
            .typed(name, "a list", Value::as_array)?
            .map_or(&[], Vec::as_slice))
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Error> {
        self.typed(name, "an object", Value::as_object)
    }
}

fn micros(seconds: f64) -> Option<i64> {
    let micros = (seconds * 1e6).round();
    // 9.2e18 microseconds are 292,000 years; chrono ends before that.
    #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
    (micros.abs() < 8.2e18).then_some(micros as i64)
}

fn from_epoch(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros(seconds)?)
}
