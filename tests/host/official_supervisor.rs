//! Airflow's own Python supervisor runs tasks against our Execution API, unchanged.

use std::process::Command;
use std::time::{Duration, Instant};

use execution_api::{Lifetimes, Tokens};
use serde_json::{Value, json};
use support::{TestHost, prepared};
use uuid::Uuid;

#[test]
fn airflows_supervisor_from_the_fork_server() {
    let host = TestHost::with_config("worker:\n  supervisor: airflow\n");
    host.upload(&["xcoms.py", "crash.py"]);
    let _serve = host.serve();
    let run = host.trigger("xcom_mapped", &["--run-id", "official"]);
    assert_eq!(
        host.wait("xcom_mapped", &run),
        "success",
        "{}",
        host.tasks("xcom_mapped", &run)
    );
    assert_eq!(
        host.xcom("xcom_mapped", &run, "collect"),
        serde_json::json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    );
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "xcom_mapped",
            "--run-id",
            &run,
            "--task-id",
            "collect",
        ])
        .ok();
    assert!(log.contains("Done. Returned value was"), "{log}");
}

#[test]
fn execute_workload_runs_a_task_against_the_execution_api() {
    let host = TestHost::new();
    host.upload(&["official.py"]);
    let _serve = host.serve();
    let run = host.trigger("official", &["--run-id", "by-hand"]);
    let (id, version) = hand_over(&host, &run);
    let secrets: Value =
        serde_json::from_slice(&std::fs::read(host.folder("root").join("secrets.json")).unwrap())
            .unwrap();
    let tokens = Tokens::new(
        secrets["jwt_secret"].as_str().unwrap().as_bytes(),
        Lifetimes::default(),
    );
    let workload = json!({
        "type": "ExecuteTask",
        "token": tokens.workload(id),
        "dag_rel_path": "official.py",
        "bundle_info": {"name": "dags-folder", "version": null},
        "log_path": "dag_id=official/run_id=by-hand/task_id=greet/attempt=1.log",
        "ti": {
            "id": id, "task_id": "greet", "dag_id": "official", "run_id": "by-hand", "try_number": 1,
            "dag_version_id": version, "map_index": -1, "hostname": "", "context_carrier": null,
            "queue": "default", "pool_slots": 1, "priority_weight": 1,
        },
        "sentry_integration": "",
    });
    let home = tempfile::tempdir().unwrap();
    let bundles = json!([{
        "name": "dags-folder",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": host.folder("dags")},
    }]);
    let output = Command::new(prepared("MODALFLOW_TEST_PYTHON"))
        .args([
            "-m",
            "airflow.sdk.execution_time.execute_workload",
            "--json-string",
            &workload.to_string(),
        ])
        .env("AIRFLOW_HOME", home.path())
        .env("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        .env(
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
            host.shown["execution_api_url"].as_str().unwrap(),
        )
        .env(
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
            bundles.to_string(),
        )
        .env("AIRFLOW__LOGGING__BASE_LOG_FOLDER", host.folder("logs"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        host.wait("official", &run),
        "success",
        "{}",
        host.tasks("official", &run)
    );
    insta::assert_snapshot!(host.tasks("official", &run), @r"
    greet success 1
    measure success 1
    ");
    // The server put the large value through the XCom plugin, and our own worker read it from there.
    assert_eq!(host.xcom("official", &run, "measure"), 20_000);
    assert!(
        host.folder("xcom")
            .join("official/by-hand/greet/return_value")
            .exists()
    );
    let log = host
        .run(&["logs", "--dag-id", "official", "--task-id", "greet"])
        .ok();
    assert!(log.contains("hello from Airflow's own supervisor"), "{log}");
}

/// Queues the task as an executor would that is about to start it: with an intent that nobody sends.
fn hand_over(host: &TestHost, run: &str) -> (Uuid, Uuid) {
    let began = Instant::now();
    loop {
        let queued: Option<(Uuid, Uuid)> = host
            .block(
                sqlx::query_as(
                    "WITH queued AS ( \
                         UPDATE task_instance SET state = 'queued', queued_dttm = now() \
                          WHERE dag_id = 'official' AND task_id = 'greet' AND run_id = $1 AND state = 'scheduled' \
                         RETURNING id, dag_version_id), \
                     intent AS ( \
                         INSERT INTO modalflow.dispatch (dispatch_id, ti_id, not_before) \
                         SELECT gen_random_uuid(), id, now() + interval '1 day' FROM queued) \
                     SELECT id, dag_version_id FROM queued",
                )
                .bind(run)
                .fetch_optional(host.pool()),
            )
            .unwrap();
        if let Some(queued) = queued {
            return queued;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{}",
            host.tasks("official", run)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
