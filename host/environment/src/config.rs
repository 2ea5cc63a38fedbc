//! `config.yaml`: every key an environment has, with its default, and errors that say file, line, key and remedy.

use std::path::Path;
use std::time::Duration;

use crate::postgres::ConnectionString;
use crate::{Error, Result};

mod document;
mod modal;

use document::{Node, Value};
pub use modal::{ModalConfig, PYTHON_VERSIONS, SHORTEST_INTERVAL};

/// The settings of one environment. `Config::default()` is what an empty file means.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `placement`: where scheduling and tasks happen.
    pub placement: Placement,
    /// `modal`: what is deployed there.
    pub modal: ModalConfig,
    /// `database.connection_string`; without it the embedded Postgres is used.
    pub connection_string: Option<ConnectionString>,
    /// `scheduler.interval_seconds`: how often `serve` ticks when nothing happens.
    pub interval: Duration,
    /// `scheduler.parse_timeout_seconds`: wall time for one DAG file.
    pub parse_timeout: Duration,
    /// `executor.parallelism`: tasks that run at once.
    pub parallelism: u32,
    /// `executor.task_timeout`: wall time for one try.
    pub task_timeout: Duration,
    /// `executor.callback_timeout`: wall time for one callback of a DAG, of a lost try or of a deadline.
    pub callback_timeout: Duration,
    /// `worker.supervisor`: whose supervisor runs tasks.
    pub supervisor: Supervisor,
    /// `xcom.inline_bytes`: the largest XCom that Postgres holds itself.
    pub xcom_inline_bytes: u64,
    /// `xcom.max_bytes`: the largest XCom at all.
    pub xcom_max_bytes: u64,
}

/// Where scheduling and tasks happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placement {
    /// On this machine.
    #[default]
    Local,
    /// In functions that `create` deploys on Modal.
    Modal,
}

/// Whose supervisor runs tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervisor {
    /// Ours, in Rust.
    Modalflow,
    /// Airflow's own, in Python.
    Airflow,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            placement: Placement::Local,
            modal: ModalConfig::default(),
            connection_string: None,
            interval: Duration::from_secs(60),
            parse_timeout: Duration::from_secs(5),
            parallelism: 16,
            task_timeout: Duration::from_secs(3600),
            callback_timeout: Duration::from_secs(300),
            supervisor: Supervisor::Modalflow,
            xcom_inline_bytes: 8 * 1024,
            xcom_max_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Every key there is: what an unknown one is compared with.
pub const KEYS: &[&str] = &[
    "placement",
    "database.connection_string",
    "scheduler.interval_seconds",
    "scheduler.parse_timeout_seconds",
    "executor.parallelism",
    "executor.task_timeout",
    "executor.callback_timeout",
    "worker.supervisor",
    "xcom.inline_bytes",
    "xcom.max_bytes",
    "modal.environment",
    "modal.region",
    "modal.routing_region",
    "modal.python_version",
    "modal.image",
    "modal.airflow_python",
    "modal.requirements",
    "modal.images",
    "modal.image_commands",
    "modal.secrets",
    "modal.task_cpu",
    "modal.task_memory",
    "modal.tasks_per_container",
    "modal.idle_seconds",
    "modal.memory_snapshot",
];

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Reads text; `file` is the name that errors use.
    pub fn parse(text: &str, file: &str) -> Result<Config> {
        let mut config = Config::default();
        let root = document::parse(text, file)?;
        let at = |node: &Node| format!("{file}, line {}", node.line);
        for (section, contents) in root.mapping("", file)? {
            if !KEYS
                .iter()
                .any(|key| key.split('.').next() == Some(section))
            {
                return Err(unknown(section, &at(contents)));
            }
            if section == "placement" {
                config.set(section, contents, &at(contents))?;
                continue;
            }
            for (key, node) in contents.mapping(section, file)? {
                config.set(&format!("{section}.{key}"), node, &at(node))?;
            }
        }
        if config.xcom_inline_bytes > config.xcom_max_bytes {
            return Err(Error::Config {
                place: format!("{file}: xcom.inline_bytes"),
                problem: format!(
                    "{} is more than xcom.max_bytes, {}",
                    config.xcom_inline_bytes, config.xcom_max_bytes
                ),
                hint: "make xcom.inline_bytes smaller or xcom.max_bytes larger".to_owned(),
            });
        }
        if config.placement == Placement::Modal {
            config.check_modal(file)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, node: &Node, place: &str) -> Result<()> {
        let value = Setting { key, node, place };
        match key {
            "database.connection_string" => self.connection_string = value.connection_string()?,
            "scheduler.interval_seconds" => {
                self.interval = Duration::from_secs(value.whole(1, 86_400)?);
            }
            "scheduler.parse_timeout_seconds" => {
                self.parse_timeout = value.seconds(0.1, 3_600.0)?;
            }
            "executor.parallelism" => {
                // The range ends at 4096, so it always fits.
                self.parallelism = u32::try_from(value.whole(1, 4_096)?).unwrap_or(4_096);
            }
            "executor.task_timeout" => {
                self.task_timeout = Duration::from_secs(value.whole(1, 30 * 86_400)?);
            }
            "executor.callback_timeout" => {
                self.callback_timeout = Duration::from_secs(value.whole(1, 86_400)?);
            }
            "worker.supervisor" => self.supervisor = value.supervisor()?,
            "xcom.inline_bytes" => self.xcom_inline_bytes = value.whole(0, 1 << 20)?,
            "xcom.max_bytes" => self.xcom_max_bytes = value.whole(1, 4 << 30)?,
            "placement" => self.placement = value.placement()?,
            _ if key.starts_with("modal.") => return self.modal.set(&value),
            _ => return Err(unknown(key, place)),
        }
        Ok(())
    }
}

/// One value of the file and all that an error about it says.
struct Setting<'a> {
    key: &'a str,
    node: &'a Node,
    place: &'a str,
}

impl Setting<'_> {
    fn wrong(&self, expected: &str) -> Error {
        // A connection string may hold a password, so its value is not shown.
        let found = if self.key == "database.connection_string" {
            self.node.value.kind().to_owned()
        } else {
            self.node.value.to_string()
        };
        Error::Config {
            place: format!("{}: {}", self.place, self.key),
            problem: format!("expected {expected}, found {found}"),
            hint: format!("for example `{}: {}`", short(self.key), example(self.key)),
        }
    }

    fn whole(&self, least: u64, most: u64) -> Result<u64> {
        match self.node.value {
            Value::Whole(number) if (i128::from(least)..=i128::from(most)).contains(&number) => {
                u64::try_from(number).map_err(|_| self.wrong("a whole number"))
            }
            _ => Err(self.wrong(&format!("a whole number from {least} to {most}"))),
        }
    }

    fn seconds(&self, least: f64, most: f64) -> Result<Duration> {
        let number = match self.node.value {
            Value::Whole(number) => number as f64,
            Value::Fraction(number) => number,
            _ => f64::NAN,
        };
        if (least..=most).contains(&number) {
            Ok(Duration::from_secs_f64(number))
        } else {
            Err(self.wrong(&format!("a number of seconds from {least} to {most}")))
        }
    }

    fn supervisor(&self) -> Result<Supervisor> {
        match &self.node.value {
            Value::Text(text) if text == "modalflow" => Ok(Supervisor::Modalflow),
            Value::Text(text) if text == "airflow" => Ok(Supervisor::Airflow),
            _ => Err(self.wrong("modalflow or airflow")),
        }
    }

    fn placement(&self) -> Result<Placement> {
        match &self.node.value {
            Value::Text(text) if text == "local" => Ok(Placement::Local),
            Value::Text(text) if text == "modal" => Ok(Placement::Modal),
            _ => Err(self.wrong("local or modal")),
        }
    }

    fn text(&self) -> Result<String> {
        match &self.node.value {
            Value::Text(text) if !text.trim().is_empty() => Ok(text.clone()),
            // `3.12` without quotes is a number to YAML.
            Value::Fraction(number) => Ok(number.to_string()),
            _ => Err(self.wrong("text")),
        }
    }

    fn text_or_none(&self) -> Result<Option<String>> {
        match self.node.value {
            Value::Null => Ok(None),
            _ => self.text().map(Some),
        }
    }

    fn texts(&self) -> Result<Vec<String>> {
        let Value::List(items) = &self.node.value else {
            return Err(self.wrong("a list of texts"));
        };
        items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) if !text.trim().is_empty() && !text.contains('\n') => {
                    Ok(text.clone())
                }
                _ => Err(self.wrong("a list of texts of one line each")),
            })
            .collect()
    }

    fn number(&self, least: f64, most: f64) -> Result<f64> {
        let number = match self.node.value {
            Value::Whole(number) => number as f64,
            Value::Fraction(number) => number,
            _ => f64::NAN,
        };
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong(&format!("a number from {least} to {most}")))
        }
    }

    fn truth(&self) -> Result<bool> {
        match self.node.value {
            Value::Truth(truth) => Ok(truth),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn connection_string(&self) -> Result<Option<ConnectionString>> {
        match &self.node.value {
            Value::Null => Ok(None),
            Value::Text(text) => match ConnectionString::parse(text) {
                Ok(parsed) => Ok(Some(parsed)),
                Err(Error::NotPostgres { scheme }) => Err(Error::Config {
                    place: format!("{}: {}", self.place, self.key),
                    problem: format!("modalflow needs Postgres, found a {scheme} URL"),
                    hint: "it begins with postgresql:// ; without the key an embedded Postgres is used"
                        .to_owned(),
                }),
                Err(Error::ConnectionString { problem }) => Err(Error::Config {
                    place: format!("{}: {}", self.place, self.key),
                    problem,
                    hint: format!("for example `{}`", example(self.key)),
                }),
                Err(other) => Err(other),
            },
            _ => Err(self.wrong("a postgresql:// URL")),
        }
    }
}

fn short(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn example(key: &str) -> &'static str {
    match key {
        "database.connection_string" => "postgresql://user:password@host:5432/airflow",
        "scheduler.interval_seconds" => "60",
        "scheduler.parse_timeout_seconds" => "5",
        "executor.parallelism" => "16",
        "executor.task_timeout" => "3600",
        "executor.callback_timeout" => "300",
        "worker.supervisor" => "modalflow",
        "xcom.inline_bytes" => "8192",
        "placement" => "modal",
        _ if key.starts_with("modal.") => modal::example(key),
        _ => "268435456",
    }
}

/// An unknown section or `section.key`, with the nearest known one.
fn unknown(key: &str, place: &str) -> Error {
    let candidates: Vec<&str> = if key.contains('.') {
        KEYS.to_vec()
    } else {
        // A known key at the top level was probably meant to be in its section.
        KEYS.iter()
            .flat_map(|full| full.split('.').take(1).chain([*full]))
            .collect()
    };
    let likeness = |candidate: &str| {
        let whole = strsim::jaro_winkler(key, candidate);
        whole.max(strsim::jaro_winkler(short(key), short(candidate)))
    };
    let nearest = candidates
        .iter()
        .map(|candidate| (likeness(candidate), *candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((likeness, candidate)) if likeness > 0.75 => format!("did you mean {candidate}?"),
        _ => format!("the keys are {}", KEYS.join(", ")),
    };
    Error::Config {
        place: place.to_owned(),
        problem: format!("unknown key {key:?}"),
        hint,
    }
}

#[cfg(test)]
mod tests;
