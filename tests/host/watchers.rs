//! Watchers of assets wait in the real triggerer, while a DAG that is not paused listens to them.

use std::time::{Duration, Instant};

use support::TestHost;

fn watchers(host: &TestHost) -> i64 {
    host.block(sqlx::query_scalar("SELECT count(*) FROM asset_watcher").fetch_one(host.pool()))
        .unwrap()
}

/// # Panics
/// When it is not so after a while.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(300), "{what}: never");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_watcher_triggers_runs() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("flag");
    let file = folder.path().join("watched.py");
    let text = format!(
        "from airflow.providers.standard.triggers.file import FileDeleteTrigger\n\
         from airflow.sdk import DAG, Asset, AssetWatcher, task\n\n\
         watcher = AssetWatcher(name=\"flag\", trigger=FileDeleteTrigger(filepath={flag:?}, poke_interval=0.2))\n\
         with DAG(\"watched\", schedule=[Asset(\"flag\", watchers=[watcher])]):\n\n    \
             @task\n    \
             def see(triggering_asset_events):\n        \
                 return [event.asset.name for events in triggering_asset_events.values() for event in events]\n\n    \
             see()\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::write(&flag, "").unwrap();
    let host = TestHost::with_config("scheduler:\n  interval_seconds: 1\n");
    // Paused when it is taken in, as every new DAG: then nobody watches.
    host.upload_paths(&[file]);
    assert_eq!(watchers(&host), 0);
    let _serve = host.serve();
    until("a run", || {
        let runs: i64 = host
            .block(sqlx::query_scalar("SELECT count(*) FROM dag_run").fetch_one(host.pool()))
            .unwrap();
        runs > 0
    });
    let run: String = host
        .block(sqlx::query_scalar("SELECT run_id FROM dag_run").fetch_one(host.pool()))
        .unwrap();
    assert_eq!(host.wait("watched", &run), "success");
    assert_eq!(
        host.xcom("watched", &run, "see"),
        serde_json::json!(["flag"])
    );
    let _ = host.run(&["dags", "pause", "--dag-id", "watched"]).ok();
    until("nobody watches a paused DAG's asset", || {
        watchers(&host) == 0
    });
}
