//! What the emulator is told: where it lives, where it listens, and which functions are deployed.

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

#[derive(Debug, Clone)]
pub struct Config {
    /// Holds the journal; one emulator at a time.
    pub state_dir: PathBuf,
    /// Holds one socket for each container. The path of a unix socket has at most 107 bytes: keep it short. Survives with `state_dir`.
    pub socket_dir: PathBuf,
    pub listen: Listen,
    /// What callers over TCP have to show; none: any token will do.
    pub tokens: Option<Tokens>,
    /// A Python with the `modal` package, to run functions that are deployed over the API; none: these are refused.
    pub python: Option<PathBuf>,
}

/// Where callers connect. At least one of the two.
#[derive(Debug, Clone, Default)]
pub struct Listen {
    pub unix: Option<PathBuf>,
    pub tcp: Option<SocketAddr>,
    /// Lets `tcp` be an address that other machines reach. Whoever has the token runs code here.
    pub beyond_loopback: bool,
}

/// The two halves of Modal's token.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    pub id: String,
    pub secret: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Tokens({})", self.id)
    }
}

/// A deployed function: how to start a container for it, and how many of what.
#[derive(Debug, Clone)]
pub struct FunctionSpec {
    pub app_name: String,
    pub name: String,
    /// Modal's environment; empty is the default one.
    pub environment: String,
    /// The container's program and its arguments.
    pub command: Vec<OsString>,
    /// Goes over the few variables that a container inherits (`PATH`, `HOME`, `USER`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR`). May hold
    /// secrets: it is never written to disk.
    pub env: BTreeMap<OsString, OsString>,
    pub working_dir: PathBuf,
    /// Each container's stdout and stderr go to `<log_dir>/<task id>.log`.
    pub log_dir: PathBuf,
    /// Roughly the most that one log file grows to.
    pub max_log_bytes: u64,
    /// These are started with the deployment and kept while idle.
    pub min_containers: usize,
    pub max_containers: usize,
    /// How many inputs one container works on at once.
    pub max_concurrent_inputs: usize,
    /// Limit of one input.
    pub timeout: Duration,
    /// Limit from the start of a container to its first request for inputs.
    pub startup_timeout: Duration,
    /// An idle container is asked to leave after this time.
    pub scaledown_window: Duration,
    /// How often a failed input is tried again.
    pub retries: Retries,
    /// Each container works on one input and leaves.
    pub single_use: bool,
}

/// When a failed input is tried again. The default: never.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Retries {
    pub count: u32,
    pub initial_delay: Duration,
    pub backoff: f32,
    pub max_delay: Duration,
}

impl Retries {
    pub(crate) fn of(policy: &modal_api::wire::FunctionRetryPolicy) -> Self {
        Self {
            count: policy.retries,
            initial_delay: Duration::from_millis(policy.initial_delay_ms.into()),
            backoff: policy.backoff_coefficient,
            max_delay: Duration::from_millis(policy.max_delay_ms.into()),
        }
    }

    /// The pause after a try, the first of which has the number 0.
    #[must_use]
    pub fn delay_after(&self, tries: u32) -> Duration {
        let factor = self
            .backoff
            .max(1.0)
            .powi(i32::try_from(tries).unwrap_or(i32::MAX));
        Duration::try_from_secs_f32(self.initial_delay.as_secs_f32() * factor)
            .unwrap_or(self.max_delay)
            .min(self.max_delay)
    }
}

impl FunctionSpec {
    /// A function with Modal's defaults: one input a container, 300 s, 60 s idle.
    #[must_use]
    pub fn new(
        app_name: &str,
        name: &str,
        command: Vec<OsString>,
        working_dir: PathBuf,
        log_dir: PathBuf,
    ) -> Self {
        Self {
            app_name: app_name.to_owned(),
            name: name.to_owned(),
            environment: String::new(),
            command,
            env: BTreeMap::new(),
            working_dir,
            log_dir,
            max_log_bytes: 16 << 20,
            min_containers: 0,
            max_containers: 10,
            max_concurrent_inputs: 1,
            timeout: Duration::from_secs(300),
            startup_timeout: Duration::from_secs(60),
            scaledown_window: Duration::from_secs(60),
            retries: Retries::default(),
            single_use: false,
        }
    }
}

/// How to stop.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Containers finish what they work on by themselves; the next emulator on this state takes their results.
    Leave,
    /// Containers get SIGTERM, and after the grace SIGKILL; what they worked on ends as TERMINATED.
    Terminate { grace: Duration },
}
