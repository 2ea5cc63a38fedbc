//! An environment on disk and the processes it stands on: directories, config, keys, Postgres, Python, the UI.
//!
//! Rooms: `home` says where things lie, `config` reads `config.yaml`, `environment` creates, opens and destroys,
//! `postgres` keeps an embedded server (or checks the user's own), `python` makes the interpreter that holds
//! Airflow, `airflow` gives the settings each Airflow process gets, `ui` runs the real `airflow api-server`, `triggerer` the real `airflow triggerer`.
//! It decides nothing about DAGs, runs or tasks, and reads no Airflow table but `alembic_version`.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test ends at the first surprise")
)]

pub mod airflow;
pub mod config;
pub mod container;
mod environment;
mod error;
pub mod home;
mod lock;
pub mod migrate;
pub mod postgres;
pub mod process;
pub mod progress;
pub mod python;
pub mod secrets;
pub mod state;
mod tied;
pub mod triggerer;
pub mod ui;

pub use airflow::{Purpose, airflow_settings};
pub use config::{
    Config, ModalConfig, Placement, SHORTEST_INTERVAL as SHORTEST_INTERVAL_ON_MODAL, Supervisor,
};
pub use environment::{Destroyed, Environment};
pub use error::Error;
pub use home::{Home, Name};
pub use progress::Progress;

/// What every function of this room returns.
pub type Result<T> = std::result::Result<T, Error>;

/// The Airflow that every environment runs.
pub const AIRFLOW_VERSION: &str = "3.3.2";

/// The alembic revision of that Airflow's schema.
pub const SCHEMA_REVISION: &str = "d2f4e1b3c5a7";
