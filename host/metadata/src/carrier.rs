//! W3C trace context as Airflow stores it: a dict wrapped by its ExtendedJSON column type.

use serde_json::{Value, json};
use uuid::Uuid;

/// A context with a new trace id, for a new run.
#[must_use]
pub fn new_trace() -> Value {
    let trace = Uuid::new_v4().simple().to_string();
    wrap(&trace)
}

/// A context for a task instance: the run's trace id, a new span id.
#[must_use]
pub fn child(run: &Value) -> Value {
    let trace = unwrap(run)
        .get("traceparent")
        .and_then(Value::as_str)
        .and_then(|parent| parent.split('-').nth(1))
        .map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned);
    wrap(&trace)
}

/// The plain dict inside a stored carrier.
#[must_use]
pub fn unwrap(stored: &Value) -> &Value {
    stored.get("__var").unwrap_or(stored)
}

fn wrap(trace: &str) -> Value {
    let span = &Uuid::new_v4().simple().to_string()[..16];
    json!({"__type": "dict", "__var": {"traceparent": format!("00-{trace}-{span}-00")}})
}
