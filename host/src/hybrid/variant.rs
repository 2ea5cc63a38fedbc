//! What a task may ask for in its `executor_config`, and what a deployment says in the same form.

use modal_api::Resources;
use model::ExecutorConfig;

use super::Error;
use crate::executor::{self, Deployed};

/// Reads an `executor_config`; empty text is none.
pub(super) fn read(text: &str) -> Result<ExecutorConfig, Error> {
    if text.is_empty() {
        return Ok(ExecutorConfig::default());
    }
    let value = serde_json::from_str(text).map_err(Error::NotJson)?;
    ExecutorConfig::read(&value).map_err(Error::ExecutorConfig)
}

/// What every variant of a function keeps of it.
///
/// # Errors
/// [`Error::ExecutorConfig`] when `text`, a JSON object in the form of an `executor_config`, is none.
pub fn deployed(app: &str, environment: &str, text: &str) -> Result<Deployed, Error> {
    let config = read(text)?;
    Ok(Deployed {
        app: app.to_owned(),
        environment: environment.to_owned(),
        resources: executor::resources(&Resources::default(), &config),
        secrets: config.secrets,
        volumes: config.volumes,
        has_images: true,
        ..Deployed::default()
    })
}

#[cfg(test)]
mod tests {
    use super::{deployed, read};
    use crate::executor;
    use crate::hybrid::ended::words;

    fn problem(text: &str) -> String {
        let (problem, hint) = words(&read(text).unwrap_err());
        format!("{problem} [{hint}]")
    }

    #[test]
    fn what_modal_does_not_have_is_refused_by_name() {
        let misspelt = problem(r#"{"memroy": 256}"#);
        assert!(
            misspelt.contains("memroy") && misspelt.contains("memory"),
            "{misspelt}"
        );
        assert!(problem("[]").contains("executor_config"));
    }

    #[test]
    fn a_task_that_asks_for_cores_keeps_the_memory_that_was_deployed() {
        let deployed = deployed("app", "", r#"{"memory": 4096, "gpu": "T4"}"#).unwrap();
        let wanted = executor::resources(&deployed.resources, &read(r#"{"cpu": 2}"#).unwrap());
        assert_eq!(
            (wanted.cpu, wanted.memory_mib, wanted.gpu.as_deref()),
            (Some(2.0), Some(4096), Some("T4:1"))
        );
    }
}
