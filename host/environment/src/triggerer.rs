//! The real `airflow triggerer` on the environment's database, for as long as somebody holds the `Triggerer`. Deferred
//! tasks wait in it, in one process, whatever they wait for.

use std::path::PathBuf;

use crate::airflow::Purpose;
use crate::progress::Progress;
use crate::tied::Tied;
use crate::{Environment, Result, python};

/// A running triggerer. Dropped, it ends; what it waited for is taken up by the next one.
#[derive(Debug)]
pub struct Triggerer {
    /// What it says.
    pub log: PathBuf,
    process: Tied,
}

/// Starts the triggerer; it takes a few seconds until it looks at triggers.
pub async fn start(environment: &Environment, progress: &dyn Progress) -> Result<Triggerer> {
    let python = python::ensure(environment.home(), progress).await?;
    let process = Tied::start(
        environment,
        &python,
        "triggerer",
        Purpose::DagSync,
        &["triggerer", "--skip-serve-logs"],
        &[],
    )?;
    Ok(Triggerer {
        log: process.log.clone(),
        process,
    })
}

impl Triggerer {
    /// Ends it.
    pub async fn stop(self) {
        self.process.stop().await;
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.process.ended.borrow().is_some()
    }
}
