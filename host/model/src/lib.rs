//! Airflow's nouns: states, keys, rows and the serialized DAG. It reads no clock, no files and no
//! database, and it decides nothing.
//!
//! Names are Airflow's own (3.3.2): what a column is called there, a field is called here.

mod asset_condition;
mod dag_run;
mod error;
pub mod executor_config;
mod expand_input;
mod rules;
mod serialized_dag;
mod states;
mod task_instance;

pub use asset_condition::AssetCondition;
pub use dag_run::DagRun;
pub use error::Error;
pub use executor_config::ExecutorConfig;
pub use expand_input::{ExpandInput, MappedArgument, XComArg};
pub use rules::{TriggerRule, WeightRule};
pub use serialized_dag::{
    GroupIndex, Param, SerializedDag, SerializedTask, TaskGroup, TaskIndex, TimetableData,
};
pub use states::{DagRunState, DagRunTriggeredBy, DagRunType, TaskInstanceState, UnknownName};
pub use task_instance::{NewTaskInstance, TaskInstance, TaskInstanceKey};
