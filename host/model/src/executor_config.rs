//! `executor_config` of a task: what it asks of the container that runs it, in Modal's own names.
//!
//! Read and checked here; whoever starts the container decides what it can give.

mod named;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use read::plain;

/// What `modal.Function.with_options` takes, and `image`. Default: the function as it was deployed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExecutorConfig {
    /// Cores: the request, and the limit if there is one.
    pub cpu: Option<Range<f64>>,
    /// MiB.
    pub memory: Option<Range<u32>>,
    pub gpu: Option<Gpu>,
    /// Wall time of the call, whole seconds.
    pub timeout: Option<Duration>,
    pub region: Vec<String>,
    pub cloud: Option<String>,
    /// What Modal does about a container that dies; Airflow's retries are the task's own.
    pub retries: Option<Retries>,
    /// Names of volumes by where they are mounted.
    pub volumes: BTreeMap<String, String>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// The name of an image; who has only one refuses it.
    pub image: Option<String>,
    pub max_containers: Option<u32>,
    pub buffer_containers: Option<u32>,
    /// Whole seconds.
    pub scaledown_window: Option<Duration>,
}

/// A request, with a limit above it if one is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range<T> {
    pub request: T,
    pub limit: Option<T>,
}

/// `"A100"`, `"A100:2"`; the type in capitals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    pub gpu_type: String,
    pub count: u32,
}

/// `modal.Retries`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    pub max_retries: u32,
    pub backoff_coefficient: f32,
    pub initial_delay: Duration,
    pub max_delay: Duration,
}

impl Retries {
    /// What a plain number means. `modal: _parse_retries`
    #[must_use]
    pub fn fixed(max_retries: u32) -> Self {
        Self {
            max_retries,
            backoff_coefficient: 1.0,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }
}

/// Why an `executor_config` can't be used: which key, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("executor_config: {problem}")]
pub struct Problem {
    pub problem: String,
    pub hint: String,
}
