//! Airflow's own Python supervisor runs tasks against our Execution API, unchanged.

use support::TestHost;

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
