//! Claims about every validator.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Check, Outcome, check, unexpected};
use crate::{DagValidator, DagView, Finding, Operation, Severity, ValidationRequest};

pub async fn dag_validator(validator: &dyn DagValidator) -> Vec<Check> {
    vec![
        check(
            "rules have codes of their own and say what they are about",
            rules(validator).await,
        ),
        check(
            "findings name rules that are declared",
            codes(validator).await,
        ),
        check(
            "the same Dag gets the same findings",
            repeatable(validator).await,
        ),
        check(
            "a Dag of no sensible shape is judged, not crashed on",
            strange(validator).await,
        ),
        check("5,000 tasks are judged in time", wide(validator).await),
    ]
}

fn view(dag: Value) -> DagView {
    DagView {
        serialized: json!({ "__version": 3, "dag": dag }),
        source: Some("# nothing\n".to_owned()),
        file: "conformance.py".to_owned(),
    }
}

fn task(id: &str) -> Value {
    json!({ "__type": "operator", "__var": {
        "task_id": id, "task_type": "BashOperator", "_task_module": "airflow.providers.standard.operators.bash",
        "retries": 2, "retry_delay": 300.0, "downstream_task_ids": []
    } })
}

fn ordinary() -> DagView {
    view(
        json!({ "dag_id": "conformance", "tags": ["a"], "tasks": [task("extract"), task("load")] }),
    )
}

fn hostile() -> DagView {
    let ids = ["../../etc/passwd", "a\nb", "", "x y"];
    let tasks: Vec<Value> = ids.into_iter().map(task).collect();
    view(json!({ "dag_id": "..", "tasks": tasks }))
}

async fn validate(
    validator: &dyn DagValidator,
    dag: DagView,
    previous: Option<DagView>,
) -> Result<Vec<Finding>, String> {
    let request = ValidationRequest {
        operation: Operation::Check,
        bundle: "conformance".to_owned(),
    };
    validator
        .validate(request, dag, previous)
        .await
        .map_err(unexpected)
}

async fn rules(validator: &dyn DagValidator) -> Outcome {
    let rules = validator.rules().await.map_err(unexpected)?;
    let mut seen = BTreeSet::new();
    for rule in &rules {
        if rule.code.is_empty() || rule.summary.is_empty() || !seen.insert(&rule.code) {
            return Err(format!("{rule:?}"));
        }
    }
    match rules.len() {
        0 => Err("no rules".to_owned()),
        _ => Ok(()),
    }
}

async fn codes(validator: &dyn DagValidator) -> Outcome {
    let rules = validator.rules().await.map_err(unexpected)?;
    for dag in [ordinary(), hostile()] {
        for finding in validate(validator, dag, None).await? {
            if !rules.iter().any(|rule| rule.code == finding.code) {
                return Err(format!("{finding:?}"));
            }
        }
    }
    Ok(())
}

async fn repeatable(validator: &dyn DagValidator) -> Outcome {
    for dag in [ordinary(), hostile()] {
        let first = validate(validator, dag.clone(), None).await?;
        let second = validate(validator, dag.clone(), Some(dag)).await?;
        let errors = |findings: &[Finding]| -> Vec<String> {
            let errors = findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error);
            errors.map(|finding| format!("{finding:?}")).collect()
        };
        if errors(&first) != errors(&second) {
            return Err(format!("{first:?} and then {second:?}"));
        }
    }
    Ok(())
}

async fn strange(validator: &dyn DagValidator) -> Outcome {
    let shapes = [
        json!(null),
        json!({}),
        json!({ "dag_id": 7, "tasks": "none", "tags": {} }),
        json!({ "dag_id": "d", "tasks": [null, 1, {}, {"__var": null}, {"__var": {"task_id": 1}}, task("t"), task("t")] }),
    ];
    for shape in shapes {
        validate(validator, view(shape.clone()), None)
            .await
            .map_err(|error| format!("{shape}: {error}"))?;
    }
    Ok(())
}

async fn wide(validator: &dyn DagValidator) -> Outcome {
    let tasks: Vec<Value> = (0..5000).map(|n| task(&format!("task {n}"))).collect();
    validate(
        validator,
        view(json!({ "dag_id": "wide", "tasks": tasks })),
        None,
    )
    .await?;
    Ok(())
}
