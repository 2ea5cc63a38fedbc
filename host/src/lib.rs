//! The host: the only part that touches the world. It opens an environment ([`house`]), ticks ([`tick`]), starts
//! calls and learns their fate ([`executor`]), keeps an environment awake ([`serve`]), serves the executor of an Airflow
//! that is not ours ([`hybrid`]) and takes commands ([`cli`]).

mod answers;
pub mod cli;
mod clock;
pub mod dag_files;
pub mod executor;
pub mod house;
pub mod hybrid;
mod local;
mod modal;
mod plugins;
pub mod serve;
pub mod tick;
pub mod timetables;
pub mod triggerer;
