//! The stored DAGs that a tick works with. One that can't be read costs nobody else anything.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use metadata::import_errors;
use metadata::serialized::StoredDag;
use sqlx::PgConnection;

use super::report::told;
use super::{Error, Report};
use crate::house::House;

const HINT: &str = "hint: change its file so that it is parsed again, or bring it in anew with `dags delete` and `dags create`";

/// The latest version of each DAG that has one and can be read. What can't be is a problem of this tick, and an import
/// error for those who look at the UI.
pub(super) async fn latest(
    house: &House,
    db: &mut PgConnection,
    dag_ids: &[String],
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<HashMap<String, StoredDag>, Error> {
    let mut readable = HashMap::new();
    for (dag_id, stored) in house.serialized.latest(db, dag_ids).await? {
        match stored {
            Ok(stored) => {
                readable.insert(dag_id, stored);
            }
            Err(error) => {
                let text = format!("{}\n{HINT}\n", told(&error));
                import_errors::tell(db, &dag_id, &text, now).await?;
                report.problem(&error);
            }
        }
    }
    Ok(readable)
}
