//! What makes up a function: what runs, with what, how much of it and when. How that is written for the server stands in `message`.

use std::time::Duration;

/// How much of a machine a container asks for. Zero or none is Modal's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// Physical cores; the second is where the kernel throttles.
    pub cpu: Option<f64>,
    pub cpu_limit: Option<f64>,
    pub memory_mib: Option<u32>,
    /// More than this ends the container.
    pub memory_limit_mib: Option<u32>,
    pub ephemeral_disk_mib: Option<u32>,
    /// Modal's name with an optional number: "T4", "A100-80GB:2".
    pub gpu: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    pub volume_id: String,
    pub path: String,
    pub read_only: bool,
}

/// When a function is called by itself. Such a function takes no arguments.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Five fields, in a time zone as `UTC` or `Europe/Berlin`.
    Cron {
        expression: String,
        timezone: String,
    },
    /// Since the last deployment or call.
    Every(Duration),
}

/// How many containers a function may have, and how long one waits for work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scaling {
    pub min_containers: Option<u32>,
    pub max_containers: Option<u32>,
    pub buffer_containers: Option<u32>,
    /// 2 s to an hour; none is Modal's minute.
    pub scaledown_window: Option<Duration>,
}

/// Failed inputs are tried again by Modal itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    pub most: u32,
    pub backoff: f32,
    pub first_delay: Duration,
    pub max_delay: Duration,
}

impl Default for Retries {
    /// None at all; the rest as the official client sends it then.
    fn default() -> Self {
        Self {
            most: 0,
            backoff: 1.0,
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }
}

/// Where a container finds its code: the working directory of Modal's runtime.
pub const CODE_FOLDER: &str = "/root";

/// What a container runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Code {
    /// A plain Python callable: `module` is imported, `name` is taken from it. Called with CBOR.
    Python { module: String, name: String },
    /// A Python callable that starts a server on a port, to which Modal's runtime hands requests.
    WebServer {
        module: String,
        name: String,
        port: u16,
        startup_timeout: Duration,
        /// Of the address; empty is the server's choice.
        label: String,
        /// Callers show a proxy token.
        requires_proxy_auth: bool,
    },
    /// Serves HTTP on a port by itself: the image's own `ENTRYPOINT` and `CMD`, or what a Python class starts.
    Server(HttpServer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpServer {
    /// Whose `modal.enter` methods start the server; none: the image's own command does, and no Python takes part.
    pub class: Option<PythonClass>,
    pub port: u16,
    /// Where requests enter, as `us-east`; at least one.
    pub proxy_regions: Vec<String>,
    pub startup_timeout: Duration,
    /// Between SIGTERM and the end; none is Modal's choice.
    pub exit_grace_period: Option<Duration>,
    /// Without this callers show a proxy token.
    pub unauthenticated: bool,
}

/// A Python class by its module and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonClass {
    pub module: String,
    pub name: String,
}

/// All that makes up a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub app_name: String,
    /// What callers look it up by, and the key of [`crate::Publication::functions`].
    pub tag: String,
    pub code: Code,
    pub image_id: String,
    /// With [`Client::mount_of_client`] unless the image serves HTTP itself.
    pub mount_ids: Vec<String>,
    pub secret_ids: Vec<String>,
    pub volumes: Vec<VolumeMount>,
    pub resources: Resources,
    pub schedule: Option<Schedule>,
    /// Of one input: 1 s to 24 h.
    pub timeout: Duration,
    /// Until a container is ready; none is as `timeout`.
    pub startup_timeout: Option<Duration>,
    pub retries: Option<Retries>,
    pub scaling: Scaling,
    /// A container ends with its first input.
    pub single_use: bool,
    /// Inputs that a container works on at the same time; zero is one.
    pub max_concurrent_inputs: u32,
    pub target_concurrent_inputs: u32,
    pub regions: Vec<String>,
    pub cloud: Option<String>,
    /// Never on machines that may be taken away; costs more.
    pub nonpreemptible: bool,
    pub block_network: bool,
    /// Containers start from a snapshot of their memory.
    pub memory_snapshot: bool,
}

impl Definition {
    /// A function with Modal's defaults: five minutes, no retries by itself, one input at a time.
    #[must_use]
    pub fn new(app_name: &str, tag: &str, code: Code, image_id: &str) -> Self {
        Self {
            app_name: app_name.to_owned(),
            tag: tag.to_owned(),
            code,
            image_id: image_id.to_owned(),
            mount_ids: Vec::new(),
            secret_ids: Vec::new(),
            volumes: Vec::new(),
            resources: Resources::default(),
            schedule: None,
            timeout: Duration::from_secs(300),
            startup_timeout: None,
            retries: None,
            scaling: Scaling::default(),
            single_use: false,
            max_concurrent_inputs: 0,
            target_concurrent_inputs: 0,
            regions: Vec::new(),
            cloud: None,
            nonpreemptible: false,
            block_network: false,
            memory_snapshot: false,
        }
    }
}

/// What differs from a function's definition in a variant of it. None is as defined.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variant {
    /// In the place of the definition's: name again what shall stay.
    pub resources: Option<Resources>,
    pub secret_ids: Option<Vec<String>>,
    pub volumes: Option<Vec<VolumeMount>>,
    pub timeout: Option<Duration>,
    pub retries: Option<Retries>,
    pub max_containers: Option<u32>,
    pub buffer_containers: Option<u32>,
    pub scaledown_window: Option<Duration>,
    pub max_concurrent_inputs: Option<u32>,
    pub target_concurrent_inputs: Option<u32>,
    pub regions: Vec<String>,
    pub nonpreemptible: bool,
    pub cloud: Option<String>,
}
