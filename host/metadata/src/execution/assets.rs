//! Assets, as tasks see them.

use sqlx::PgConnection;

use crate::Error;

/// An asset. `extra` is JSON as text.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AssetRow {
    pub id: i32,
    pub name: String,
    pub uri: String,
    pub group: String,
    pub extra: String,
}

/// The active asset of this name, or of this URI.
///
/// # Errors
/// The database's errors.
pub async fn active(
    db: &mut PgConnection,
    name: Option<&str>,
    uri: Option<&str>,
) -> Result<Option<AssetRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT a.id, a.name, a.uri, a.\"group\", a.extra::text AS extra \
           FROM asset a JOIN asset_active active ON active.name = a.name AND active.uri = a.uri \
          WHERE ($1::text IS NULL OR a.name = $1) AND ($2::text IS NULL OR a.uri = $2) \
          LIMIT 1",
    )
    .bind(name)
    .bind(uri)
    .fetch_optional(db)
    .await?)
}

/// The assets that an alias stood for so far.
///
/// # Errors
/// The database's errors.
pub async fn of_alias(db: &mut PgConnection, alias: &str) -> Result<Vec<AssetRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT a.id, a.name, a.uri, a.\"group\", a.extra::text AS extra \
           FROM asset_alias l \
           JOIN asset_alias_asset la ON la.alias_id = l.id \
           JOIN asset a ON a.id = la.asset_id \
          WHERE l.name = $1 \
          ORDER BY a.id",
    )
    .bind(alias)
    .fetch_all(db)
    .await?)
}
