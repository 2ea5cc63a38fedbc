//! Uuids for task instances that a plan makes. A plan is a value: the same facts give the same uuids.

use chrono::{DateTime, Utc};
use model::DagRun;
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

pub(super) struct Identities<'a> {
    run: &'a DagRun,
    now: DateTime<Utc>,
}

impl<'a> Identities<'a> {
    pub(super) fn new(run: &'a DagRun, now: DateTime<Utc>) -> Self {
        Self { run, now }
    }

    /// Version 7 as Airflow's: the time in front, then what no two task instances have in common.
    pub(super) fn of(&self, task_id: &str, map_index: i32) -> Uuid {
        let mut hash = Sha1::new();
        for part in [self.run.dag_id.as_str(), self.run.run_id.as_str(), task_id] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.update(self.run.id.to_be_bytes());
        hash.update(map_index.to_be_bytes());
        hash.update(self.now.timestamp_micros().to_be_bytes());
        let digest = hash.finalize();
        let mut unique = [0; 10];
        unique.copy_from_slice(&digest[..10]);
        let millis = u64::try_from(self.now.timestamp_millis()).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &unique).into_uuid()
    }
}
