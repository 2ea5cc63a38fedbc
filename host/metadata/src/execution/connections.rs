//! Connections. Password and extra are as stored: encrypted when the row says so.

use sqlx::PgConnection;

use crate::Error;

/// A connection as it is stored.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredConnection {
    pub conn_id: String,
    pub conn_type: String,
    pub host: Option<String>,
    pub schema: Option<String>,
    pub login: Option<String>,
    pub port: Option<i32>,
    pub password: Option<String>,
    pub extra: Option<String>,
    pub is_encrypted: bool,
    pub is_extra_encrypted: bool,
}

/// # Errors
/// The database's errors.
pub async fn find(db: &mut PgConnection, conn_id: &str) -> Result<Option<StoredConnection>, Error> {
    Ok(sqlx::query_as(
        "SELECT conn_id, conn_type, host, schema, login, port, password, extra, is_encrypted, is_extra_encrypted \
           FROM connection WHERE conn_id = $1",
    )
    .bind(conn_id)
    .fetch_optional(db)
    .await?)
}
