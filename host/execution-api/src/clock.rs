//! The one place of this crate that reads the clock.

use std::time::SystemTime;

use chrono::{DateTime, SubsecRound, Utc};

/// Now, in microseconds, as Postgres and Python keep time.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::<Utc>::from(SystemTime::now()).trunc_subsecs(6)
}
