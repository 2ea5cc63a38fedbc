//! Who is first with a dag_id keeps it.

use std::collections::HashMap;

use metadata::dag_files;

use super::{Dags, Examined};
use crate::memory::Again;
use crate::verdict::Failure;
use crate::{BUNDLE, Result};

impl Dags {
    /// Turns DAGs that somebody else holds into failures. `holders`: who holds what, of the files not examined.
    pub(crate) async fn settle_ownership(
        &self,
        mut holders: HashMap<String, String>,
        claimed: &HashMap<String, Vec<String>>,
        examined: &mut [Examined],
    ) -> Result<()> {
        for file in examined.iter() {
            let held = claimed.get(&file.path).map_or(&[][..], Vec::as_slice);
            for dag_id in held {
                let still = match &file.verdict {
                    Ok((parsed, _)) => parsed.dags.iter().any(|dag| dag.dag_id == *dag_id),
                    Err(_) => true,
                };
                if still {
                    holders
                        .entry(dag_id.clone())
                        .or_insert_with(|| file.path.clone());
                }
            }
        }
        let ids: Vec<String> = examined.iter().flat_map(Examined::dag_ids).collect();
        let foreign =
            dag_files::dags_of_other_bundles(&mut *self.db.acquire().await?, BUNDLE, &ids).await?;
        let foreign: HashMap<String, String> = foreign
            .into_iter()
            .map(|dag| (dag.dag_id, format!("the bundle {}", dag.bundle_name)))
            .collect();
        for file in examined.iter_mut() {
            let ids = file.dag_ids();
            let taken = ids.iter().find_map(|dag_id| {
                let holder = holders
                    .get(dag_id)
                    .filter(|holder| **holder != file.path)
                    .or_else(|| foreign.get(dag_id))?;
                Some(format!(
                    "the dag_id {dag_id:?} belongs to {holder}, which was first\nhint: give the DAG of this file another dag_id"
                ))
            });
            if let Some(message) = taken {
                file.verdict = Err(Failure {
                    again: Again::WhenOthersChange,
                    ..Failure::new(message)
                });
                continue;
            }
            for dag_id in ids {
                holders.insert(dag_id, file.path.clone());
            }
        }
        Ok(())
    }
}
