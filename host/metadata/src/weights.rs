//! Priority weights of tasks whose rule is a class of the user's own (`modalflow.task_weights`). Python said them when
//! the file was parsed; they belong to the DAG version that the file is now.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::Error;

/// Stores the weights, by task id, with the newest version of each DAG.
///
/// # Errors
/// The database's errors.
pub async fn put(
    db: &mut PgConnection,
    weights: &[(String, BTreeMap<String, i32>)],
) -> Result<(), Error> {
    if weights.is_empty() {
        return Ok(());
    }
    let dag_ids: Vec<&str> = weights.iter().map(|(dag_id, _)| dag_id.as_str()).collect();
    let texts: Vec<String> = weights
        .iter()
        .map(|(_, weights)| serde_json::to_string(weights).expect("strings and numbers"))
        .collect();
    sqlx::query(
        "INSERT INTO modalflow.task_weights (dag_version_id, weights) \
         SELECT v.id, new.weights::jsonb \
           FROM unnest($1::text[], $2::text[]) AS new (dag_id, weights) \
           JOIN LATERAL (SELECT id FROM dag_version WHERE dag_id = new.dag_id \
                          ORDER BY version_number DESC LIMIT 1) AS v ON true \
         ON CONFLICT (dag_version_id) DO UPDATE \
            SET weights = EXCLUDED.weights, updated_at = clock_timestamp()",
    )
    .bind(&dag_ids)
    .bind(&texts)
    .execute(db)
    .await?;
    Ok(())
}
