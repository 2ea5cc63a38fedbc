//! What is known of each DAG file (`modalflow.dag_file`), and Airflow's rows about files that do not import.
//! The rows about DAGs themselves are written by Airflow's own sync code, never here.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::Error;

/// A row of `modalflow.dag_file`: the content that was parsed last, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DagFile {
    /// Relative to the DAG folder.
    pub path: String,
    pub size: i64,
    pub mtime_ns: i64,
    pub sha256: String,
    /// Airflow's version, the Python environment and the rules that the outcome was found with.
    pub parser_hash: String,
    pub parsed_at: DateTime<Utc>,
    /// JSON of the room `dags`, which alone reads it.
    pub outcome: String,
}

/// A row of Airflow's `import_error`.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ImportError {
    pub filename: String,
    pub stacktrace: String,
    pub timestamp: DateTime<Utc>,
}

/// A Dag that another bundle owns.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ForeignDag {
    pub dag_id: String,
    pub bundle_name: String,
}

/// Every known file, by path.
///
/// # Errors
/// The database's.
pub async fn all(db: &mut PgConnection) -> Result<Vec<DagFile>, Error> {
    Ok(sqlx::query_as(
        "SELECT path, size, mtime_ns, sha256, parser_hash, parsed_at, outcome
         FROM modalflow.dag_file
         ORDER BY path",
    )
    .fetch_all(db)
    .await?)
}

/// Inserts or replaces the rows of these files. Answers how many rows were written.
///
/// # Errors
/// The database's.
pub async fn put(db: &mut PgConnection, files: &[DagFile]) -> Result<u64, Error> {
    if files.is_empty() {
        return Ok(0);
    }
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let sizes: Vec<i64> = files.iter().map(|file| file.size).collect();
    let mtimes: Vec<i64> = files.iter().map(|file| file.mtime_ns).collect();
    let hashes: Vec<&str> = files.iter().map(|file| file.sha256.as_str()).collect();
    let parsers: Vec<&str> = files.iter().map(|file| file.parser_hash.as_str()).collect();
    let parsed: Vec<DateTime<Utc>> = files.iter().map(|file| file.parsed_at).collect();
    let outcomes: Vec<&str> = files.iter().map(|file| file.outcome.as_str()).collect();
    let written = sqlx::query(
        "INSERT INTO modalflow.dag_file (path, size, mtime_ns, sha256, parser_hash, parsed_at, outcome)
         SELECT *
         FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::text[])
         ON CONFLICT (path) DO UPDATE
         SET size = EXCLUDED.size,
             mtime_ns = EXCLUDED.mtime_ns,
             sha256 = EXCLUDED.sha256,
             parser_hash = EXCLUDED.parser_hash,
             parsed_at = EXCLUDED.parsed_at,
             outcome = EXCLUDED.outcome",
    )
    .bind(&paths)
    .bind(&sizes)
    .bind(&mtimes)
    .bind(&hashes)
    .bind(&parsers)
    .bind(&parsed)
    .bind(&outcomes)
    .execute(db)
    .await?;
    Ok(written.rows_affected())
}

/// Forgets these files. Answers how many were known.
///
/// # Errors
/// The database's.
pub async fn remove(db: &mut PgConnection, paths: &[String]) -> Result<u64, Error> {
    let removed = sqlx::query("DELETE FROM modalflow.dag_file WHERE path = ANY($1)")
        .bind(paths)
        .execute(db)
        .await?;
    Ok(removed.rows_affected())
}

/// The files of a bundle that do not import, by name.
///
/// # Errors
/// The database's.
pub async fn import_errors(
    db: &mut PgConnection,
    bundle_name: &str,
) -> Result<Vec<ImportError>, Error> {
    Ok(sqlx::query_as(
        "SELECT filename, stacktrace, timestamp
         FROM import_error
         WHERE bundle_name = $1
           AND filename IS NOT NULL
           AND stacktrace IS NOT NULL
         ORDER BY filename, id",
    )
    .bind(bundle_name)
    .fetch_all(db)
    .await?)
}

/// Those of `dag_ids` that are alive in another bundle than `bundle_name`.
///
/// # Errors
/// The database's.
pub async fn dags_of_other_bundles(
    db: &mut PgConnection,
    bundle_name: &str,
    dag_ids: &[String],
) -> Result<Vec<ForeignDag>, Error> {
    Ok(sqlx::query_as(
        "SELECT dag_id, bundle_name
         FROM dag
         WHERE dag_id = ANY($1)
           AND bundle_name <> $2
           AND NOT is_stale
         ORDER BY dag_id",
    )
    .bind(dag_ids)
    .bind(bundle_name)
    .fetch_all(db)
    .await?)
}
