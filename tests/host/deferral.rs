//! A deferred task waits in the real triggerer, which runs only as long as somebody waits.

use support::TestHost;

#[test]
fn a_deferred_task_comes_back() {
    let host = TestHost::new();
    host.upload(&["deferred.py"]);
    let _serve = host.serve();
    let run = host.trigger("deferred", &["--logical-date", "2026-01-01"]);
    assert_eq!(
        host.wait("deferred", &run),
        "success",
        "{}",
        host.tasks("deferred", &run)
    );
    assert_eq!(host.xcom("deferred", &run, "after"), "waited");
}
