//! Timetables and weight rules that are users' own classes: Python is asked beside the ticks, and a class that
//! misbehaves costs its own DAG only.

use support::TestHost;

fn host_with_plugins() -> TestHost {
    let host = TestHost::new();
    let plugins = host.folder("dags").parent().unwrap().join("plugins");
    assert!(plugins.is_dir(), "made by `create`");
    std::fs::copy(
        host.files.join("plugins/house_plugin.py"),
        plugins.join("house_plugin.py"),
    )
    .unwrap();
    host
}

fn lines(host: &TestHost, query: &'static str) -> String {
    let rows: Vec<String> = host
        .block(sqlx::query_scalar(query).fetch_all(host.pool()))
        .unwrap();
    rows.join("\n")
}

const RUNS: &str = "SELECT concat_ws(' ', dag_id, run_id, to_char(data_interval_end AT TIME ZONE 'UTC', 'MM-DD'), state) \
     FROM dag_run ORDER BY dag_id, logical_date";

#[test]
fn own_timetables_make_the_runs_that_airflow_makes() {
    let host = host_with_plugins();
    host.upload(&["own_timetables.py"]);
    // One tick after another, until all that was missed is done: without serve.
    let _ = host.run(&["tick"]).ok();
    insta::assert_snapshot!(lines(&host, RUNS), @"");
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT DISTINCT concat_ws(' ', task_id, map_index, priority_weight) FROM task_instance ORDER BY 1"
        ),
        @""
    );
    // Those that misbehave say so where Airflow's users look, and are asked again later.
    let problems = lines(
        &host,
        "SELECT concat_ws(' ', filename, replace(stacktrace, E'\\n', '|')) FROM import_error ORDER BY stacktrace",
    );
    insta::with_settings!({filters => vec![(r#"File "[^"]*/"#, r#"File ".../"#)]}, {
        insta::assert_snapshot!(problems, @"");
    });
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT concat_ws(' ', dag_id, asked_at IS NOT NULL, failures) FROM modalflow.timetable ORDER BY dag_id"
        ),
        @""
    );
    // A person's run: the interval and the name are the timetable's.
    let _ = host
        .run(&[
            "dags",
            "trigger",
            "--dag-id",
            "third_days",
            "--logical-date",
            "2026-03-01T00:00:00Z",
        ])
        .ok();
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT concat_ws(' ', split_part(run_id, '.', 1), data_interval_end - data_interval_start) \
               FROM dag_run WHERE run_type = 'manual'"
        ),
        @""
    );
    let _ = host.trigger("mapped_weights", &["--wait"]);
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT concat_ws(' ', task_id, map_index, priority_weight) FROM task_instance \
              WHERE dag_id = 'mapped_weights' ORDER BY task_id, map_index"
        ),
        @""
    );
}

#[test]
fn a_plugin_that_goes_or_comes_is_a_change_of_the_files() {
    let host = TestHost::new();
    let folder = host.folder("dags");
    std::fs::copy(
        host.files.join("own_timetables.py"),
        folder.join("own_timetables.py"),
    )
    .unwrap();
    let _ = host.run(&["tick"]).ok();
    let error = lines(&host, "SELECT stacktrace FROM import_error");
    assert!(error.contains("No module named 'house_plugin'"), "{error}");
    std::fs::copy(
        host.files.join("plugins/house_plugin.py"),
        folder.parent().unwrap().join("plugins/house_plugin.py"),
    )
    .unwrap();
    let _ = host.run(&["tick"]).ok();
    assert!(lines(&host, RUNS).contains("third_days"));
}
