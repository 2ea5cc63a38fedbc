//! The one place where the host reads the time.

use chrono::{DateTime, SubsecRound, Utc};

/// Now, in microseconds: what Postgres can store.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
