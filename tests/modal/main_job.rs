//! The main job, on Modal: deploy, bring a DAG in, run it to success in Modal's own container runtime, look at what it left.

use std::path::Path;
use std::time::Duration;

use regex::Regex;
use serde_json::json;

use crate::cloud::{Cloud, Environment};
use crate::emitted::lines;

const DAG: &str = r#"
import json, os, pathlib
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
        # The whole environment, of the task and of all above it in its container, for whoever looks for what should not be there.
        seen, pid = [dict(os.environ)], os.getppid()
        while True:
            try:
                above = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except PermissionError:
                above = []
            if not any(line.startswith(b"MODAL_TASK_ID=") for line in above):
                break
            seen.append([line.decode() for line in above])
            status = pathlib.Path(f"/proc/{pid}/status").read_text().split()
            pid = int(status[status.index("PPid:") + 1])
        print("ENVIRONMENTS", len(seen), json.dumps(seen))
        return len(text)

    last(large(first()))

on_modal()
"#;

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

#[test]
fn a_dag_runs_to_success_and_leaves_nothing() {
    let cloud = Cloud::start();
    // Not in Modal's default environment: what runs in a container finds its own.
    let _ = cloud.modal(&["environment", "create", "staging"], Path::new("/"));
    let name = Environment::unique();
    let _ = cloud.modal(
        &["secret", "create", "warehouse", "A=b", "--env", "staging"],
        Path::new("/"),
    );
    let mut here = Environment::prepare(
        &cloud,
        &name,
        "scheduler: {interval_seconds: 3600}\nmodal:\n  idle_seconds: 30\n  secrets: [warehouse]\n  images: {pandas: [echo 1]}",
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
    a_container_ends_with_its_worker(&here);

    // Nobody names Modal's environment any more: it stays where it is, and is taken away there.
    let said = here.create(&[]);
    assert!(said.stderr.contains("nothing to change"), "{said}");

    let said = here.destroy().stderr;
    for line in [
        "stopped app",
        "deleted volume",
        "deleted dict",
        "deleted secret",
    ] {
        assert!(said.contains(line), "{said}");
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
        .find(|line| line.contains("ENVIRONMENTS "))
        .unwrap_or_else(|| panic!("{log}"));
    // The task's, the fork server's, the host's and that of Modal's runtime.
    assert!(line.contains("ENVIRONMENTS 4 "), "{line}");
    assert!(line.contains("MODALFLOW_SETTINGS"), "{line}");
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
        assert!(!line.contains(&word), "a task's container knows {word}");
    }
    // Nor could another container of the same function: it has the worker's Secret and the user's.
    let secrets: Vec<String> = lines(here.cloud, &here.cloud.recorded())
        .into_iter()
        .filter(|line| line.starts_with("run_task") && line.contains(" secret_ids "))
        .map(|line| line.replace(&here.name, "NAME"))
        .collect();
    insta::assert_snapshot!(secrets.join("\n"), @r#"
    run_task secret_ids ["st airflow-worker-NAME version 0", "st warehouse version 0"]
    run_task_pandas secret_ids ["st airflow-worker-NAME version 0", "st warehouse version 0"]
    "#);
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
    let text = std::fs::read_to_string(&here.config).unwrap();
    let images = format!("{text}  images:\n    slim: [\"true\"]\n");
    std::fs::write(&here.config, images).unwrap();
    let first = here.create(&["--plan"]).ok();
    std::fs::write(&here.config, &text).unwrap();
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

    std::fs::write(&here.config, text + "  task_memory: 1024\n").unwrap();
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
