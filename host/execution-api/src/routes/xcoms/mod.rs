//! `xcoms/{dag_id}/{run_id}/{task_id}/{key…}`: values between tasks.
//!
//! A row stands for a value; what it stands for is the XCom plugin's business. Airflow's own worker hands over and
//! gets values, so the plugin runs here. Ours runs it itself and says so in a header: then bodies are the
//! `value` column as it is, and answers have it with the run and map index of its row. Values pass through files, never whole through memory.

mod checked;
mod json_text;
pub(crate) mod read;
mod slice;
mod stream;
pub(crate) mod write;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use metadata::execution::xcoms::Address;
use plugin_host::{TaskKey, XcomCoordinate};

use crate::STORED_XCOM_HEADER;
use crate::problem::Problem;

/// The XCom in the path.
pub(crate) struct Target {
    dag_id: String,
    run_id: String,
    task_id: String,
    key: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((dag_id, run_id, task_id, key)) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found_path())?;
        Ok(Self {
            dag_id,
            run_id,
            task_id,
            key,
        })
    }
}

impl Target {
    fn at(&self, map_index: i32) -> Address<'_> {
        Address {
            dag_id: &self.dag_id,
            run_id: &self.run_id,
            task_id: &self.task_id,
            map_index,
            key: &self.key,
        }
    }

    /// The same place in the plugins' words. The run may be an earlier one.
    fn coordinate(&self, run_id: &str, map_index: i32, try_number: u32) -> XcomCoordinate {
        XcomCoordinate {
            task: TaskKey {
                dag_id: self.dag_id.clone(),
                run_id: run_id.to_owned(),
                task_id: self.task_id.clone(),
                map_index,
                try_number,
            },
            key: self.key.clone(),
        }
    }

    /// `for task 't' in DAG run 'r' of 'd'`, as in Airflow's messages.
    fn place(&self) -> String {
        format!(
            "not found for task '{}' in DAG run '{}' of '{}'",
            self.task_id, self.run_id, self.dag_id
        )
    }
}

/// What stands in bodies and answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The value.
    Value,
    /// In bodies the `value` column, in answers `{"run_id", "map_index", "value"}` with it.
    Stored,
}

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let (name, stored) = STORED_XCOM_HEADER;
        match parts.headers.get(name) {
            None => Ok(Self::Value),
            Some(value) if value == stored => Ok(Self::Stored),
            Some(_) => Err(Problem::because(
                http::StatusCode::BAD_REQUEST,
                "invalid_header",
                format!("the header {name} can only be {stored}"),
            )),
        }
    }
}
