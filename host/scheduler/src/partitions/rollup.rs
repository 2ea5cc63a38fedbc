//! Whether a queued partition has all that its run waits for.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use model::SerializedDag;

use super::PartitionedAssets;
use super::mapper::Kind;
use crate::runs::is_met;
use crate::snapshot::{OpenPartition, QueuedAsset};

/// `airflow: WaitPolicy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitPolicy {
    /// `airflow: WaitForAll`
    All,
    /// So many keys; below zero, all but so many. `airflow: MinimumCount`
    Minimum(i64),
}

impl WaitPolicy {
    /// `airflow: WaitPolicy.is_satisfied_by_keys`; a minimum above all keys is never reached.
    pub(super) fn is_satisfied(
        self,
        received: &BTreeSet<String>,
        expected: &BTreeSet<String>,
    ) -> bool {
        let count = |keys: usize| i64::try_from(keys).unwrap_or(i64::MAX);
        let expected_count = count(expected.len());
        let matched = || count(expected.intersection(received).count());
        match self {
            Self::All => expected.is_subset(received),
            Self::Minimum(least) if least > 0 => least <= expected_count && matched() >= least,
            Self::Minimum(missing) => matched() >= expected_count.saturating_add(missing).max(0),
        }
    }
}

/// What to do about a queued partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionReadiness {
    Ready {
        partition_date: Option<DateTime<Utc>>,
    },
    /// Events are missing, or nobody can tell.
    Waiting,
    /// It was queued through mappers that the DAG has no more: it is forgotten.
    Stale,
}

/// About partitions of one DAG, in their order.
/// `airflow: SchedulerJobRunner._create_dagruns_for_partitioned_asset_dags`
#[must_use]
pub fn partition_readiness(
    dag: &SerializedDag,
    open: &[&OpenPartition],
) -> Vec<PartitionReadiness> {
    let (assets, fingerprint) = match PartitionedAssets::of(&dag.timetable) {
        Ok(Some(assets)) => {
            let fingerprint = assets.fingerprint();
            (assets, fingerprint)
        }
        Ok(None) => return vec![PartitionReadiness::Stale; open.len()],
        // What can't be read is no reason to forget what was received.
        Err(_) => return vec![PartitionReadiness::Waiting; open.len()],
    };
    open.iter()
        .map(
            |open| match open.fingerprint.as_ref() == Some(&fingerprint) {
                true => readiness(&assets, open),
                false => PartitionReadiness::Stale,
            },
        )
        .collect()
}

fn readiness(assets: &PartitionedAssets, open: &OpenPartition) -> PartitionReadiness {
    let mut received: BTreeMap<i32, (&QueuedAsset, BTreeSet<String>)> = BTreeMap::new();
    for (asset, source_key) in &open.received {
        let (_, keys) = received
            .entry(asset.asset_id)
            .or_insert_with(|| (asset, BTreeSet::new()));
        keys.insert(source_key.clone());
    }
    let complete: Vec<QueuedAsset> = received
        .values()
        .filter(|(asset, keys)| is_complete(assets, asset, &open.partition_key, keys))
        .map(|(asset, _)| (*asset).clone())
        .collect();
    if !is_met(&assets.condition, &complete) {
        return PartitionReadiness::Waiting;
    }
    let contributors = received.values().map(|(asset, _)| *asset);
    PartitionReadiness::Ready {
        partition_date: partition_date(assets, contributors, open),
    }
}

/// `airflow: SchedulerJobRunner._resolve_asset_partition_status`
fn is_complete(
    assets: &PartitionedAssets,
    asset: &QueuedAsset,
    partition_key: &str,
    received: &BTreeSet<String>,
) -> bool {
    match &assets.mapper(&asset.name, &asset.uri).kind {
        // A mapper that raises is not satisfied yet.
        Kind::Rollup(rollup) => rollup
            .to_upstream(partition_key)
            .is_ok_and(|expected| rollup.wait_policy.is_satisfied(received, &expected)),
        Kind::Identity
        | Kind::Allowed(_)
        | Kind::Fixed(_)
        | Kind::Chain(_)
        | Kind::Product { .. }
        | Kind::Temporal(_)
        | Kind::FanOut(_) => true,
    }
}

/// The date that all mappers with dates agree on, else what the events carried.
/// `airflow: SchedulerJobRunner._resolve_partition_date`
fn partition_date<'a>(
    assets: &PartitionedAssets,
    contributors: impl Iterator<Item = &'a QueuedAsset>,
    open: &OpenPartition,
) -> Option<DateTime<Utc>> {
    let mut anchors = BTreeSet::new();
    for asset in contributors {
        let mapper = assets.mapper(&asset.name, &asset.uri);
        anchors.extend(mapper.to_partition_date(&open.partition_key).ok()?);
    }
    match anchors.len() {
        0 => open.partition_date,
        1 => anchors.pop_first(),
        _ => None,
    }
}
