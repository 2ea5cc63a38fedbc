//! Limits are never exceeded, and all work gets done below them.

use std::path::Path;

use support::TestHost;

/// The most tasks that ran at once.
fn most_at_once(journal: &Path) -> i32 {
    let text = std::fs::read_to_string(journal).unwrap();
    let (mut now, mut most) = (0, 0);
    for line in text.lines() {
        now += if line == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    most
}

#[test]
fn limits_hold() {
    let host = TestHost::new();
    host.block(
        sqlx::query("INSERT INTO slot_pool (pool, slots, description, include_deferred) VALUES ('narrow', 3, '', false)")
            .execute(host.pool()),
    )
    .unwrap();
    host.upload(&["limits.py"]);
    let _serve = host.serve();
    let folder = tempfile::tempdir().unwrap();
    let dags = [
        "limited_by_max_active_tasks",
        "limited_by_task",
        "limited_by_pool",
    ];
    let mut runs = Vec::new();
    for dag in dags {
        let journal = folder.path().join(dag);
        let conf = serde_json::json!({"journal": journal}).to_string();
        runs.push((dag, host.trigger(dag, &["--conf", &conf]), journal));
    }
    let mut seen = String::new();
    for (dag, run, journal) in runs {
        assert_eq!(host.wait(dag, &run), "success");
        seen += &format!("{dag}: {} at once\n", most_at_once(&journal));
    }
    // A pool of 3 slots has room for one task of 2.
    insta::assert_snapshot!(seen, @r"
    limited_by_max_active_tasks: 2 at once
    limited_by_task: 1 at once
    limited_by_pool: 1 at once
    ");
}
