//! Deadlines of runs: missed ones call back, from a worker or from the triggerer; kept ones leave nothing.

use std::time::{Duration, Instant};

use support::TestHost;

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(120), "not so: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn deadlines(host: &TestHost) -> String {
    let rows: Vec<(String, Option<String>, bool, String, Option<String>, Option<String>)> = host
        .block(
            sqlx::query_as(
                "SELECT dr.dag_id, a.name, d.missed, c.type, c.state, c.output \
                   FROM deadline d JOIN dag_run dr ON dr.id = d.dagrun_id JOIN callback c ON c.id = d.callback_id \
                   LEFT JOIN deadline_alert a ON a.id = d.deadline_alert_id \
                  ORDER BY dr.dag_id, a.name",
            )
            .fetch_all(host.pool()),
        )
        .unwrap();
    rows.iter()
        .map(|(dag, name, missed, kind, state, output)| {
            format!("{dag} {name:?} missed {missed}: {kind} {state:?} {output:?}\n")
        })
        .collect()
}

#[test]
fn missed_deadlines_call_back_and_kept_ones_leave_nothing() {
    let host = TestHost::new();
    host.upload(&["deadlines.py"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let conf = serde_json::json!({"journal": path}).to_string();
    let _serve = host.serve();
    let late = host.trigger("deadline_late", &["--conf", &conf, "--run-id", "late"]);
    let kept = host.trigger("deadline_kept", &["--conf", &conf]);
    let _ = host.trigger("deadline_async", &["--conf", &conf]);
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_until("both are late", || lines().lines().count() >= 2);
    // The run goes on all the while.
    std::fs::write(folder.path().join("journal.go"), "").unwrap();
    assert_eq!(host.wait("deadline_late", &late), "success");
    assert_eq!(host.wait("deadline_kept", &kept), "success");
    wait_until("the triggerer has called back", || {
        deadlines(&host).contains("triggerer Some(\"success\")")
    });
    wait_until("the workers have reported", || {
        deadlines(&host)
            .matches("executor Some(\"success\")")
            .count()
            == 2
    });
    insta::assert_snapshot!(deadlines(&host), @r#"
    deadline_async None missed true: triggerer Some("success") Some("slept")
    deadline_late Some("long ago") missed true: executor Some("success") None
    deadline_late Some("queued") missed true: executor Some("success") None
    "#);
    let mut lines: Vec<String> = lines()
        .lines()
        .map(|line| line.replace(&this_year(), "this year"))
        .collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @r"
    fixed: late is running, needed by 2001
    queued: late is running, needed by this year
    ");
    wait_until("nothing is left to do", || {
        let left: i64 = host
            .block(
                sqlx::query_scalar(
                    "SELECT (SELECT count(*) FROM trigger) + (SELECT count(*) FROM modalflow.callback_call)",
                )
                .fetch_one(host.pool()),
            )
            .unwrap();
        left == 0
    });
}

fn this_year() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    // Good for a test: the mean length of a year.
    (1970 + seconds / 31_556_952).to_string()
}
