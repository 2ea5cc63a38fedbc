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
    insta::assert_snapshot!(lines(&host, RUNS), @"
    crashing scheduled__third.20240104 01-04 success
    hanging scheduled__third.20240104 01-04 success
    raising scheduled__third.20240104 01-04 success
    third_days scheduled__third.20240104 01-04 success
    third_days scheduled__third.20240107 01-07 success
    third_days scheduled__third.20240110 01-10 success
    workdays scheduled__2024-01-02T00:00:00+00:00 01-02 success
    workdays scheduled__2024-01-03T00:00:00+00:00 01-03 success
    workdays scheduled__2024-01-04T00:00:00+00:00 01-04 success
    workdays scheduled__2024-01-05T00:00:00+00:00 01-05 success
    workdays scheduled__2024-01-06T00:00:00+00:00 01-06 success
    workdays scheduled__2024-01-09T00:00:00+00:00 01-09 success
    workdays scheduled__2024-01-10T00:00:00+00:00 01-10 success
    ");
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT DISTINCT concat_ws(' ', task_id, map_index, priority_weight) FROM task_instance ORDER BY 1"
        ),
        @"
    run_this -1 80
    then -1 1
    "
    );
    // Those that misbehave say so where Airflow's users look, and are asked again later.
    let problems = lines(
        &host,
        "SELECT concat_ws(' ', filename, replace(stacktrace, E'\\n', '|')) FROM import_error ORDER BY stacktrace",
    );
    insta::with_settings!({filters => vec![(r#"File "[^"]*/"#, r#"File ".../"#), (r"it said:\|.*", "it said: …")]}, {
        insta::assert_snapshot!(problems, @r#"
        own_timetables.py the timetable house_plugin.Crashing ended the process that asked it; it said: …
        own_timetables.py the timetable house_plugin.Hanging gave no answer within 10 s|hint: look for a loop without end, or for a service that it waits for
        own_timetables.py the timetable house_plugin.Raising raised an exception:|  File ".../base.py", line 495, in next_dagrun_info_v2|    return self.next_dagrun_info(|           ^^^^^^^^^^^^^^^^^^^^^^|  File ".../house_plugin.py", line 40, in next_dagrun_info|    self.misbehave()|  File ".../house_plugin.py", line 56, in misbehave|    raise RuntimeError("the calendar is away")|RuntimeError: the calendar is away|
        "#);
    });
    insta::assert_snapshot!(
        lines(
            &host,
            "SELECT concat_ws(' ', dag_id, asked_at IS NOT NULL, failures > 0) FROM modalflow.timetable ORDER BY dag_id"
        ),
        @"
    crashing t t
    hanging t t
    raising t t
    third_days f f
    workdays f f
    "
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
        @"manual__third 3 days"
    );
}

#[test]
fn what_airflow_would_lose_is_refused() {
    let host = host_with_plugins();
    let file = host.files.join("mapped_weights.py");
    let said = host.run(&["dags", "create", "--file", file.to_str().unwrap()]);
    let error = said.stderr.split_once("error: ").unwrap().1;
    insta::assert_snapshot!(error, @r#"
    upload the DAG files: nothing was changed, because
    mapped_weights.py: the DAG mapped_weights: the task "four" is mapped and has a weight rule of its own class, which Airflow does not store
    hint: set the rule on tasks that are not mapped, or give this one a priority_weight
    "#);
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
