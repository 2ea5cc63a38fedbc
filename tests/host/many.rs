//! Many tasks: long, wide, and in many DAGs.

use support::TestHost;

fn count(host: &TestHost, dag_like: &str) -> (i64, i64) {
    host.block(
        sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state = 'success' AND try_number = 1), count(*) \
               FROM task_instance WHERE dag_id LIKE $1",
        )
        .bind(dag_like)
        .fetch_one(host.pool()),
    )
    .unwrap()
}

#[test]
fn two_hundred_tasks_in_a_chain() {
    let host = TestHost::new();
    host.upload(&["chain.py"]);
    let _serve = host.serve();
    let run = host.trigger("chain_200", &[]);
    assert_eq!(host.wait("chain_200", &run), "success");
    assert_eq!(count(&host, "chain_200"), (200, 200));
    assert_eq!(host.xcom("chain_200", &run, "t199"), 200);
}

#[test]
fn two_hundred_mapped_tasks() {
    let host = TestHost::new();
    host.upload(&["mapped.py"]);
    let _serve = host.serve();
    let run = host.trigger("mapped_200", &[]);
    assert_eq!(host.wait("mapped_200", &run), "success");
    assert_eq!(count(&host, "mapped_200"), (202, 202));
    assert_eq!(host.xcom("mapped_200", &run, "add_up"), 39_800);
}

#[test]
fn fifty_dags_of_ten_tasks() {
    let host = TestHost::new();
    host.upload(&["diamonds.py"]);
    let _serve = host.serve();
    let dags: Vec<String> = (0..50).map(|index| format!("diamond_{index:02}")).collect();
    let runs: Vec<String> = dags.iter().map(|dag| host.trigger(dag, &[])).collect();
    for (dag, run) in dags.iter().zip(&runs) {
        assert_eq!(host.wait(dag, run), "success");
    }
    assert_eq!(count(&host, "diamond_%"), (500, 500));
}
