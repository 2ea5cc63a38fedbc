//! Runs that assets trigger.

use chrono::{DateTime, Utc};
use model::{AssetCondition, DagRunTriggeredBy, DagRunType, SerializedDag};
use serde_json::Value;

use super::manual::{check_params, check_run_type, isoformat};
use super::{MappedLengths, task_instances};
use crate::Error;
use crate::plan::NewDagRun;
use crate::snapshot::{AssetQueue, OpenPartition, QueuedAsset};

/// Whether a DAG with queued asset events gets a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssetReadiness {
    /// The run is due, as of the newest of the queued events.
    Ready { triggered: DateTime<Utc> },
    /// Other assets of its condition have had no event yet.
    Incomplete,
    /// As many runs are queued and running as there may be; the events stay queued.
    AtLimit,
}

/// `airflow: DagModel.dags_needing_dagruns, AssetEvaluator`
#[must_use]
pub fn asset_readiness(queue: &AssetQueue) -> AssetReadiness {
    let newest = queue.queued.iter().map(|asset| asset.created_at).max();
    match newest {
        Some(triggered) if is_met(&queue.condition, &queue.queued) => {
            if queue.active_runs >= i64::from(queue.max_active_runs) {
                AssetReadiness::AtLimit
            } else {
                AssetReadiness::Ready { triggered }
            }
        }
        Some(_) | None => AssetReadiness::Incomplete,
    }
}

pub(crate) fn is_met(condition: &AssetCondition, queued: &[QueuedAsset]) -> bool {
    match condition {
        AssetCondition::Asset { name, uri } => queued
            .iter()
            .any(|asset| asset.name == *name && asset.uri == *uri),
        AssetCondition::NameRef { name } => queued
            .iter()
            .any(|asset| asset.is_active && asset.name == *name),
        AssetCondition::UriRef { uri } => queued
            .iter()
            .any(|asset| asset.is_active && asset.uri == *uri),
        AssetCondition::Alias { name } => queued.iter().any(|asset| asset.aliases.contains(name)),
        AssetCondition::All(members) => members.iter().all(|member| is_met(member, queued)),
        AssetCondition::Any(members) => members.iter().any(|member| is_met(member, queued)),
    }
}

/// `suffix` makes the run id unique: two events may have the same time.
/// `airflow: SchedulerJobRunner._create_dag_runs_asset_triggered`
pub fn asset_triggered(
    dag: &SerializedDag,
    triggered: DateTime<Utc>,
    suffix: &str,
) -> Result<NewDagRun, Error> {
    let run_type = DagRunType::AssetTriggered;
    check_run_type(dag, run_type)?;
    let conf = Value::Object(serde_json::Map::new());
    check_params(dag, &conf)?;
    Ok(NewDagRun {
        dag_id: dag.dag_id.clone(),
        run_id: format!("{run_type}__{}_{suffix}", isoformat(triggered)),
        run_type,
        triggered_by: DagRunTriggeredBy::Asset,
        triggering_user_name: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        run_after: triggered,
        partition_key: None,
        partition_date: None,
        conf,
        task_instances: task_instances(dag, None, run_type, &MappedLengths::new()),
    })
}

/// The run of a partition that is ready. `airflow: SchedulerJobRunner._create_dagruns_for_partitioned_asset_dags`
pub fn partition_triggered(
    dag: &SerializedDag,
    open: &OpenPartition,
    partition_date: Option<DateTime<Utc>>,
    suffix: &str,
    now: DateTime<Utc>,
) -> Result<NewDagRun, Error> {
    Ok(NewDagRun {
        partition_key: Some(open.partition_key.clone()),
        partition_date,
        ..asset_triggered(dag, now, suffix)?
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;

    fn queue(expression: &Value, queued: &[(&str, &str, bool, &[&str])]) -> AssetQueue {
        AssetQueue {
            dag_id: "consumer".to_owned(),
            condition: AssetCondition::parse(expression).expect("Airflow's form"),
            queued: queued
                .iter()
                .zip(0..)
                .map(|(&(name, uri, is_active, aliases), id)| QueuedAsset {
                    asset_id: id,
                    name: name.to_owned(),
                    uri: uri.to_owned(),
                    is_active,
                    aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                    created_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(id.into()),
                })
                .collect(),
            max_active_runs: 2,
            active_runs: 1,
        }
    }

    #[test]
    fn a_condition_is_met_by_what_is_queued() {
        let a = json!({"asset": {"name": "a", "uri": "s3://a/", "group": "asset"}});
        let b = json!({"asset": {"name": "b", "uri": "b", "group": "asset"}});
        let alias = json!({"alias": {"name": "al", "group": "asset"}});
        let queued_a: (&str, &str, bool, &[&str]) = ("a", "s3://a/", true, &[]);
        let queued_b: (&str, &str, bool, &[&str]) = ("b", "b", false, &["al"]);
        let cases = [
            (a.clone(), vec![queued_a]),
            (a.clone(), vec![queued_b]),
            (
                json!({"asset": {"name": "a", "uri": "other"}}),
                vec![queued_a],
            ),
            (json!({"all": [a, b]}), vec![queued_a]),
            (json!({"all": [a, b]}), vec![queued_a, queued_b]),
            (json!({"any": [a, b]}), vec![queued_b]),
            (json!({"any": [a, {"all": [b, alias]}]}), vec![queued_b]),
            (json!({"asset_ref": {"name": "a"}}), vec![queued_a]),
            (json!({"asset_ref": {"uri": "b"}}), vec![queued_b]),
            (json!({"all": []}), vec![]),
        ];
        let lines: Vec<String> = cases
            .iter()
            .map(|(expression, queued)| {
                format!("{:?}", asset_readiness(&queue(expression, queued)))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        Ready { triggered: 1970-01-01T00:00:00Z }
        Incomplete
        Incomplete
        Incomplete
        Ready { triggered: 1970-01-01T00:00:01Z }
        Ready { triggered: 1970-01-01T00:00:00Z }
        Ready { triggered: 1970-01-01T00:00:00Z }
        Ready { triggered: 1970-01-01T00:00:00Z }
        Incomplete
        Incomplete
        ");
    }

    #[test]
    fn events_wait_while_the_dag_is_at_its_limit() {
        let expression = json!({"alias": {"name": "al", "group": "asset"}});
        let mut full = queue(&expression, &[("b", "b", true, &["al"])]);
        full.active_runs = 2;
        assert_eq!(asset_readiness(&full), AssetReadiness::AtLimit);
    }
}
