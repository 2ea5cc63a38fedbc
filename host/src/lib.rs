//! The host: the only part that touches the world. It opens an environment ([`house`]), ticks ([`tick`]), starts
//! calls and learns their fate ([`executor`]), keeps an environment awake ([`serve`]) and takes commands ([`cli`]).

mod answers;
pub mod cli;
mod clock;
pub mod dag_files;
pub mod executor;
pub mod house;
mod local;
mod modal;
mod plugins;
pub mod serve;
pub mod tick;
pub mod timetables;
pub mod triggerer;
