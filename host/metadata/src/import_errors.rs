//! Import errors that the host finds after a file was parsed: where Airflow's users look for what is wrong with a DAG.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::Error;

/// Tells that a DAG can't be used as it is stored, once: an import error of its file, which keeps the DAG from getting
/// runs until the file is parsed again.
///
/// # Errors
/// The database's errors.
pub async fn tell(
    db: &mut PgConnection,
    dag_id: &str,
    text: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO import_error (timestamp, filename, bundle_name, stacktrace) \
         SELECT $2, d.relative_fileloc, d.bundle_name, $3 FROM dag d \
          WHERE d.dag_id = $1 \
            AND NOT EXISTS (SELECT 1 FROM import_error e \
                             WHERE e.filename = d.relative_fileloc AND e.bundle_name = d.bundle_name \
                               AND e.stacktrace = $3)",
    )
    .bind(dag_id)
    .bind(now)
    .bind(text)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE dag SET has_import_errors = true \
          WHERE dag_id = $1 AND NOT coalesce(has_import_errors, false)",
    )
    .bind(dag_id)
    .execute(db)
    .await?;
    Ok(())
}
