//! One tick at a time. The lease is a transaction-level advisory lock: it goes away with the transaction, and
//! nothing relies on it for safety, since every write is guarded by the state it was decided on.

use sqlx::{PgPool, Postgres, Transaction};

use crate::Error;

/// The key of the tick's advisory lock; Airflow uses 1 and 2 (`airflow: DBLocks`).
const TICK: i64 = 0x006d_6f64_616c_666c;

/// Opens the tick's transaction, or answers `None` when another tick holds the lease.
///
/// # Errors
/// The database's errors.
pub async fn acquire(pool: &PgPool) -> Result<Option<Transaction<'static, Postgres>>, Error> {
    let mut tx = pool.begin().await?;
    let acquired: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(TICK)
        .fetch_one(&mut *tx)
        .await?;
    Ok(acquired.then_some(tx))
}
