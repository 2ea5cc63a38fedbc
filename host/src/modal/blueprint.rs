//! What an environment consists of on Modal, as values: `deploy` makes it by RPC, `emit` writes it down for `modal deploy`.
//! Nothing here touches the world but the two files it reads: this program and the requirements.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use environment::container::{KEYS, SETTINGS};
use environment::{Environment, ModalConfig, python};
use sha2::{Digest, Sha256};

use super::container::{AIRFLOW_UI, EXECUTION_API, SCHEDULER_TICK};
use crate::executor::{RUN_TASK, function_name};
use crate::house::app_name;
use crate::tick::CALLBACKS_AT_ONCE;

/// The file whose functions Modal's container runtime calls.
pub(crate) const FUNCTIONS: &str = include_str!("../../python/modal_functions.py");
/// Its name as a module.
pub(crate) const MODULE: &str = "modal_functions";
/// Where the volume is mounted.
pub(crate) const VOLUME: &str = "/vol";
/// Where the host and the lists of packages lie in the image.
pub(crate) const FOLDER: &str = "/opt/modalflow";
/// The volumes' newer version: many writers, and commits that wait for nobody.
pub(crate) const VOLUME_VERSION: u32 = 2;

/// One tick takes seconds; Airflow's own code that writes DAGs may take longer.
pub(crate) const TICK_TIMEOUT: Duration = Duration::from_secs(300);
/// A tick that was asked for at a task's end finds the container of the one before.
const TICK_IDLE: Duration = Duration::from_secs(20);
const API_IDLE: Duration = Duration::from_secs(60);
const UI_IDLE: Duration = Duration::from_secs(300);
const API_START: Duration = Duration::from_secs(60);
const UI_START: Duration = Duration::from_secs(180);

/// The whole of it.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    /// Modal's environment; empty is the default one.
    pub(crate) environment: String,
    pub(crate) app: String,
    pub(crate) volume: String,
    pub(crate) dict: String,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) image: Image,
    /// Images of their own for tasks that ask for them: what comes on top of the image, by name.
    pub(crate) images: BTreeMap<String, Layer>,
    pub(crate) functions: Vec<Function>,
}

/// A named Secret of ours.
#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) name: String,
    pub(crate) values: BTreeMap<String, String>,
}

/// The names of the variables, never what they say.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}: {:?})", self.name, self.values.keys())
    }
}

/// The image of all functions, layer by layer.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) base: String,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
pub(crate) enum Layer {
    /// Airflow's image starts through a script of its own; Modal starts what it starts.
    NoEntrypoint,
    /// A file at an absolute path.
    Copy {
        file: File,
        to: String,
    },
    Run(Vec<String>),
}

/// What is copied into the image.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) content: Content,
    pub(crate) mode: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Text(String),
    At(PathBuf),
}

#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// What it is called in our Python file.
    pub(crate) entry: &'static str,
    /// One of the blueprint's images; without it the image of all.
    pub(crate) image: Option<String>,
    pub(crate) kind: Kind,
    /// Names of Secrets, in the order in which later ones win.
    pub(crate) secrets: Vec<String>,
    pub(crate) cpu: f64,
    pub(crate) memory: u32,
    pub(crate) max_containers: u32,
    pub(crate) idle: Duration,
    pub(crate) region: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Called by its schedule, and without arguments by whoever wants a tick.
    Scheduled { timeout: Duration, every: Schedule },
    /// Called with a payload.
    Called { timeout: Duration, snapshot: bool },
    /// Answers HTTP.
    Server {
        port: u16,
        startup: Duration,
        routing_region: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Schedule {
    Cron(String),
    Seconds(u64),
}

impl Schedule {
    /// Whole parts of an hour are cron's: those fire at the same moments whenever it was deployed.
    fn every(interval: Duration) -> Self {
        let seconds = interval.as_secs();
        match seconds / 60 {
            1 if seconds == 60 => Self::Cron("* * * * *".to_owned()),
            minutes @ 2..=30 if seconds.is_multiple_of(60) && 60 % minutes == 0 => {
                Self::Cron(format!("*/{minutes} * * * *"))
            }
            _ => Self::Seconds(seconds),
        }
    }
}

/// The names that an environment has there.
pub(crate) fn volume_name(environment: &str) -> String {
    format!("airflow-vol-{environment}")
}

/// What came of the last ticks.
pub(crate) fn dict_name(environment: &str) -> String {
    format!("airflow-state-{environment}")
}

/// Database and keys: what ticks, the Execution API and the UI know.
pub(crate) fn secrets_name(environment: &str) -> String {
    format!("airflow-secrets-{environment}")
}

/// What workers know.
pub(crate) fn worker_secret_name(environment: &str) -> String {
    format!("airflow-worker-{environment}")
}

impl Blueprint {
    /// What the environment's config asks for. `program` is this binary.
    pub(crate) fn of(
        environment: &Environment,
        program: PathBuf,
    ) -> Result<Self, environment::Error> {
        let name = environment.name();
        let config = environment.config();
        let modal = &config.modal;
        let app = app_name(name);
        let volume = volume_name(name);
        let (api_port, ui_port) = ports(name);
        let json = |value: serde_json::Result<String>| value.expect("names and texts are JSON");
        let settings = environment.container_settings(&app, &volume);
        let settings = json(serde_json::to_string(&settings));
        let keys = json(serde_json::to_string(&environment.container_keys()));
        let secrets = vec![
            Secret {
                name: secrets_name(name),
                values: variables(&[
                    (SETTINGS, settings.clone()),
                    (KEYS, keys),
                    ("MODALFLOW_API_PORT", api_port.to_string()),
                    ("MODALFLOW_UI_PORT", ui_port.to_string()),
                ]),
            },
            Secret {
                name: worker_secret_name(name),
                values: variables(&[
                    (SETTINGS, settings),
                    ("MODALFLOW_ROLE", "worker".to_owned()),
                ]),
            },
        ];
        let ours = vec![secrets_name(name)];
        let mut workers = vec![worker_secret_name(name)];
        workers.extend(modal.secrets.iter().cloned());
        let function = |entry: &'static str, kind, secrets: &[String]| Function {
            name: entry.to_owned(),
            entry,
            image: None,
            kind,
            secrets: secrets.to_vec(),
            cpu: 0.125,
            memory: 256,
            max_containers: 1,
            idle: TICK_IDLE,
            region: modal.region.clone(),
        };
        let server = |port, startup| Kind::Server {
            port,
            startup,
            routing_region: modal.routing_region.clone(),
        };
        let mut functions = vec![
            Function {
                memory: 512,
                ..function(
                    SCHEDULER_TICK,
                    Kind::Scheduled {
                        timeout: TICK_TIMEOUT,
                        every: Schedule::every(config.interval),
                    },
                    &ours,
                )
            },
            Function {
                cpu: modal.task_cpu,
                memory: modal.task_memory,
                // One input at a time: between two the volume is looked at anew.
                max_containers: config.parallelism + CALLBACKS_AT_ONCE,
                idle: modal.idle,
                ..function(
                    RUN_TASK,
                    Kind::Called {
                        timeout: config.task_timeout,
                        snapshot: modal.memory_snapshot,
                    },
                    &workers,
                )
            },
            Function {
                idle: API_IDLE,
                ..function(EXECUTION_API, server(api_port, API_START), &ours)
            },
            Function {
                cpu: 0.5,
                memory: 1536,
                idle: UI_IDLE,
                ..function(AIRFLOW_UI, server(ui_port, UI_START), &ours)
            },
        ];
        let workers: Vec<Function> = modal
            .images
            .keys()
            .filter_map(|image| {
                let worker = functions.iter().find(|one| one.entry == RUN_TASK)?;
                Some(Function {
                    name: function_name(RUN_TASK, Some(image)),
                    image: Some(image.clone()),
                    ..worker.clone()
                })
            })
            .collect();
        functions.extend(workers);
        Ok(Self {
            environment: modal.environment.clone(),
            app,
            volume,
            dict: dict_name(name),
            secrets,
            image: image(modal, environment.requirements()?, program),
            images: modal
                .images
                .iter()
                .map(|(name, commands)| (name.clone(), Layer::Run(commands.clone())))
                .collect(),
            functions,
        })
    }

    /// The Secret of ours with this name.
    pub(crate) fn own_secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.iter().find(|secret| secret.name == name)
    }
}

fn variables(pairs: &[(&str, String)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn image(modal: &ModalConfig, requirements: Option<String>, program: PathBuf) -> Image {
    let copy = |name: &'static str, content, mode| Layer::Copy {
        to: format!("{FOLDER}/{name}"),
        file: File {
            name,
            content,
            mode,
        },
    };
    let install = |flags: &str, name: &str| {
        Layer::Run(vec![format!(
            "python -m pip install --no-cache-dir {flags}-r {FOLDER}/{name}"
        )])
    };
    let mut layers = vec![
        Layer::NoEntrypoint,
        copy(
            "requirements.lock",
            Content::Text(python::LOCK.to_owned()),
            0o644,
        ),
        install("--require-hashes ", "requirements.lock"),
    ];
    if let Some(text) = requirements {
        layers.push(copy("requirements.txt", Content::Text(text), 0o644));
        layers.push(install("", "requirements.txt"));
    }
    if !modal.image_commands.is_empty() {
        layers.push(Layer::Run(modal.image_commands.clone()));
    }
    // Last: it changes with each version of modalflow, and the layers before stay as they are.
    layers.push(copy("modalflow-host", Content::At(program), 0o755));
    Image {
        base: modal.image.clone().unwrap_or_else(|| {
            format!(
                "apache/airflow:{}-python{}",
                environment::AIRFLOW_VERSION,
                modal.python_version
            )
        }),
        layers,
    }
}

/// The ports that the two servers listen on inside their containers. Modal would take any; where the emulator's containers share
/// a machine, those of two environments differ.
fn ports(environment: &str) -> (u16, u16) {
    let hash = Sha256::digest(environment.as_bytes());
    let pair = u16::from_be_bytes([hash[0], hash[1]]) % 6_000;
    (20_000 + pair * 2, 20_001 + pair * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_cron_line_where_an_hour_has_whole_ones() {
        let told: Vec<String> = [5, 60, 90, 120, 420, 600, 1800, 3600]
            .map(|seconds| {
                format!(
                    "{seconds}: {:?}",
                    Schedule::every(Duration::from_secs(seconds))
                )
            })
            .to_vec();
        insta::assert_snapshot!(told.join("\n"), @r#"
        5: Seconds(5)
        60: Cron("* * * * *")
        90: Seconds(90)
        120: Cron("*/2 * * * *")
        420: Seconds(420)
        600: Cron("*/10 * * * *")
        1800: Cron("*/30 * * * *")
        3600: Seconds(3600)
        "#);
    }

    #[test]
    fn names_stay_within_modals_64_characters() {
        let longest = "a".repeat(41);
        for name in [
            app_name(&longest),
            volume_name(&longest),
            dict_name(&longest),
            secrets_name(&longest),
            worker_secret_name(&longest),
        ] {
            assert!(name.len() < 64, "{name}");
        }
    }
}
