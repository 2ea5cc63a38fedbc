//! What the room is told once: where things lie and which limits hold. It reads no config and no environment itself.

use std::path::PathBuf;
use std::time::Duration;

/// Built by the caller from the environment and its config.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The DAG folder: `volume/dags`.
    pub folder: PathBuf,
    /// A private directory of ours, for sockets' sake not needed to be short; made if it is missing.
    pub scratch: PathBuf,
    /// The interpreter that has Airflow.
    pub python: PathBuf,
    /// Changes when the Python environment does: all files are parsed again then.
    pub python_key: String,
    /// Changes when the validators or their settings do.
    pub rules_key: String,
    /// Names of images that tasks may ask for.
    pub images: Vec<String>,
    /// Wall-clock limit of one file.
    pub parse_timeout: Duration,
    /// How much memory one file may take beyond what the warm process has mapped.
    pub parse_memory: u64,
    /// Files parsed at once.
    pub parallel: usize,
    /// Modules that the warm process imports before it forks.
    pub preload: Vec<String>,
    /// The parser's whole environment. It must hold no secret and no database.
    pub parser_environment: Vec<(String, String)>,
    /// More of what the parser may read, such as Airflow's plugins folder.
    pub parser_may_read: Vec<PathBuf>,
    /// The whole environment of the process that writes, which has the database's URL.
    pub sync_environment: Vec<(String, String)>,
}

impl Settings {
    /// With the defaults: 5 s and 1 GiB a file, one file a core, the standard provider imported.
    #[must_use]
    pub fn new(folder: PathBuf, scratch: PathBuf, python: PathBuf) -> Self {
        Self {
            folder,
            scratch,
            python,
            python_key: String::new(),
            rules_key: String::new(),
            images: Vec::new(),
            parse_timeout: Duration::from_secs(5),
            parse_memory: 1 << 30,
            parallel: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            preload: PRELOAD.iter().map(|&name| name.to_owned()).collect(),
            parser_environment: Vec::new(),
            parser_may_read: Vec::new(),
            sync_environment: Vec::new(),
        }
    }
}

const PRELOAD: [&str; 9] = [
    "airflow.providers.standard.decorators.bash",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.branch",
    "airflow.providers.standard.operators.datetime",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.providers.standard.sensors.external_task",
    "airflow.providers.standard.sensors.python",
];
