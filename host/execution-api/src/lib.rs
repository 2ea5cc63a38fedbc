//! The Execution API: what workers speak while a task runs. An axum router, to be mounted at `/execution/`.
//!
//! A file a route. A route checks the request, calls one or two functions of `metadata::execution` and answers; it
//! contains no SQL, plans nothing, and writes no state without the guard that `metadata` puts around it. When a task
//! ended, or something else is to be scheduled, it asks for a tick after its transaction is committed.
//!
//! The contract is that of Airflow 3.3.2 (versions 2026-06-30 and 2026-04-06); where this server differs on purpose is
//! listed in `docs/reference/execution-api.md`. The server that mounts the router should set `TCP_NODELAY`: answers are
//! small, and Nagle's algorithm would hold each one back for 40 ms.

mod clock;
mod dates;
mod dates_of;
mod gate;
mod limits;
mod problem;
mod redact;
mod request;
mod routes;
mod secrets;
mod tokens;
mod version;

use std::path::PathBuf;
use std::sync::Arc;

use metadata::serialized::SerializedDags;
use plugin_host::XcomBackend;
use sqlx::PgPool;

pub use dates_of::{Interval, ManualDates, NoTimetables};
pub use limits::{Limits, XcomWrites};
pub use routes::router;
pub use secrets::{Secrets, UnusableKey};
pub use tokens::{Claims, Lifetimes, Refused, Scope, Tokens};

/// Set by workers that have used the XCom plugin themselves: bodies and answers of the XCom routes are the `value`
/// column as it is, not the value that it stands for.
pub const STORED_XCOM_HEADER: (&str, &str) = ("modalflow-xcom", "stored");

/// What the routes need of the house.
#[derive(Clone)]
pub struct ApiState {
    pub pool: PgPool,
    pub tokens: Tokens,
    pub xcoms: Arc<dyn XcomBackend>,
    /// Asks for a tick; called after the transaction that calls for one.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    pub secrets: Secrets,
    pub limits: Limits,
    /// Where large request bodies wait, as unnamed files.
    pub spool_dir: PathBuf,
    pub dags: Arc<SerializedDags>,
    /// Asks timetables of users' own classes.
    pub timetables: Arc<dyn ManualDates>,
}
