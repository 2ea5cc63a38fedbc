//! Our own schema `modalflow`, beside Airflow's: intents of the executor, the files of DAGs, wake-up times,
//! and the triggers that turn anybody's write into a wish for a tick.

use sqlx::{PgConnection, PgPool};

use crate::Error;

/// The channel on which [`ensure`]'s triggers notify.
pub const WAKE_CHANNEL: &str = "modalflow_wake";

/// The head of Airflow 3.3.2's migrations.
pub const AIRFLOW_REVISION: &str = "d2f4e1b3c5a7";

/// Of `schema.sql`; goes up with each change of it.
const VERSION: i32 = 9;

/// Makes the schema `modalflow` or brings it up to date; may be run at any time and by several at once. Where it is up
/// to date nothing is locked: its triggers stand on tables that tasks write to all the time.
///
/// # Errors
/// [`Error::SchemaRevision`] when Airflow's tables are of another version; otherwise the database's errors.
pub async fn ensure(pool: &PgPool) -> Result<(), Error> {
    check_airflow_revision(pool).await?;
    if version(&mut *pool.acquire().await?).await? >= VERSION {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    // Two hosts starting at once would race in CREATE IF NOT EXISTS.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('modalflow.schema'))")
        .execute(&mut *tx)
        .await?;
    if version(&mut tx).await? < VERSION {
        sqlx::raw_sql(include_str!("schema.sql"))
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM modalflow.version")
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO modalflow.version (version) VALUES ($1)")
            .bind(VERSION)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// 0 where there is no schema yet.
async fn version(db: &mut PgConnection) -> Result<i32, Error> {
    let table: Option<String> = sqlx::query_scalar("SELECT to_regclass('modalflow.version')::text")
        .fetch_one(&mut *db)
        .await?;
    if table.is_none() {
        return Ok(0);
    }
    let version: Option<i32> = sqlx::query_scalar("SELECT max(version) FROM modalflow.version")
        .fetch_one(db)
        .await?;
    Ok(version.unwrap_or(0))
}

/// # Errors
/// [`Error::SchemaRevision`] when `alembic_version` is not [`AIRFLOW_REVISION`].
pub async fn check_airflow_revision(pool: &PgPool) -> Result<(), Error> {
    let table: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('public.alembic_version')::text")
            .fetch_one(pool)
            .await?;
    let found: Option<String> = match table {
        Some(_) => {
            sqlx::query_scalar("SELECT version_num FROM alembic_version LIMIT 1")
                .fetch_optional(pool)
                .await?
        }
        None => None,
    };
    match found {
        Some(found) if found == AIRFLOW_REVISION => Ok(()),
        found => Err(Error::SchemaRevision {
            found: found.unwrap_or_else(|| "(none)".to_owned()),
            expected: AIRFLOW_REVISION,
        }),
    }
}
