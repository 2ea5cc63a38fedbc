//! Our client against the test servicer of Modal's own client. Not a part of `tests/run`: `tests/modal-servicer/run` starts the
//! servicer, whose code is not here.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first surprise"
)]

mod operations;

use modal_api::{Client, Config};

/// The servicer checks no required keys, gives one value of a queue at a time, knows no size of what lies in a blob, and its sandboxes
/// neither run nor have addresses. All else is told as the emulator tells it.
///
/// Any other server: the variables of Modal's client say where it is. `tests/modal-servicer/run` starts Modal's own test servicer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_is_served_by_modals_own_test_servicer() {
    let config = Config::load().unwrap();
    let client = Client::open(&config).await.unwrap();
    let told = operations::tell(client).await;
    println!("{}", told.join("\n"));
    insta::assert_snapshot!(told.join("\n"), @r#"
    environment id: en
    secret: st, kept its id: true
    secret without a key: accepted
    missing secret: Missing
    bad name: Name
    unnamed secret: st
    listed: true
    dict: Some("1") None of 2
    put if absent: false true
    popped Some("3"), left ["a", "b"], has b: true
    missing dict: Missing
    queue: ["x", "y", "z"], taken ["x"], left 2
    V1 V1: dags/a.py File 8, empty File 0, large File 0
    large as sent: true, part b"\x07\x07\x07\x07", small b"print(1)"
    a second time: AlreadyExists
    missing file: NotFound
    after removal: empty File 0, large File 0
    V2 V2: dags/a.py File 8, empty File 0, large File 16777316
    large as sent: true, part b"\x07\x07\x07\x07", small b"print(1)"
    a second time: AlreadyExists
    missing file: NotFound
    after removal: empty File 0, large File 16777316
    missing volume: Missing
    app: None then ap
    mounts: mo mo
    image: im
    function work: fu, kept its id: true
    function tick: fu, kept its id: true
    function Server: fu, kept its id: true
    deployed: true, ["Server", "tick", "work"], versions 1
    listed: true
    takes cbor: true
    work(0, 1, 2) = 5
    10,000 numbers through a blob = 333283335000
    variant: fu, of its own: true, gives 14
    missing function: Missing
    gpu without a number: Invalid
    sandbox: sb
    container: ta
    tunnels: Unimplemented
    runs: Some(SandboxResult { status: Success, exit_code: 0, exception: "" }), ended: Some(Terminated)
    a function of a stopped app: Missing
    "#);
}
