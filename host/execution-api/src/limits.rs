//! How much a request may bring, and what it may write.

use std::time::Duration;

/// Bounds of the API. The defaults are Airflow's where Airflow has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest XCom value, in bytes of JSON. Values pass through files, not through memory.
    pub max_xcom_bytes: u64,
    /// The largest body of any other request.
    pub max_body_bytes: usize,
    /// `[core] max_map_length`
    pub max_map_length: i32,
    /// `[scheduler] partition_mapper_max_downstream_keys`
    pub max_downstream_keys: usize,
    /// `[core] num_dag_runs_to_retain_rendered_fields`
    pub runs_with_rendered_fields: i64,
    /// `[state_store] clear_on_success`
    pub clear_task_store_on_success: bool,
    pub xcom_writes: XcomWrites,
    /// How long a callback may run.
    pub callback_timeout: Duration,
}

/// Whose XComs a task may write and delete. All may read all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XcomWrites {
    /// Its own.
    Own,
    /// Everybody's, as in Airflow.
    Any,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_xcom_bytes: 64 << 20,
            max_body_bytes: 4 << 20,
            max_map_length: 1024,
            max_downstream_keys: 1000,
            runs_with_rendered_fields: 30,
            clear_task_store_on_success: false,
            xcom_writes: XcomWrites::Own,
            callback_timeout: Duration::from_secs(300),
        }
    }
}
