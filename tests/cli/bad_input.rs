//! Bad input: what, where, how to mend it, a proper exit code, and nothing half done.

use std::path::Path;

use support::{Ran, TestHost, modalflow, prepared};

/// The volatile parts of a conversation.
fn filters(host: Option<&TestHost>) -> Vec<(String, &'static str)> {
    let mut filters = vec![
        (regex_escape(&prepared("MODALFLOW_TEST_HOME")), "[HOME]"),
        (r"/tmp/\.tmp[A-Za-z0-9]+".to_owned(), "[TEMP]"),
        (r": \d+\.\d s\b".to_owned(), ": [TIME]"),
    ];
    if let Some(host) = host {
        filters.push((regex_escape(&host.name), "[ENV]"));
    }
    filters
}

fn regex_escape(text: &str) -> String {
    regex::escape(text)
}

macro_rules! conversation {
    ($host:expr, $name:literal, $ran:expr) => {
        let filters = filters($host);
        insta::with_settings!({filters => filters.iter().map(|(from, to)| (from.as_str(), *to)).collect::<Vec<_>>()}, {
            insta::assert_snapshot!($name, $ran);
        });
    };
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn an_unknown_environment() {
    let ran = Ran::of(modalflow(["env", "show", "--env", "nowhere"]));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        ran.stderr.contains("nowhere") && ran.stderr.contains("hint:"),
        "{ran}"
    );
}

#[test]
fn no_environment_at_all() {
    let ran = Ran::of(modalflow(["tick"]));
    assert_eq!(ran.code, Some(2), "{ran}");
}

#[test]
fn a_config_file_with_a_wrong_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "config.yaml", "executor:\n  paralelism: 4\n");
    let ran = Ran::of(modalflow(["create", "--env", "never", "--config", &config]));
    conversation!(None, "a_config_file_with_a_wrong_key", ran);
    assert!(
        Ran::of(modalflow(["env", "show", "--env", "never"])).code != Some(0),
        "nothing is left behind"
    );
}

#[test]
fn postgres_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(
        folder.path(),
        "config.yaml",
        "database:\n  connection_string: postgresql://nobody@127.0.0.1:1/nothing\n",
    );
    let ran = Ran::of(modalflow([
        "create",
        "--env",
        "never-too",
        "--config",
        &config,
    ]));
    assert_eq!(ran.code, Some(3), "{ran}");
    assert!(
        ran.stderr.contains("127.0.0.1:1") && ran.stderr.contains("hint:"),
        "{ran}"
    );
    assert!(
        Ran::of(modalflow(["env", "show", "--env", "never-too"])).code != Some(0),
        "nothing is left behind"
    );
}

#[test]
fn no_python() {
    let home = tempfile::tempdir().unwrap();
    let mut command = modalflow(["create", "--env", "pythonless"]);
    command
        .env("MODALFLOW_HOME", home.path())
        .env("MODALFLOW_PYTHON", "/nonexistent/python3")
        .env("PATH", "/nonexistent");
    let ran = Ran::of(command);
    assert_ne!(ran.code, Some(0), "{ran}");
    assert!(
        ran.stderr.contains("/nonexistent/python3") && ran.stderr.contains("hint:"),
        "{ran}"
    );
}

#[test]
fn dags_and_runs_that_are_not_there() {
    let host = TestHost::new();
    host.upload(&["scheduled.py"]);
    conversation!(
        Some(&host),
        "an_unknown_dag",
        host.run(&["dags", "trigger", "--dag-id", "daily_catchupp"])
    );
    conversation!(
        Some(&host),
        "a_dag_without_runs",
        host.run(&["runs", "show", "--dag-id", "daily_catchup"])
    );
    conversation!(
        Some(&host),
        "an_unknown_run",
        host.run(&[
            "tasks",
            "list",
            "--dag-id",
            "daily_catchup",
            "--run-id",
            "x"
        ])
    );
    conversation!(
        Some(&host),
        "conf_that_is_no_object",
        host.run(&[
            "dags",
            "trigger",
            "--dag-id",
            "daily_catchup",
            "--conf",
            "[1]"
        ])
    );
    conversation!(
        Some(&host),
        "a_run_id_with_dots",
        host.run(&[
            "dags",
            "trigger",
            "--dag-id",
            "daily_catchup",
            "--run-id",
            "../x"
        ])
    );
    let _ = host
        .run(&[
            "dags",
            "trigger",
            "--dag-id",
            "daily_catchup",
            "--run-id",
            "twice",
        ])
        .ok();
    conversation!(
        Some(&host),
        "a_run_id_twice",
        host.run(&[
            "dags",
            "trigger",
            "--dag-id",
            "daily_catchup",
            "--run-id",
            "twice"
        ])
    );
    conversation!(
        Some(&host),
        "an_unknown_xcom",
        host.run(&[
            "xcom",
            "get",
            "--dag-id",
            "daily_catchup",
            "--task-id",
            "first"
        ])
    );
    conversation!(
        Some(&host),
        "an_unknown_task",
        host.run(&["logs", "--dag-id", "daily_catchup", "--task-id", "third"])
    );
}

#[test]
fn dag_files_that_do_not_import_change_nothing() {
    let host = TestHost::new();
    let folder = tempfile::tempdir().unwrap();
    let good = write(
        folder.path(),
        "good.py",
        "from airflow.sdk import DAG\ndag = DAG('good', schedule=None)\n",
    );
    let files = [
        ("syntax.py", "from airflow.sdk import DAG\nDAG('a'\n"),
        (
            "endless.py",
            "from airflow.sdk import DAG\nwhile True: pass\n",
        ),
        (
            "crash.py",
            "from airflow.sdk import DAG\nimport os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        ),
        (
            "dots.py",
            "from airflow.sdk import DAG\ndag = DAG('..', schedule=None)\n",
        ),
        (
            "newline.py",
            "from airflow.sdk import DAG\ndag = DAG('a\\n', schedule=None)\n",
        ),
    ];
    for (name, text) in files {
        let bad = write(folder.path(), name, text);
        let ran = host.run(&["dags", "create", "--file", &good, "--file", &bad]);
        assert_eq!(ran.code, Some(1), "{name}: {ran}");
        assert!(ran.stderr.contains(name), "{name}: {ran}");
        assert_eq!(
            host.run(&["dags", "list", "--output", "plain"]).ok(),
            "",
            "{name} left something"
        );
    }
    let _ = host.run(&["dags", "create", "--file", &good]).ok();
    let again = write(
        folder.path(),
        "again.py",
        "from airflow.sdk import DAG\ndag = DAG('good', schedule=None)\n",
    );
    let ran = host.run(&["dags", "create", "--file", &again]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        ran.stderr.contains("good.py"),
        "it names the file that holds the id: {ran}"
    );
}

#[test]
fn a_variable_is_answered_while_a_file_is_parsed() {
    let host = TestHost::new();
    let file = host.files.join("variables.py").display().to_string();
    let ran = host.run(&["dags", "create", "--file", &file]);
    assert_eq!(ran.code, Some(1), "there is no such Variable yet: {ran}");
    host.block(
        sqlx::query("INSERT INTO variable (key, val, is_encrypted) VALUES ('team', 'blue', false)")
            .execute(host.pool()),
    )
    .unwrap();
    let _ = host.run(&["dags", "create", "--file", &file]).ok();
    let tag: String = host
        .block(
            sqlx::query_scalar("SELECT name FROM dag_tag WHERE dag_id = 'from_variable'")
                .fetch_one(host.pool()),
        )
        .unwrap();
    assert_eq!(tag, "blue");
}
