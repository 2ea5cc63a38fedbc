//! DAG files: which there are, parsing in a child without secrets, validation by plugins, Airflow's own sync.
//!
//! Rooms: `discover` walks the folder, `memory` knows which content was parsed before, `parser` keeps the warm Python
//! process that forks a child a file, `walls` is what that process may touch, `verdict` turns a child's end into DAGs
//! or one import-error text, `rules` asks plugins and the scheduler about the DAGs, `syncer` keeps the Python process
//! that writes Airflow's tables, `timetables` the one that asks users' own timetables, `helper` starts both, `plugins` sees
//! when Airflow's plugins change, `deploy` brings files into the folder and takes them out, with `stage` for the check
//! before and `placed` for the way back.
//!
//! A user's Python code is never imported by the host, and Airflow's rows about DAGs are never written by it.

mod answers;
mod deploy;
mod discover;
mod error;
mod frames;
mod helper;
mod memory;
mod parser;
mod placed;
mod plugins;
mod report;
mod rules;
mod settings;
mod stage;
mod sync;
mod syncer;
mod text;
pub mod timetables;
mod triage;
mod verdict;
mod walls;

pub use answers::{Answers, NoAnswers};
pub use deploy::{Deleted, Mode};
pub use error::Error;
pub use report::{FileReport, Outcome, Progress, Step, SyncReport, quiet};
pub use settings::Settings;
pub use sync::{Dags, Which};

/// The name of the bundle that the DAG folder is, as in Airflow's own default configuration.
pub const BUNDLE: &str = "dags-folder";

/// What every function of this room returns.
pub type Result<T> = std::result::Result<T, Error>;
