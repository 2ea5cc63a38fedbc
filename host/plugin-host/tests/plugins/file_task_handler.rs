//! `file-task-handler`: Airflow's layout on disk, and files that a task planted.

use std::fs;
use std::os::unix::fs::symlink;

use bytes::Bytes;
use plugin_host::{LogOutcome, TaskKey};

use crate::{House, task, words};

const FILE: &str =
    "dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=1.log";

#[tokio::test]
async fn logs_are_laid_out_as_airflow_does() {
    let house = House::new();
    let handler = house.file_task_handler().await;
    let second = TaskKey {
        try_number: 2,
        ..task("extract", -1)
    };
    let hostile = TaskKey {
        dag_id: "../x".to_owned(),
        run_id: "a b".to_owned(),
        ..task("..", -1)
    };
    for task in [
        task("extract", -1),
        second,
        task("extract", 0),
        task("group.load", 12),
        hostile,
    ] {
        handler
            .append(&task, 0, Bytes::from_static(b"{\"event\":\"hello\"}\n"))
            .await
            .unwrap();
        handler.finish(&task, LogOutcome::Success).await.unwrap();
    }
    insta::assert_snapshot!(house.files(), @"
    18 dag_id=..%2Fx/run_id=a%20b/task_id=%2E%2E/attempt=1.log
    18 dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=1.log
    18 dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=2.log
    18 dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/map_index=0/attempt=1.log
    18 dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=group.load/map_index=12/attempt=1.log
    ");
}

#[tokio::test]
async fn the_file_is_what_the_worker_wrote() {
    let house = House::new();
    let handler = house.file_task_handler().await;
    let mut offset = 0;
    let mut wanted = Vec::new();
    for n in 0..50 {
        let lines = format!("{{\"event\":\"{}\"}}\n", "z".repeat(n * 400));
        wanted.extend_from_slice(lines.as_bytes());
        offset = handler
            .append(&task("extract", -1), offset, lines.into())
            .await
            .unwrap();
        assert_eq!(offset, wanted.len() as u64);
    }
    // One batch that is larger than what a plugin takes at once.
    let batch = format!("{{\"event\":\"{}\"}}\n", "w".repeat(700_000));
    wanted.extend_from_slice(batch.as_bytes());
    let len = handler
        .append(&task("extract", -1), offset, batch.into())
        .await
        .unwrap();
    assert_eq!(len, wanted.len() as u64);
    assert!(fs::read(house.store().join(FILE)).unwrap() == wanted);
}

#[tokio::test]
async fn a_planted_file_is_not_written_to() {
    let house = House::new();
    let handler = house.file_task_handler().await;
    let secret = house.dir.path().join("secret");
    let file = house.store().join(FILE);
    let mut seen = Vec::new();
    for link in [true, false] {
        fs::write(&secret, "").unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&file);
        match link {
            true => symlink(&secret, &file).unwrap(),
            false => fs::hard_link(&secret, &file).unwrap(),
        }
        let written = handler
            .append(&task("extract", -1), 0, Bytes::from_static(b"x\n"))
            .await;
        seen.push(words(&house, &written.unwrap_err()));
        assert_eq!(fs::read_to_string(&secret).unwrap(), "");
    }
    insta::assert_snapshot!(seen.join("\n"), @"
    file-task-handler: denied: `dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=1.log` is a symbolic link, which is never followed
    file-task-handler: denied: `dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=1.log` is not a plain file with one name; nothing was written
    ");
}

#[tokio::test]
async fn conflicts_say_how_long_the_log_is() {
    let house = House::new();
    let handler = house.file_task_handler().await;
    let task = task("extract", -1);
    handler
        .append(&task, 0, Bytes::from_static(b"one\n"))
        .await
        .unwrap();
    let gap = handler
        .append(&task, 9, Bytes::from_static(b"two\n"))
        .await
        .unwrap_err();
    let other = handler
        .append(&task, 0, Bytes::from_static(b"two\n"))
        .await
        .unwrap_err();
    insta::assert_snapshot!(format!("{gap}\n{other}"), @"
    file-task-handler: conflict: `dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=1.log` is 4 bytes long, so nothing belongs at 9
    file-task-handler: conflict: `dag_id=etl/run_id=manual__2025-01-01T00:00:00+00:00/task_id=extract/attempt=1.log` has other bytes at 0; it is 4 bytes long
    ");
}
