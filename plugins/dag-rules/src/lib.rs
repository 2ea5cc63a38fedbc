//! Rules on names, owners, tags and retries of Dags.
//!
//! Without settings only what would break elsewhere is an error: ids that cannot stand in a path or a URL. House rules (who may
//! own a task, which tags a Dag needs) are errors because somebody asked for them.

mod rules;
mod source;

use modalflow_plugin::dag_validator::validator::{Finding, Request, Rule, Severity};
use modalflow_plugin::dag_validator::{export, plugin, validator};
use modalflow_plugin::dags::Dag;
use modalflow_plugin::{Error, read_settings, settings_error};
use serde::Deserialize;

use crate::rules::Facts;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Each task must have an owner that is not Airflow's default.
    require_owner: bool,
    /// When given, each task's owner must be one of these.
    allowed_owners: Vec<String>,
    /// A Dag needs a tag that is, or starts with, each of these.
    required_tags: Vec<String>,
}

const SETTINGS_SCHEMA: &str = r#"{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "require_owner": {
      "type": "boolean", "default": false,
      "description": "Each task must have an owner that is not Airflow's default."
    },
    "allowed_owners": {
      "type": "array", "items": {"type": "string"}, "default": [],
      "description": "When given, each task's owner must be one of these."
    },
    "required_tags": {
      "type": "array", "items": {"type": "string"}, "default": [],
      "description": "A Dag needs a tag that is, or starts with, each of these."
    }
  }
}"#;

struct DagRules;

impl plugin::Guest for DagRules {
    fn describe() -> plugin::Manifest {
        plugin::Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            wishes: Vec::new(),
            settings_schema: SETTINGS_SCHEMA.to_owned(),
        }
    }

    fn check_settings(settings: String) -> Vec<plugin::Problem> {
        let wrong = settings_error::<Settings>(&settings);
        wrong
            .into_iter()
            .map(|message| plugin::Problem {
                pointer: String::new(),
                message,
            })
            .collect()
    }
}

impl validator::Guest for DagRules {
    fn rules() -> Vec<Rule> {
        let rule = |(code, severity, summary): &(&str, Severity, &str)| Rule {
            code: (*code).to_owned(),
            summary: (*summary).to_owned(),
            severity: *severity,
        };
        rules::ALL.iter().map(rule).collect()
    }

    fn validate(
        _request: Request,
        dag: &Dag,
        _previous: Option<&Dag>,
    ) -> Result<Vec<Finding>, Error> {
        let settings: Settings = read_settings()?;
        Ok(rules::check(&facts(dag), &settings))
    }
}

/// What the rules look at.
fn facts(dag: &Dag) -> Facts {
    let tasks = dag.task_ids().into_iter().map(|id| {
        let task = dag.task(&id);
        let retry_delay = task.as_ref().and_then(|task| {
            task.get("/retry_delay")
                .or_else(|| task.get("/partial_kwargs/retry_delay"))
        });
        rules::Task {
            owner: task.as_ref().map(|task| task.owner()).unwrap_or_default(),
            retries: task.as_ref().map_or(0, |task| task.retries()),
            retry_delay: retry_delay.and_then(|seconds| seconds.parse().ok()),
            id,
        }
    });
    Facts {
        tasks: tasks.collect(),
        dag_id: dag.id(),
        tags: dag.tags(),
        source: dag.source(),
    }
}

export!(DagRules);
