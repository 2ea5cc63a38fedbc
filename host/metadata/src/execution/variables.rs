//! Variables. Values are as stored: encrypted when the row says so.

use sqlx::PgConnection;

use crate::Error;

/// A value as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredVariable {
    pub val: String,
    pub is_encrypted: bool,
}

/// # Errors
/// The database's errors.
pub async fn find(db: &mut PgConnection, key: &str) -> Result<Option<StoredVariable>, Error> {
    Ok(
        sqlx::query_as("SELECT val, is_encrypted FROM variable WHERE key = $1")
            .bind(key)
            .fetch_optional(db)
            .await?,
    )
}

/// Sets a variable, whether it was there or not. `airflow: Variable.set`
///
/// # Errors
/// The database's errors.
pub async fn set(
    db: &mut PgConnection,
    key: &str,
    value: &StoredVariable,
    description: Option<&str>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO variable (key, val, description, is_encrypted) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (key) DO UPDATE \
            SET val = EXCLUDED.val, description = EXCLUDED.description, is_encrypted = EXCLUDED.is_encrypted",
    )
    .bind(key)
    .bind(&value.val)
    .bind(description)
    .bind(value.is_encrypted)
    .execute(db)
    .await?;
    Ok(())
}

/// # Errors
/// The database's errors.
pub async fn remove(db: &mut PgConnection, key: &str) -> Result<u64, Error> {
    let removed = sqlx::query("DELETE FROM variable WHERE key = $1")
        .bind(key)
        .execute(db)
        .await?;
    Ok(removed.rows_affected())
}

/// A page of the keys that start with `prefix`, and how many there are.
///
/// # Errors
/// The database's errors.
pub async fn keys(
    db: &mut PgConnection,
    prefix: &str,
    limit: i64,
    offset: i64,
) -> Result<(Vec<String>, i64), Error> {
    // starts_with has no wildcards: nothing in the prefix needs escaping.
    Ok(sqlx::query_as(
        "SELECT ARRAY(SELECT key FROM variable WHERE starts_with(key, $1) \
                       ORDER BY key LIMIT $2 OFFSET $3)::text[], \
                (SELECT count(*) FROM variable WHERE starts_with(key, $1))",
    )
    .bind(prefix)
    .bind(limit)
    .bind(offset)
    .fetch_one(db)
    .await?)
}
