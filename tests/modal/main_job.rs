//! The main job, on Modal: deploy, bring a DAG in, run it to success in Modal's own container runtime, look at what it left.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use serde_json::json;

use crate::cloud::{Cloud, Environment};

const DAG: &str = r#"
import json, os
from airflow.sdk import dag, task

@dag(schedule=None)
def on_modal():
    @task
    def first():
        print("a line from a container")
        return list(range(5))

    @task(executor_config={"image": "pandas", "cpu": 1, "env": {"PADDING": "x"}})
    def large(numbers):
        return os.environ["PADDING"] * 20_000 + str(sum(numbers))

    @task
    def last(text):
        # A task's whole environment, for whoever looks for what should not be in it.
        print("ENVIRONMENT " + json.dumps(dict(os.environ)))
        return len(text)

    last(large(first()))

on_modal()
"#;

#[test]
fn a_dag_runs_to_success_and_leaves_nothing() {
    let cloud = Cloud::start();
    let name = Environment::unique();
    let _ = cloud.modal(
        &["secret", "create", "warehouse", "A=b", "--env", "staging"],
        Path::new("/"),
    );
    let mut here = Environment::prepare(
        &cloud,
        &name,
        "scheduler: {interval_seconds: 3600}\nmodal:\n  idle_seconds: 30\n  secrets: [warehouse]\n  images: {pandas: [echo 1]}",
/// Its first try ends the program that runs tasks in its container.
const FATAL: &str = r#"
import datetime, os, pathlib, signal, time
from airflow.sdk import dag, task

@dag(schedule=None)
def fatal():
    @task(retries=1, retry_delay=datetime.timedelta(0))
    def ends_its_worker():
        seen = pathlib.Path("SEEN")
        container = os.environ["MODAL_TASK_ID"]
        if not seen.exists():
            seen.write_text(container)
            parents = pathlib.Path(f"/proc/{os.getppid()}/status").read_text().split()
            os.kill(int(parents[parents.index("PPid:") + 1]), signal.SIGKILL)
            time.sleep(60)
        return [seen.read_text(), container]

    ends_its_worker()

fatal()
"#;

    );
    here.there = "staging";
    let _ = here.create_in_modals_environment("staging").ok();

    let file = cloud.folder.path().join("on_modal.py");
    std::fs::write(&file, DAG).unwrap();
    here.upload(&file);
    let (run_id, state) = here.trigger("on_modal");
    let tasks = here.run(&["tasks", "list", "--dag-id", "on_modal"]);
    assert_eq!(
        state,
        "success",
        "{tasks}\n{}",
        here.log("on_modal", "first")
    );

    let log = here.log("on_modal", "first");
    assert!(log.contains("a line from a container"), "{log}");
    let xcom = |task: &str| {
        here.run(&["xcom", "get", "--dag-id", "on_modal", "--task-id", task])
            .json()
    };
    assert_eq!(xcom("first"), json!([0, 1, 2, 3, 4]));
    // Too large for the row: it lies on the volume.
    assert_eq!(xcom("large").as_str().unwrap().len(), 20_002);
    assert_eq!(xcom("last"), json!(20_002));
    no_secret_reaches_a_task(&here, &here.log("on_modal", "last"));
    successors_start_at_once(&here, &run_id);

    let said = here.create(&[]);
    assert!(said.stderr.contains("nothing to change"), "{said}");

    // Not in Modal's default environment: what runs in a container finds its own.
    let _ = cloud.modal(&["environment", "create", "staging"], Path::new("/"));
    let said = here.destroy().stderr;
    for line in [
        "stopped app",
        "deleted volume",
        "deleted dict",
        "deleted secret",
    ] {
        assert!(said.contains(line), "{said}");
    a_container_ends_with_its_worker(&here);
    }
    assert!(
        said.contains("Airflow's own tables there were left as they are"),
        "{said}"
    );
    for kind in ["volume", "dict", "secret"] {
        for environment in ["main", "staging"] {
            let left = cloud.modal(
                &[kind, "list", "--env", environment, "--json"],
                Path::new("/"),
            );
            assert!(!left.contains(&name), "{left}");
        }
    }
}

/// Neither the database nor a key nor a token: not the names of the variables, and not what they say.
fn no_secret_reaches_a_task(here: &Environment<'_>, log: &str) {
    let line = log
        .lines()
        .find(|line| line.contains("ENVIRONMENT "))
        .unwrap_or_else(|| panic!("{log}"));
    let shown = here.run(&["env", "show", "--output", "json"]).json();
    let root = Path::new(shown["root"].as_str().unwrap()).to_owned();
    let secrets: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.join("secrets.json")).unwrap()).unwrap();
    let mut forbidden: Vec<String> = secrets
        .as_object()
        .unwrap()
        .values()
        .map(|secret| secret.as_str().unwrap().to_owned())
        .collect();
    forbidden.push(here.database.url.clone());
    forbidden.push(here.database.name.clone());
    for name in ["MODALFLOW_KEYS", "FERNET", "JWT_SECRET", "MODAL_TOKEN"] {
        forbidden.push(name.to_owned());
    }
    for word in forbidden {
        assert!(!line.contains(&word), "a task sees {word}");
    }
}

/// A task's end asks for a tick: nobody waited for the schedule's next one.
fn successors_start_at_once(here: &Environment<'_>, run_id: &str) {
    let waited: Vec<f64> = here.cloud.runtime.block_on(async {
        sqlx::query_scalar(
            "SELECT extract(epoch FROM after.queued_dttm - before.end_date)::float8 \
             FROM task_instance before, task_instance after \
             WHERE before.run_id = $1 AND after.run_id = $1 \
             AND (before.task_id, after.task_id) IN (('first', 'large'), ('large', 'last'))",
        )
        .bind(run_id)
        .fetch_all(&here.database.pool)
        .await
        .unwrap()
    });
    assert_eq!(waited.len(), 2);
    assert!(
        waited.iter().all(|seconds| *seconds < 60.0),
        "successors waited for {waited:?} s"
    );
}

#[test]
fn the_plan_says_what_changes_and_changes_nothing() {
    let cloud = Cloud::start();
    let name = Environment::unique();
    let here = Environment::prepare(&cloud, &name, "modal:");
    let filter = |text: String| {
        Regex::new(&name)
            .unwrap()
            .replace_all(&text, "NAME")
            .into_owned()
    };
    let first = here.create(&["--plan"]).ok();
    insta::assert_snapshot!("first", filter(first));
    assert_eq!(
        cloud
            .modal(&["app", "list", "--json"], Path::new("/"))
            .trim(),
        "[]"
    );

    let _ = here.create(&[]).ok();
    let again = here.create(&["--plan", "--output", "plain"]).ok();
    insta::assert_snapshot!("again", filter(again));

    let text = std::fs::read_to_string(&here.config).unwrap();
    std::fs::write(&here.config, text + "  task_memory: 1024\n").unwrap();
/// The next try runs in another container: the one that can't run tasks any more takes none.
fn a_container_ends_with_its_worker(here: &Environment<'_>) {
    let folder = here.cloud.folder.path();
    let text = FATAL.replace("SEEN", folder.join("seen").to_str().unwrap());
    let file = folder.join("fatal.py");
    std::fs::write(&file, text).unwrap();
    here.upload(&file);
    let (_, state) = here.trigger_asking("fatal", Some(Duration::from_secs(3)));
    assert_eq!(state, "success", "{}", here.log("fatal", "ends_its_worker"));
    let ids = here.run(&[
        "xcom",
        "get",
        "--dag-id",
        "fatal",
        "--task-id",
        "ends_its_worker",
    ]);
    let ids = ids.json();
    assert_ne!(ids[0], ids[1], "the same container again");
}

    let changed = here.create(&["--plan", "--output", "plain"]).ok();
    insta::assert_snapshot!("changed", filter(changed));

    // The official command line sees what was deployed.
    let apps = cloud.modal(&["app", "list"], Path::new("/"));
    assert!(apps.contains(&format!("modalflow-{name}")), "{apps}");
    let history = cloud.modal(
        &["app", "history", &format!("modalflow-{name}")],
        Path::new("/"),
    );
    assert!(history.contains("v1"), "{history}");
}
