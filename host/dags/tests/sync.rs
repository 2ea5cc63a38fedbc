//! The folder and Airflow's tables: what is new, unchanged, broken, mended, moved and gone.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dags::{Answers, Dags, Step, Which, quiet};
use serde_json::{Value, json};
use support::{Rules, World, dag, show};

#[tokio::test(flavor = "multi_thread")]
async fn a_dag_appears_changes_breaks_is_mended_and_goes() {
    let world = World::new().await;
    let mut story = Vec::new();
    let mut tell = |what: &str, report: String, rows: String| {
        story.push(format!("-- {what}\n{report}\n{rows}"));
    };
    world.put("sub/a.py", dag("a"));
    world.put(
        "b.py",
        format!(
            "{}\n{}",
            dag("b1"),
            dag("b2").lines().skip(1).collect::<Vec<_>>().join("\n")
        ),
    );
    tell("new", show(&world.sync().await), world.dag_rows().await);
    tell("unchanged", show(&world.sync().await), String::new());
    world.put("b.py", dag("b1"));
    tell(
        "b2 left its file",
        show(&world.sync().await),
        world.dag_rows().await,
    );
    world.put("sub/a.py", "airflow dag ->");
    tell(
        "a is broken",
        show(&world.sync().await),
        world.dag_rows().await,
    );
    tell(
        "still",
        show(&world.sync().await),
        world
            .import_errors()
            .await
            .lines()
            .last()
            .unwrap()
            .to_owned(),
    );
    world.put("sub/a.py", dag("a"));
    tell(
        "a is mended",
        show(&world.sync().await),
        world.dag_rows().await + &world.import_errors().await,
    );
    std::fs::rename(world.folder().join("b.py"), world.folder().join("c.py")).unwrap();
    tell("b moved", show(&world.sync().await), world.dag_rows().await);
    std::fs::remove_file(world.folder().join("sub/a.py")).unwrap();
    tell(
        "a is gone",
        show(&world.sync().await),
        world.dag_rows().await,
    );
    insta::assert_snapshot!(story.join("\n"), @r#"
    -- new
    b.py: parsed ["b1", "b2"]
    sub/a.py: parsed ["a"]
    a | sub/a.py | active | fine
    b1 | b.py | active | fine
    b2 | b.py | active | fine
    -- unchanged
    b.py: unchanged ["b1", "b2"]
    sub/a.py: unchanged ["a"]

    -- b2 left its file
    b.py: parsed ["b1"]
    sub/a.py: unchanged ["a"]
    a | sub/a.py | active | fine
    b1 | b.py | active | fine
    b2 | b.py | stale | fine
    -- a is broken
    b.py: unchanged ["b1"]
    sub/a.py: failed: SyntaxError: invalid syntax
    a | sub/a.py | stale | import error
    b1 | b.py | active | fine
    b2 | b.py | stale | fine
    -- still
    b.py: unchanged ["b1"]
    sub/a.py: unchanged, failed: Traceback (most recent call last):
    SyntaxError: invalid syntax
    -- a is mended
    b.py: unchanged ["b1"]
    sub/a.py: parsed ["a"]
    a | sub/a.py | active | fine
    b1 | b.py | active | fine
    b2 | b.py | stale | fine
    -- b moved
    b.py: gone
    c.py: parsed ["b1"]
    sub/a.py: unchanged ["a"]
    a | sub/a.py | active | fine
    b1 | c.py | active | fine
    b2 | b.py | stale | fine
    -- a is gone
    c.py: unchanged ["b1"]
    sub/a.py: gone
    a | sub/a.py | stale | fine
    b1 | c.py | active | fine
    b2 | b.py | stale | fine
    "#);
    world.end().await;
}

/// airflow: a new DAG is paused unless it says otherwise; versions, code and bundle are as Airflow writes them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_those_that_airflow_writes() {
    let world = World::new().await;
    world.put("a.py", dag("a"));
    world.put(
        "eager.py",
        dag("eager").replace("schedule=", "is_paused_upon_creation=False, schedule="),
    );
    let report = world.sync().await;
    assert_eq!(
        serde_json::to_value(&report.new_dags).unwrap(),
        json!([
            {"dag_id": "a", "is_paused": true},
            {"dag_id": "eager", "is_paused": false},
        ])
    );
    let rows = world
        .rows(
            "SELECT d.dag_id, d.is_paused::text, d.bundle_name, d.timetable_summary, v.version_number::text,
                    (c.source_code LIKE '%def say%')::text, (s.data -> 'dag' ->> 'fileloc' = d.fileloc)::text,
                    (d.last_parsed_time > now() - interval '5 minutes' AND d.last_parse_duration > 0)::text,
                    (d.next_dagrun_create_after IS NOT NULL OR d.timetable_type NOT LIKE '%Cron%')::text
             FROM dag d
             JOIN dag_version v USING (dag_id)
             JOIN dag_code c ON c.dag_version_id = v.id
             JOIN serialized_dag s ON s.dag_version_id = v.id
             ORDER BY 1",
        )
        .await;
    insta::assert_snapshot!(rows, @r#"
    a | true | dags-folder | 0 0 * * * | 1 | true | true | true | true
    eager | false | dags-folder | 0 0 * * * | 1 | true | true | true | true
    "#);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_owner_keeps_a_dag_id() {
    let world = World::new().await;
    let mut story = Vec::new();
    world.put("first.py", dag("x"));
    world.sync().await;
    // Earlier in the alphabet, but later in time.
    world.put("a_second.py", dag("x"));
    story.push(show(&world.sync().await));
    story.push(world.dag_rows().await);
    world.put("first.py", "airflow dag ->");
    story.push("-- a typing error does not give it away\n".to_owned() + &show(&world.sync().await));
    std::fs::remove_file(world.folder().join("first.py")).unwrap();
    story.push("-- its end does\n".to_owned() + &show(&world.sync().await));
    story.push(world.dag_rows().await);
    insta::assert_snapshot!(story.join("\n"), @r#"
    a_second.py: failed: hint: give the DAG of this file another dag_id
    first.py: unchanged ["x"]
    x | first.py | active | fine
    -- a typing error does not give it away
    a_second.py: failed: hint: give the DAG of this file another dag_id
    first.py: failed: SyntaxError: invalid syntax
    -- its end does
    a_second.py: parsed ["x"]
    first.py: gone
    x | a_second.py | active | fine
    "#);
    world.end().await;
}

/// No process is started for a folder that is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_files_cost_no_process() {
    let world = World::new().await;
    world.put("a.py", dag("a"));
    world.put("helper.py", "x = 1");
    world.sync().await;
    let touched = world.put("a.py", dag("a"));
    let steps = Mutex::new(Vec::new());
    let watch = |step: Step| steps.lock().unwrap().push(step);
    let report = world.dags.sync(Which::Changed, &watch).await.unwrap();
    insta::assert_snapshot!(show(&report), @r#"a.py: unchanged ["a"]"#);
    std::fs::File::open(&touched)
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    world.dags.sync(Which::Changed, &watch).await.unwrap();
    assert_eq!(*steps.lock().unwrap(), []);
    let report = world.dags.sync(Which::All, &watch).await.unwrap();
    insta::assert_snapshot!(show(&report), @r#"a.py: parsed ["a"]"#);
    insta::assert_debug_snapshot!(*steps.lock().unwrap(), @r#"
    [
        StartingParser,
        Parsed {
            done: 1,
            of: 1,
        },
        Writing {
            files: 2,
        },
    ]
    "#);
    world.end().await;
}

/// What a DAG file reads belongs to it: other Python files, data, the list of a folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_parsed_again_when_what_it_reads_changes() {
    let world = World::new().await;
    world.put("pack/__init__.py", "");
    world.put("pack/names.py", "NAME = 'one'");
    world.put("conf/tables.txt", "users");
    world.put(
        "a.py",
        "import pathlib\nfrom airflow.sdk import DAG\nfrom pack.names import NAME\nHERE = pathlib.Path(__file__).parent\n\
         for path in (HERE / 'conf').iterdir():\n    with DAG(f'{NAME}_{path.read_text()}_{path.stem}'): pass\n",
    );
    let mut story = vec![show(&world.sync().await)];
    let mut change = async |what: &str| {
        story.push(format!("-- {what}\n{}", show(&world.sync().await)));
    };
    world.put("pack/names.py", "NAME = 'two'");
    change("module").await;
    world.put("conf/tables.txt", "orders");
    change("data").await;
    world.put("conf/more.txt", "orders");
    change("listing").await;
    world.put("other.txt", "nobody reads it");
    change("nothing").await;
    insta::assert_snapshot!(story.join("\n"), @r#"
    a.py: parsed ["one_users_tables"]
    -- module
    a.py: parsed ["two_users_tables"]
    -- data
    a.py: parsed ["two_orders_tables"]
    -- listing
    a.py: parsed ["two_orders_more", "two_orders_tables"]
    -- nothing
    a.py: unchanged ["two_orders_more", "two_orders_tables"]
    "#);
    world.end().await;
}

/// The folder may be a link that a deployment moves: the parser's walls move with it.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_may_be_a_link_that_moves() {
    let world = World::with(
        |settings| settings.folder.set_file_name("current"),
        Arc::new(Rules),
    )
    .await;
    let link = world.folder().with_file_name("current");
    let mut story = Vec::new();
    for (folder, dag_id) in [("one", "a"), ("two", "b")] {
        let folder = world.folder().with_file_name(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("x.py"), dag(dag_id)).unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        story.push(show(&world.sync().await));
    }
    insta::assert_snapshot!(story.join("\n"), @r#"
    x.py: parsed ["a"]
    x.py: parsed ["b"]
    "#);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_block_or_warn() {
    let world = World::new().await;
    world.put("bad.py", dag("forbidden"));
    world.put("warned.py", dag("doubtful"));
    insta::assert_snapshot!(show(&world.sync().await), @r#"
    bad.py: failed: hint: choose another
    warned.py: parsed ["doubtful"] DAG001: this name is taken ill (DAG doubtful, task say, line 2)
    hint: choose another
    "#);
    insta::assert_snapshot!(world.import_errors().await, @r#"
    bad.py | DAG001: this name is taken ill (DAG forbidden, task say, line 2)
    hint: choose another
    "#);
    world.end().await;
}

/// A DAG that only the database refuses costs its own file, not the batch.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_an_import_error_of_its_file_alone() {
    let world = World::new().await;
    world.put(
        "bad.py",
        dag("bad").replace("schedule=", "description='a\\0b', schedule="),
    );
    world.put("good.py", dag("good"));
    let report = world.sync().await;
    let failed: Vec<&str> = report.failures().map(|(path, _)| path).collect();
    assert_eq!(failed, ["bad.py"]);
    assert!(world.import_errors().await.contains("cannot be stored"));
    insta::assert_snapshot!(world.dag_rows().await, @"good | good.py | active | fine");
    world.end().await;
}

struct Known(Mutex<&'static str>);

#[async_trait]
impl Answers for Known {
    async fn variable(&self, key: &str) -> Result<Option<String>, String> {
        Ok((key == "names").then(|| (*self.0.lock().unwrap()).to_owned()))
    }

    async fn connection(&self, conn_id: &str) -> Result<Option<Value>, String> {
        Ok((conn_id == "db")
            .then(|| json!({"conn_id": "db", "conn_type": "generic", "host": "example"})))
    }
}

const ASKS: &str = "from airflow.sdk import DAG, Variable, Connection\nfor name in Variable.get('names').split():\n    with DAG(name + Variable.get('none', default='_x_') + Connection.get('db').host): pass\n";

#[tokio::test(flavor = "multi_thread")]
async fn variables_and_connections_are_answered_by_the_host() {
    let mut world = World::new().await;
    let known = Arc::new(Known(Mutex::new("one")));
    world.dags = world.dags.with_answers(known.clone());
    world.put("a.py", ASKS);
    let first = world.sync().await;
    let second = world.sync().await;
    *known.0.lock().unwrap() = "two three";
    let third = world.sync().await;
    insta::assert_snapshot!(format!("{}\n{}\n{}", show(&first), show(&second), show(&third)), @r#"
    a.py: parsed ["one_x_example"]
    a.py: unchanged ["one_x_example"]
    a.py: parsed ["three_x_example", "two_x_example"]
    "#);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_answers_a_file_that_asks_says_so() {
    let world = World::new().await;
    world.put("a.py", ASKS);
    world.put(
        "b.py",
        ASKS.replace("get('names')", "get('names', default='silently')"),
    );
    world.sync().await;
    let errors = support::filtered(&world.import_errors().await, world.root.path());
    insta::with_settings!({filters => vec![(r"py\x22, line \d+", "py\", line [n]")]}, {
        insta::assert_snapshot!(errors, @r#"
        a.py | Traceback (most recent call last):
          File "[root]/dags-room/programs/dag_parser/modalflow_child.py", line [n], in send
            self.refuse(answer["refused"], answer["hint"])
          File "[root]/dags-room/programs/dag_parser/modalflow_child.py", line [n], in refuse
            raise AirflowSecretsBackendAccessDenied(f"{what}{where}\nhint: {hint}") from None
        airflow.sdk.exceptions.AirflowSecretsBackendAccessDenied: the Variable "names" was asked for while the file was parsed (a.py, line 2)
        hint: ask for it inside a task, or by a template such as {{ var.value.name }}
        b.py | Traceback (most recent call last):
          File "[root]/dags-room/programs/dag_parser/modalflow_child.py", line [n], in send
            self.refuse(answer["refused"], answer["hint"])
          File "[root]/dags-room/programs/dag_parser/modalflow_child.py", line [n], in refuse
            raise AirflowSecretsBackendAccessDenied(f"{what}{where}\nhint: {hint}") from None
        airflow.sdk.exceptions.AirflowSecretsBackendAccessDenied: the Variable "names" was asked for while the file was parsed (b.py, line 2)
        hint: ask for it inside a task, or by a template such as {{ var.value.name }}
        "#);
    });
    world.end().await;
}

/// The database is away: nothing is remembered, and the next sync does all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_is_a_passing_error() {
    let world = World::with(
        |settings| {
            for (key, value) in &mut settings.sync_environment {
                if key.ends_with("SQL_ALCHEMY_CONN") {
                    "postgresql+psycopg2://nobody@127.0.0.1:1/none".clone_into(value);
                }
            }
        },
        Arc::new(Rules),
    )
    .await;
    world.put("a.py", dag("a"));
    let error = world.dags.sync(Which::Changed, &quiet).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert_eq!(world.rows("SELECT path FROM modalflow.dag_file").await, "");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_python_is_said_with_the_path() {
    let world = World::with(
        |settings| settings.python = "/nonexistent/python".into(),
        Arc::new(Rules),
    )
    .await;
    world.put("a.py", dag("a"));
    let error = world.dags.sync(Which::Changed, &quiet).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"
    start Python's DAG sync ("/nonexistent/python"): No such file or directory (os error 2)
    hint: check the Python environment with `modalflow-host env show`
    "#);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helpers_rest_and_come_back() {
    let world = World::new().await;
    world.put("a.py", dag("a"));
    world.sync().await;
    world.dags.rest(std::time::Duration::ZERO).await;
    world.put("b.py", dag("b"));
    insta::assert_snapshot!(show(&world.sync().await), @r#"
    a.py: unchanged ["a"]
    b.py: parsed ["b"]
    "#);
    let _: &Dags = &world.dags;
    world.end().await;
}
