//! `dag-rules` on Dags as Airflow 3.3 serializes them.

use plugin_host::{DagView, Finding, Operation, ValidationRequest};
use serde_json::{Value, json};

use crate::House;

async fn findings(settings: Value, serialized: Value, source: &str) -> String {
    let house = House::new();
    let validator = house
        .load("dag-rules", settings)
        .await
        .unwrap()
        .dag_validator()
        .unwrap();
    let request = ValidationRequest {
        operation: Operation::Create,
        bundle: "dags-folder".to_owned(),
    };
    let dag = DagView {
        serialized,
        source: Some(source.to_owned()),
        file: "etl.py".to_owned(),
    };
    let findings = validator.validate(request, dag, None).await.unwrap();
    let line = |finding: &Finding| {
        let task = finding
            .task_id
            .as_ref()
            .map_or_else(String::new, |id| format!(" task {id:?}"));
        let line = finding
            .line
            .map_or_else(String::new, |line| format!(" line {line}"));
        format!(
            "{} {:?}{task}{line}: {}",
            finding.code, finding.severity, finding.message
        )
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn dag(dag_id: &str, tags: &[&str], tasks: &[Value]) -> Value {
    json!({ "__version": 3, "dag": {
        "dag_id": dag_id, "fileloc": "/dags/etl.py", "tags": tags, "tasks": tasks,
        "timetable": {"__type": "airflow.timetables.simple.NullTimetable", "__var": {}}
    } })
}

/// As Airflow writes them: what is at its default is left out.
fn task(id: &str, more: Value) -> Value {
    let mut body = json!({
        "task_id": id, "task_type": "BashOperator", "_task_module": "airflow.providers.standard.operators.bash",
        "retry_delay": 300.0, "bash_command": "echo"
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "__type": "operator", "__var": body })
}

#[tokio::test]
async fn an_ordinary_dag_has_no_findings() {
    let tasks = [
        task("extract", json!({})),
        task("group.load", json!({"owner": "me", "retries": 2})),
    ];
    let found = findings(
        json!({}),
        dag("etl-1.größe", &[], &tasks),
        "retry_delay=timedelta(minutes=5)",
    )
    .await;
    assert_eq!(found, "");
}

#[tokio::test]
async fn hostile_ids_are_errors() {
    let ids = ["../../etc/passwd", "a\nb", "x y", &"t".repeat(251)];
    let tasks: Vec<Value> = ids.into_iter().map(|id| task(id, json!({}))).collect();
    let source = "with DAG('..'):\n    Bash(task_id='x y')\n";
    let found = findings(json!({}), dag("..", &[], &tasks), source).await;
    insta::assert_snapshot!(found.replace(&"t".repeat(251), "[251 characters]"), @r#"
    ID001 Error task "../../etc/passwd": task_id "../../etc/passwd" has '/' in it
    ID001 Error task "x y" line 2: task_id "x y" has ' ' in it
    ID002 Error line 1: dag_id ".." has `..` or a control character in it
    ID002 Error task "../../etc/passwd": task_id "../../etc/passwd" has `..` or a control character in it
    ID002 Error task "a\nb": task_id "a\nb" has `..` or a control character in it
    ID003 Error task "[251 characters]": task_id has 251 characters; 1 to 250 are allowed
    "#);
}

#[tokio::test]
async fn habits_are_warned_about_and_never_block() {
    let mapped = json!({"_is_mapped": true, "partial_kwargs": {"owner": "a, a", "retries": 200, "retry_delay": 1.0}, "retry_delay": null});
    let tasks = [
        task("eager", json!({"retries": 3, "retry_delay": 0.0})),
        task("default", json!({"retries": 3})),
        task("mapped", mapped),
        task("nobody", json!({"owner": ""})),
    ];
    let found = findings(json!({}), dag("etl", &[], &tasks), "x = 1\n").await;
    insta::assert_snapshot!(found, @r#"
    OWN001 Warning task "mapped": the owner "a, a" is empty or has a name twice
    OWN001 Warning task "nobody": the owner "" is empty or has a name twice
    RET001 Warning task "eager": 3 retries follow each other without a pause
    RET002 Info task "default": 3 retries wait for Airflow's default of five minutes each
    RET003 Warning task "mapped": 200 retries are a lot
    "#);
}

#[tokio::test]
async fn house_rules_come_from_settings() {
    let settings = json!({"require_owner": true, "allowed_owners": ["ann", "bob"], "required_tags": ["team:", "tier1"]});
    let tasks = [
        task("a", json!({})),
        task("b", json!({"owner": "ann"})),
        task("c", json!({"owner": "eve"})),
    ];
    let found = findings(settings, dag("etl", &["team:data"], &tasks), "").await;
    insta::assert_snapshot!(found, @r#"
    OWN002 Error task "a": the task has no owner of its own
    OWN003 Error task "a": the owner "airflow" is not allowed here
    OWN003 Error task "c": the owner "eve" is not allowed here
    TAG001 Error: the Dag has no tag "tier1"
    "#);
}
