//! The section `modal`: what `create` deploys there. It knows names and ranges, and nothing of how it is deployed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::document::Value;
use super::{Config, Setting, Supervisor, unknown};
use crate::{Error, Result};

/// The Pythons that Airflow 3.3.2 has images with.
pub const PYTHON_VERSIONS: [&str; 4] = ["3.10", "3.11", "3.12", "3.13"];
/// Modal's longest timeout of one call.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 3600);
/// The shortest pause between two calls of the schedule in which Airflow's triggerer, too, gets something done.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);

/// What is deployed on Modal, and how large.
#[derive(Debug, Clone, PartialEq)]
pub struct ModalConfig {
    /// `modal.environment`: Modal's environment; empty is the default of the workspace.
    pub environment: String,
    /// `modal.region`: where containers run; without it anywhere.
    pub region: Option<String>,
    /// `modal.routing_region`: where requests to the Execution API and the UI come in.
    pub routing_region: String,
    /// `modal.python_version`: the Python of the image.
    pub python_version: String,
    /// `modal.image`: an image of one's own with Airflow 3.3.2 in the place of Airflow's.
    pub image: Option<String>,
    /// `modal.airflow_python`: the interpreter in the image that has Airflow, where it is not the one that Modal starts.
    pub airflow_python: Option<String>,
    /// `modal.requirements`: a requirements.txt of what tasks need beside Airflow.
    pub requirements: Option<PathBuf>,
    /// `modal.image_commands`: shell commands that the image is built with at last.
    pub image_commands: Vec<String>,
    /// `modal.images`: by name, the shell commands that make an image of its own on the environment's. A task names it as `image` in its
    /// `executor_config`.
    pub images: BTreeMap<String, Vec<String>>,
    /// `modal.secrets`: names of Modal's Secrets that tasks get as environment variables.
    pub secrets: Vec<String>,
    /// `modal.task_cpu`: cores that one worker's container asks for.
    pub task_cpu: f64,
    /// `modal.task_memory`: MiB that one worker's container asks for.
    pub task_memory: u32,
    /// `modal.idle_seconds`: how long a container without work stays warm.
    pub idle: Duration,
    /// `modal.memory_snapshot`: workers start from a snapshot of their memory.
    pub memory_snapshot: bool,
}

impl Default for ModalConfig {
    fn default() -> ModalConfig {
        ModalConfig {
            environment: String::new(),
            region: None,
            routing_region: "us-east".to_owned(),
            python_version: "3.12".to_owned(),
            image: None,
            airflow_python: None,
            requirements: None,
            image_commands: Vec::new(),
            images: BTreeMap::new(),
            secrets: Vec::new(),
            task_cpu: 0.5,
            task_memory: 512,
            idle: Duration::from_secs(60),
            memory_snapshot: true,
        }
    }
}

impl ModalConfig {
    /// The names, each with no commands.
    fn named_images(&self) -> BTreeMap<&str, [&str; 0]> {
        self.images.keys().map(|name| (name.as_str(), [])).collect()
    }

    pub(super) fn set(&mut self, value: &Setting<'_>) -> Result<()> {
        match value.key {
            "modal.environment" => self.environment = value.text_or_none()?.unwrap_or_default(),
            "modal.region" => self.region = value.text_or_none()?,
            "modal.routing_region" => self.routing_region = value.text()?,
            "modal.python_version" => {
                self.python_version = value.text()?;
                // 3.10 without quotes is the number 3.1.
                if self.python_version == "3.1" {
                    "3.10".clone_into(&mut self.python_version);
                }
                if !PYTHON_VERSIONS.contains(&self.python_version.as_str()) {
                    return Err(value.wrong("3.10, 3.11, 3.12 or 3.13"));
                }
            }
            "modal.image" => self.image = value.text_or_none()?,
            "modal.airflow_python" => self.airflow_python = value.text_or_none()?,
            "modal.requirements" => self.requirements = value.text_or_none()?.map(PathBuf::from),
            "modal.image_commands" => self.image_commands = value.texts()?,
            "modal.images" => self.images = images(value)?,
            "modal.secrets" => {
                self.secrets = value.texts()?;
                // Those that `create` makes hold the keys of an environment.
                if self
                    .secrets
                    .iter()
                    .any(|name| name.starts_with("airflow-secrets-"))
                {
                    return Err(value.wrong("names of your own secrets"));
                }
            }
            "modal.task_cpu" => self.task_cpu = value.number(0.125, 64.0)?,
            "modal.task_memory" => self.task_memory = narrow(value.whole(128, 344_064)?),
            // The key is known so that whoever wants more learns why it can't be had.
            "modal.tasks_per_container" => match value.whole(1, 256)? {
                1 => {}
                _ => {
                    return Err(value.wrong(
                        "1 (while a task runs, its container can't look at the volume anew, and a second one could miss what was written since)",
                    ));
                }
            },
            "modal.idle_seconds" => self.idle = Duration::from_secs(value.whole(2, 3_600)?),
            "modal.memory_snapshot" => self.memory_snapshot = value.truth()?,
            _ => return Err(unknown(value.key, value.place)),
        }
        Ok(())
    }
}

/// Names that can be part of a function's.
fn images(value: &Setting<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let entries = match &value.node.value {
        Value::Mapping(entries) => entries.as_slice(),
        Value::Null => &[],
        _ => return Err(value.wrong("names, and below each a list of commands")),
    };
    entries
        .iter()
        .map(|(name, node)| {
            let is_name = name.len() <= 40
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !is_name {
                return Err(value.wrong("names of lower-case letters, digits and underscores"));
            }
            let commands = Setting { node, ..*value }.texts()?;
            Ok((name.clone(), commands))
        })
        .collect()
}

fn narrow(number: u64) -> u32 {
    // All ranges end far below.
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn example(key: &str) -> &'static str {
    match key {
        "modal.environment" => "main",
        "modal.region" => "us-east",
        "modal.routing_region" => "us-east",
        "modal.python_version" => "\"3.12\"",
        "modal.image" => "registry.example/airflow:3.3.2",
        "modal.airflow_python" => "/opt/airflow/bin/python",
        "modal.requirements" => "requirements.txt",
        "modal.image_commands" => "[\"apt-get install -y git\"]",
        "modal.images" => "{pandas: [\"python -m pip install pandas\"]}",
        "modal.secrets" => "[my-warehouse]",
        "modal.task_cpu" => "0.5",
        "modal.task_memory" => "512",
        "modal.tasks_per_container" => "1",
        "modal.idle_seconds" => "60",
        _ => "true",
    }
}

impl Config {
    /// What only concerns `placement: modal`.
    pub(super) fn check_modal(&self, file: &str) -> Result<()> {
        let wrong = |key: &str, problem: &str, hint: &str| {
            Err(Error::Config {
                place: format!("{file}: {key}"),
                problem: problem.to_owned(),
                hint: hint.to_owned(),
            })
        };
        if self.connection_string.is_none() {
            return wrong(
                "database.connection_string",
                "placement modal needs a Postgres that Modal's containers can reach; the embedded one is on this machine alone",
                "set database.connection_string to a Postgres of yours (Neon, RDS, …): postgresql://user:password@host:5432/airflow",
            );
        }
        if self.supervisor == Supervisor::Airflow {
            return wrong(
                "worker.supervisor",
                "Airflow's own supervisor can't make a Modal volume durable before it reports a task's end",
                "leave the key out: modalflow's supervisor runs tasks on Modal",
            );
        }
        if self.task_timeout > LONGEST_CALL || self.callback_timeout > LONGEST_CALL {
            return wrong(
                "executor.task_timeout",
                "Modal ends a call after 24 hours",
                "86400 is the most with placement modal",
            );
        }
        if self.interval < SHORTEST_INTERVAL {
            return wrong(
                "scheduler.interval_seconds",
                "each tick is a call of a function there, which starts Airflow's triggerer for what is deferred",
                "30 is the least with placement modal; a finished task asks for a tick at once anyhow",
            );
        }
        Ok(())
    }

    /// The settings that containers on Modal must know, as a config file without the database's address: that one is secret.
    pub fn for_containers(&self) -> String {
        let mut text = String::new();
        let mut put = |section: &str, lines: &[(&str, String)]| {
            let _ = writeln!(text, "{section}:");
            for (key, value) in lines {
                let _ = writeln!(text, "  {key}: {value}");
            }
        };
        put(
            "scheduler",
            &[
                ("interval_seconds", self.interval.as_secs().to_string()),
                (
                    "parse_timeout_seconds",
                    self.parse_timeout.as_secs_f64().to_string(),
                ),
            ],
        );
        put(
            "executor",
            &[
                ("parallelism", self.parallelism.to_string()),
                ("task_timeout", self.task_timeout.as_secs().to_string()),
                (
                    "callback_timeout",
                    self.callback_timeout.as_secs().to_string(),
                ),
            ],
        );
        put(
            "xcom",
            &[
                ("inline_bytes", self.xcom_inline_bytes.to_string()),
                ("max_bytes", self.xcom_max_bytes.to_string()),
            ],
        );
        put(
            "modal",
            &[
                ("task_cpu", self.modal.task_cpu.to_string()),
                ("task_memory", self.modal.task_memory.to_string()),
                // Their names alone: containers check what DAGs ask for. JSON is YAML.
                (
                    "images",
                    serde_json::json!(self.modal.named_images()).to_string(),
                ),
                ("secrets", serde_json::json!(self.modal.secrets).to_string()),
            ],
        );
        text
    }
}
