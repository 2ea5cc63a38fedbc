//! Callbacks that run outside the task they are about: Airflow's table `callback`, and our queue of those that still have
//! to run.
//!
//! A trigger of `schema.sql` puts every row that has to run into `modalflow.callback_call`, whoever wrote it: the tick
//! ([`requests`]), the triggerer, an api-server. [`calls`] hands them to the executor, [`claims`] to the one worker that runs each.

pub mod calls;
pub mod claims;
pub mod requests;
