//! The DAG folder of an environment: the `dags` room with everything it needs from the others.

use std::sync::Arc;

use dags::{Dags, Settings};
use environment::{Environment, Progress, Purpose, airflow_settings, python};
use execution_api::Secrets;
use sqlx::PgPool;

use crate::answers::FromDatabase;
use crate::plugins;

/// Why the DAG folder can't be worked on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Plugin(#[from] plugin_host::Error),
    #[error(transparent)]
    Dags(#[from] dags::Error),
    #[error(transparent)]
    Key(#[from] execution_api::UnusableKey),
}

/// Opens the folder. No Python starts before a file has to be parsed.
///
/// # Errors
/// When Python or a plugin can't be made ready.
pub async fn open(
    environment: &Environment,
    pool: PgPool,
    progress: &dyn Progress,
) -> Result<Dags, Error> {
    let python = python::ensure(environment.home(), progress).await?;
    let host = plugins::host(environment)?;
    let validator = plugins::dag_validator(&host).await?;
    let mut settings = Settings::new(
        environment.dags_dir(),
        environment.run_dir().join("dags"),
        python.python.clone(),
    );
    settings.python_key = python.python.display().to_string();
    settings.images = environment.config().modal.images.keys().cloned().collect();
    settings.rules_key = format!(
        "dag-rules {} {}",
        env!("CARGO_PKG_VERSION"),
        settings.images.join(" ")
    );
    settings.parse_timeout = environment.config().parse_timeout;
    settings.parser_environment = process_environment(environment, Purpose::DagParser);
    settings.sync_environment = process_environment(environment, Purpose::DagSync);
    let answers = FromDatabase {
        pool: pool.clone(),
        secrets: Secrets::new(&environment.secrets().fernet_key)?,
    };
    Ok(Dags::new(settings, pool, validator).with_answers(Arc::new(answers)))
}

/// Airflow's settings and the little that a Python needs of ours.
pub(crate) fn process_environment(
    environment: &Environment,
    purpose: Purpose,
) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> =
        airflow_settings(environment, purpose).into_iter().collect();
    for name in ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"] {
        if let Ok(value) = std::env::var(name) {
            variables.push((name.to_owned(), value));
        }
    }
    variables
}
