//! Opening the pool with the limits that keep one stuck session from holding up the others.

use std::str::FromStr;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::Error;

/// The `application_name` of our sessions. The wake triggers stay silent for it: what we write ourselves
/// asks for a tick by itself.
pub const APPLICATION_NAME: &str = "modalflow";

/// Connects to `url` (libpq form) and checks that the server answers.
///
/// Every session has `lock_timeout` 5 s, `statement_timeout` 30 s and
/// `idle_in_transaction_session_timeout` 60 s: a frozen process then holds a lease or a row for a minute at most.
///
/// # Errors
/// [`Error::Unreachable`] when the URL can't be read or the server does not answer within 10 s.
pub async fn connect(url: &str, max_connections: u32) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(Error::Unreachable)?
        .application_name(APPLICATION_NAME)
        .statement_cache_capacity(256)
        .options([
            ("lock_timeout", "5s"),
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("tcp_user_timeout", "5s"),
            ("TimeZone", "UTC"),
        ]);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(10))
        // A ping before each use costs a round trip; a dead session is noticed by the statement instead.
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(Error::Unreachable)
}
