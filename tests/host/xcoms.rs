//! XComs: files on the volume behind a reference in the database, whatever their size and name.

use std::path::Path;

use serde_json::{Value, json};
use support::TestHost;

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn stored(host: &TestHost, dag: &str, task: &str) -> Value {
    host.block(
        sqlx::query_scalar("SELECT value FROM xcom WHERE dag_id = $1 AND task_id = $2 AND key = 'return_value' LIMIT 1")
            .bind(dag)
            .bind(task)
            .fetch_one(host.pool()),
    )
    .unwrap()
}

#[test]
fn a_large_value_is_a_file_behind_a_reference() {
    let host = TestHost::new();
    host.upload(&["xcoms.py"]);
    let serve = host.serve();
    let run = host.trigger("xcom_size", &["--run-id", "big"]);
    assert_eq!(host.wait("xcom_size", &run), "success");
    let length = 20 * 1024 * 1024;
    assert_eq!(host.xcom("xcom_size", &run, "measure"), length);
    let reference = stored(&host, "xcom_size", "make");
    assert_eq!(
        reference["__modalflow_xcom__"]["size"],
        length + 2,
        "{reference}"
    );
    assert_eq!(
        files_below(&host.folder("xcom")),
        ["xcom_size/big/make/return_value"]
    );
    // VmHWM of the host stays far below the value's size times the places it passes.
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.pid())).unwrap();
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(peak < 150_000, "the host's peak is {peak} kB");
}

#[test]
fn a_value_over_the_limit_fails_its_task_and_says_why() {
    let host = TestHost::with_config("xcom:\n  max_bytes: 1000000\n");
    host.upload(&["xcoms.py"]);
    let _serve = host.serve();
    let run = host.trigger(
        "xcom_size",
        &["--conf", &json!({"megabytes": 2}).to_string()],
    );
    assert_eq!(host.wait("xcom_size", &run), "failed");
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "xcom_size",
            "--run-id",
            &run,
            "--task-id",
            "make",
        ])
        .ok();
    assert!(
        log.contains("is over the limit of") && log.contains("xcom.max_bytes"),
        "{log}"
    );
    assert_eq!(files_below(&host.folder("xcom")), Vec::<String>::new());
}

#[test]
fn keys_never_leave_their_folder() {
    let host = TestHost::new();
    host.upload(&["xcoms.py"]);
    let _serve = host.serve();
    let run = host.trigger("xcom_keys", &["--run-id", "keys"]);
    assert_eq!(
        host.wait("xcom_keys", &run),
        "success",
        "{}",
        host.run(&["logs", "--dag-id", "xcom_keys", "--task-id", "push"])
    );
    assert_eq!(
        host.xcom("xcom_keys", &run, "pull"),
        json!([0, 1, 2, 3, 4, 5, 6])
    );
    for file in files_below(&host.folder("xcom")) {
        assert!(file.starts_with("xcom_keys/keys/push/"), "{file}");
    }
}

#[test]
fn mapped_values_do_not_collide() {
    let host = TestHost::new();
    host.upload(&["xcoms.py"]);
    let _serve = host.serve();
    let run = host.trigger("xcom_mapped", &["--run-id", "mapped"]);
    assert_eq!(host.wait("xcom_mapped", &run), "success");
    assert_eq!(
        host.xcom("xcom_mapped", &run, "collect"),
        json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    );
    assert_eq!(files_below(&host.folder("xcom")).len(), 10);
}
