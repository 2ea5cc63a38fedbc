//! What is wrong with a request, collected so that all of it is said at once, in pydantic's form.

use serde::Serialize;
use serde_json::{Value, json};

use crate::problem::Problem;

/// Complaints about one request.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    list: Vec<Value>,
}

impl Complaints {
    pub(crate) fn missing(&mut self, loc: Value, input: impl Serialize) {
        self.add("missing", loc, "Field required", input);
    }

    pub(crate) fn add(&mut self, kind: &str, loc: Value, message: &str, input: impl Serialize) {
        self.list.push(json!({
            "type": kind,
            "loc": loc,
            "msg": message,
            "input": serde_json::to_value(input).unwrap_or_default(),
        }));
    }

    pub(crate) fn add_with(&mut self, complaint: Value) {
        self.list.push(complaint);
    }

    /// # Errors
    /// 422 when there is a complaint.
    pub(crate) fn check(self) -> Result<(), Problem> {
        if self.list.is_empty() {
            Ok(())
        } else {
            Err(self.into_problem())
        }
    }

    pub(crate) fn into_problem(self) -> Problem {
        Problem::invalid(self.list)
    }
}
