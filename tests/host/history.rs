//! What a tick reads grows with the work that is due, never with the history behind it.

use support::TestHost;

const RUNS: i64 = 20_000;
/// Of five task instances each.
const TASK_INSTANCES: i64 = 5 * RUNS;

#[test]
fn a_tick_reads_no_history() {
    let host = TestHost::new();
    host.upload(&["empty.py"]);
    let _ = host.trigger("empty", &["--run-id", "first"]);
    let _ = host.run(&["tick"]).ok();
    assert_eq!(host.wait("empty", "first"), "success");
    copy(
        &host,
        "dag_run",
        "id",
        &[("logical_date", "NULL::timestamptz")],
    );
    copy(&host, "task_instance", "", &[("id", "gen_random_uuid()")]);
    run(&host, "ANALYZE");

    let before = rows_read(&host);
    let _ = host.run(&["tick"]).ok();
    let idle = rows_read(&host) - before;
    let _ = host.trigger("empty", &["--run-id", "last"]);
    let before = rows_read(&host);
    let _ = host.run(&["tick"]).ok();
    let busy = rows_read(&host) - before;
    assert_eq!(host.wait("empty", "last"), "success");
    assert!(
        idle < 100,
        "an idle tick read {idle} rows beside {TASK_INSTANCES}"
    );
    assert!(
        busy < 1000,
        "a run of five tasks read {busy} rows beside {TASK_INSTANCES}"
    );
}

fn run(host: &TestHost, statement: &str) {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    host.block(sqlx::raw_sql(statement).execute(host.pool()))
        .unwrap();
}

/// Every row of a table as many times as there are runs, each for a run of its own.
fn copy(host: &TestHost, table: &str, left_out: &str, changes: &[(&str, &str)]) {
    let columns: Vec<String> = host
        .block(
            sqlx::query_scalar(
                "SELECT column_name::text FROM information_schema.columns \
                  WHERE table_schema = 'public' AND table_name = $1 AND column_name <> $2",
            )
            .bind(table)
            .bind(left_out)
            .fetch_all(host.pool()),
        )
        .unwrap();
    let values: Vec<&str> = columns
        .iter()
        .map(|column| {
            let change = changes.iter().find(|(changed, _)| changed == column);
            match (change, column.as_str()) {
                (Some((_, value)), _) => value,
                (None, "run_id") => "'old_' || number",
                (None, column) => column,
            }
        })
        .collect();
    run(
        host,
        &format!(
            "INSERT INTO {table} ({}) SELECT {} FROM {table}, generate_series(1, {RUNS}) number",
            columns.join(", "),
            values.join(", ")
        ),
    );
}

/// Rows that all statements so far have read of the tables that keep history: by scans and by indexes.
fn rows_read(host: &TestHost) -> i64 {
    host.block(
        sqlx::query_scalar(
            "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint \
               FROM pg_stat_user_tables WHERE relname IN ('dag_run', 'task_instance')",
        )
        .fetch_one(host.pool()),
    )
    .unwrap()
}
