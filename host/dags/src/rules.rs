//! What must hold for a DAG beyond that it imports: its ids, what the scheduler can do, what the validators say.

use model::ExecutorConfig;
use plugin_host::{DagValidator, DagView, Finding, Operation, Severity, ValidationRequest};

use crate::BUNDLE;
use crate::verdict::{Failure, Parsed, ParsedDag};

/// Checks all DAGs of a file. Answers the warnings; one error text for all that blocks.
pub(crate) async fn check(
    path: &str,
    source: &str,
    parsed: &Parsed,
    operation: Operation,
    validator: &dyn DagValidator,
    images: &[String],
) -> Result<Vec<String>, Failure> {
    let mut errors = Vec::new();
    let mut warnings = parsed.warnings.clone();
    for (index, dag) in parsed.dags.iter().enumerate() {
        if parsed.dags[..index]
            .iter()
            .any(|other| other.dag_id == dag.dag_id)
        {
            errors.push(format!("the file holds the DAG {:?} twice", dag.dag_id));
        }
        errors.extend(check_ids(dag));
        for missing in scheduler::supported::check(&dag.dag) {
            errors.push(format!(
                "the DAG {} needs {}, which is not supported\nhint: {}",
                dag.dag_id, missing.what, missing.hint
            ));
        }
        errors.extend(check_executor_configs(dag, images));
        let request = ValidationRequest {
            operation,
            bundle: BUNDLE.to_owned(),
        };
        let view = DagView {
            serialized: dag.data.clone(),
            source: Some(source.to_owned()),
            file: path.to_owned(),
        };
        match validator.validate(request, view, None).await {
            Err(error) => errors.push(format!("the rules could not be checked: {error}")),
            Ok(findings) => {
                for finding in findings {
                    let text = describe(&dag.dag_id, &finding);
                    match finding.severity {
                        Severity::Error => errors.push(text),
                        Severity::Warning => warnings.push(text),
                        Severity::Info => {}
                    }
                }
            }
        }
    }
    if errors.is_empty() {
        Ok(warnings)
    } else {
        Err(Failure::new(errors.join("\n\n")))
    }
}

fn no_image(name: &str, images: &[String]) -> (String, String) {
    let there = match images {
        [] => "there is none yet".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    (
        format!("executor_config: the environment has no image {name:?}"),
        format!("images are made under modal.images in config.yaml; {there}"),
    )
}

/// What tasks ask of their containers.
fn check_executor_configs(dag: &ParsedDag, images: &[String]) -> Vec<String> {
    dag.dag
        .tasks
        .iter()
        .filter_map(|task| {
            let (problem, hint) = match ExecutorConfig::read(&task.executor_config) {
                Ok(config) => match config.image {
                    Some(image) if !images.contains(&image) => no_image(&image, images),
                    _ => return None,
                },
                Err(problem) => (problem.to_string(), problem.hint),
            };
            Some(format!(
                "the task {} of the DAG {}: {problem}\nhint: {hint}",
                task.task_id, dag.dag_id
            ))
        })
        .collect()
}

fn describe(dag_id: &str, finding: &Finding) -> String {
    let mut text = format!("{}: {} (DAG {dag_id}", finding.code, finding.message);
    if let Some(task_id) = &finding.task_id {
        text.push_str(&format!(", task {task_id}"));
    }
    if let Some(line) = finding.line {
        text.push_str(&format!(", line {line}"));
    }
    text.push(')');
    if let Some(help) = &finding.help {
        text.push_str(&format!("\nhint: {help}"));
    }
    text
}

/// airflow: utils.helpers.validate_key, as it is meant: the Task SDK lets through what its regular expression, open at
/// the end, does not see.
fn check_ids(dag: &ParsedDag) -> Vec<String> {
    let tasks = dag.data["dag"]["tasks"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let task_ids = tasks
        .iter()
        .filter_map(|task| task["__var"]["task_id"].as_str());
    std::iter::once(("dag_id", dag.dag_id.as_str()))
        .chain(task_ids.map(|id| ("task_id", id)))
        .filter_map(|(what, id)| {
            let problem = id_problem(id)?;
            Some(format!(
                "the {what} {id:?} {problem}\nhint: use letters, digits, dashes, dots and underscores"
            ))
        })
        .collect()
}

fn id_problem(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        Some("is empty")
    } else if id.chars().count() > 250 {
        Some("is longer than 250 characters")
    } else if id == "." || id.contains("..") {
        Some("is made of dots that a path would take for a way up")
    } else if !id
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
    {
        Some("has characters that are not allowed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_airflow_lets_through_are_refused() {
        let ids = [
            "a.b-c_1", "ünï", "", ".", "..", "a..b", "a\n", "a b", "a/b", "-rf",
        ];
        let lines: Vec<String> = ids
            .iter()
            .map(|id| format!("{id:?}: {}", id_problem(id).unwrap_or("good")))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        "a.b-c_1": good
        "ünï": good
        "": is empty
        ".": is made of dots that a path would take for a way up
        "..": is made of dots that a path would take for a way up
        "a..b": is made of dots that a path would take for a way up
        "a\n": has characters that are not allowed
        "a b": has characters that are not allowed
        "a/b": has characters that are not allowed
        "-rf": good
        "#);
    }
}
