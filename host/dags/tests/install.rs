//! Create, update, check and delete: all or nothing.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::path::PathBuf;

use dags::{Mode, quiet};
use support::{World, dag, show};

async fn install(world: &World, files: &[PathBuf], mode: Mode) -> String {
    match world.dags.install(files, mode, &quiet).await {
        Ok(report) => show(&report),
        Err(error) => format!("refused: {error}"),
    }
}

fn listing(world: &World) -> String {
    let mut names: Vec<String> = std::fs::read_dir(world.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_created_and_updated_all_or_none() {
    let world = World::new().await;
    let mut story = Vec::new();
    let a = world.source("a.py", dag("a"));
    let b = world.source("b.py", format!("import helper\n{}", dag("b")));
    let helper = world.source("helper.py", "x = 1");
    let broken = world.source("broken.py", "airflow dag ->");
    let twin = world.source("twin.py", dag("a"));
    story.push((
        "update before create",
        install(&world, std::slice::from_ref(&a), Mode::Update).await,
    ));
    story.push((
        "create",
        install(
            &world,
            &[a.clone(), b.clone(), helper.clone()],
            Mode::Create,
        )
        .await,
    ));
    story.push((
        "create again",
        install(&world, std::slice::from_ref(&a), Mode::Create).await,
    ));
    world.source("a.py", dag("a").replace("print(1)", "print(2)"));
    story.push((
        "one of two is broken",
        install(&world, &[a.clone(), broken.clone()], Mode::Update).await,
    ));
    std::fs::copy(&broken, world.source("b.py", "")).unwrap();
    story.push((
        "one of two is broken",
        install(&world, &[a.clone(), b.clone()], Mode::Update).await,
    ));
    assert!(
        !std::fs::read_to_string(world.folder().join("a.py"))
            .unwrap()
            .contains("print(2)")
    );
    story.push((
        "somebody else's dag_id",
        install(&world, &[twin], Mode::Create).await,
    ));
    story.push((
        "a helper alone",
        install(&world, &[world.source("alone.py", "x = 1")], Mode::Create).await,
    ));
    story.push(("update", install(&world, &[a], Mode::Update).await));
    assert!(
        std::fs::read_to_string(world.folder().join("a.py"))
            .unwrap()
            .contains("print(2)")
    );
    story.push(("in the folder", listing(&world)));
    story.push(("in the tables", world.dag_rows().await));
    let story: Vec<String> = story
        .iter()
        .map(|(what, text)| format!("-- {what}\n{text}"))
        .collect();
    insta::with_settings!({filters => vec![(r"at 0x\w+", "at [address]")]}, {
        insta::assert_snapshot!(story.join("\n"), @r#"
        -- update before create
        refused: update the DAG file a.py: the environment has none of that name
        hint: use `modalflow-host dags create`
        -- create
        a.py: parsed ["a"]
        b.py: parsed ["b"]
        -- create again
        refused: create the DAG file a.py: the environment has one of that name already
        hint: use `modalflow-host dags update`
        -- one of two is broken
        refused: update the DAG file broken.py: the environment has none of that name
        hint: use `modalflow-host dags create`
        -- one of two is broken
        refused: upload the DAG files: nothing was changed, because
        b.py: Traceback (most recent call last):
          File "<frozen importlib._bootstrap_external>", line 1004, in source_to_code
          File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
          File "b.py", line 1
            airflow dag ->
                    ^^^
        SyntaxError: invalid syntax
        -- somebody else's dag_id
        refused: upload the DAG files: nothing was changed, because
        twin.py: the dag_id "a" belongs to a.py, which was first
        hint: give the DAG of this file another dag_id
        -- a helper alone
        refused: upload the DAG files: nothing was changed, because
        alone.py: it holds no DAG, and none of the other files given imports it
        hint: make the DAG at the top level of the file, with `with DAG(...)` or by calling the function that @dag decorates
        -- update
        a.py: parsed ["a"]
        -- in the folder
        a.py b.py helper.py
        -- in the tables
        a | a.py | active | fine
        b | b.py | active | fine
        "#);
    });
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_play_tricks_are_refused() {
    let world = World::new().await;
    let source = world.root.path().join("source");
    world.source("x/a.py", dag("a"));
    let cases = [
        source.join("x/.."),
        world.source("new\nline.py", dag("n")),
        world.source("dag.txt", dag("t")),
        world.source("dags.zip", "PK"),
        world.source("large.py", "#".repeat((1 << 20) + 1)),
        world.source("empty.py", ""),
        source.join("x"),
        source.join("missing.py"),
        PathBuf::from("/dev/null"),
    ];
    let mut lines = Vec::new();
    for case in cases {
        let mut line = install(&world, &[case], Mode::Create).await;
        line = line.replace(&source.display().to_string(), "[source]");
        lines.push(line);
    }
    std::fs::create_dir(source.join("y")).unwrap();
    std::fs::copy(source.join("x/a.py"), source.join("y/a.py")).unwrap();
    lines.push(
        install(
            &world,
            &[source.join("x/a.py"), source.join("y/a.py")],
            Mode::Create,
        )
        .await,
    );
    insta::assert_snapshot!(lines.join("\n"), @r#"
    refused: upload the DAG files: nothing was changed, because
    [source]/x/..: its name cannot be a file's name
    hint: give the path of a .py file
    refused: upload the DAG files: nothing was changed, because
    new\nline.py: its name has characters that cannot be shown
    hint: rename it
    refused: upload the DAG files: nothing was changed, because
    dag.txt: its name does not end in .py
    hint: Airflow takes DAGs from Python files only
    refused: upload the DAG files: nothing was changed, because
    dags.zip: DAGs in zip files are not supported
    hint: unpack it and give the .py files
    refused: upload the DAG files: nothing was changed, because
    large.py: it has 1048577 bytes; a DAG file may have 1048576
    hint: keep data in files of their own, which the DAG reads
    refused: upload the DAG files: nothing was changed, because
    empty.py: it holds no DAG, and none of the other files given imports it
    hint: make the DAG at the top level of the file, with `with DAG(...)` or by calling the function that @dag decorates
    refused: upload the DAG files: nothing was changed, because
    x: its name does not end in .py
    hint: Airflow takes DAGs from Python files only
    refused: read "[source]/missing.py"
    refused: upload the DAG files: nothing was changed, because
    null: its name does not end in .py
    hint: Airflow takes DAGs from Python files only
    refused: upload the DAG files: nothing was changed, because
    a.py: two of the files have this name
    hint: the DAG folder can hold only one of them
    "#);
    assert_eq!(listing(&world), "");
    assert_eq!(world.dag_rows().await, "");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_writes_nothing() {
    let world = World::new().await;
    let good = world.source("good.py", dag("doubtful"));
    let bad = world.source("bad.py", dag("forbidden"));
    let report = world.dags.check(&[good, bad]).await.unwrap();
    insta::assert_snapshot!(show(&report), @r#"
    good.py: parsed ["doubtful"] DAG001: this name is taken ill (DAG doubtful, task say, line 2)
    hint: choose another
    bad.py: failed: hint: choose another
    "#);
    assert_eq!(listing(&world), "");
    assert_eq!(world.rows("SELECT path FROM modalflow.dag_file").await, "");
    assert_eq!(world.dag_rows().await, "");
    let stage = world.root.path().join("dags-room/stage");
    assert_eq!(std::fs::read_dir(stage).unwrap().count(), 0);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_takes_the_file_unless_others_live_in_it() {
    let world = World::new().await;
    world.put("a.py", dag("a"));
    world.put("two.py", format!("{}\n{}", dag("b1"), dag("b2")));
    let mut story = Vec::new();
    for dag_id in ["b1", "nobody", "a", "a"] {
        story.push(match world.dags.delete(dag_id).await {
            Ok(deleted) => format!("deleted {} with {}", deleted.dag_id, deleted.path),
            Err(error) => format!("{error}"),
        });
    }
    story.push(world.dag_rows().await);
    insta::assert_snapshot!(story.join("\n"), @r#"
    delete the DAG b1: its file two.py also holds b2
    hint: take b1 out of the file and run `modalflow-host dags update`
    find the DAG "nobody": no file of this environment holds it
    deleted a with a.py
    find the DAG "a": no file of this environment holds it
    a | a.py | stale | fine
    b1 | two.py | active | fine
    b2 | two.py | active | fine
    "#);
    assert_eq!(listing(&world), "two.py");
    world.end().await;
}

/// A file is parsed once, beside the folder: what is stored must be what a parse in the folder would give.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_checked_as_if_it_lay_in_the_folder() {
    let world = World::new().await;
    world.put("sql/query.sql", "SELECT 1");
    world.put("names.txt", "one");
    let reader = world.source(
        "reader.py",
        format!(
            "from pathlib import Path\nfrom airflow.sdk import BaseOperator\nHERE = Path(__file__).parent\n\
             class Own(BaseOperator):\n    template_fields = ('place',)\n    def __init__(self, place, **rest):\n        super().__init__(**rest)\n        self.place = place\n\
             {}\n    Own(task_id=(HERE / 'names.txt').read_text(), place=str(HERE / 'sql'))",
            dag("reader")
        ),
    );
    let mut story = vec![install(&world, std::slice::from_ref(&reader), Mode::Create).await];
    let stored = "SELECT dag_hash, data::text FROM serialized_dag ORDER BY dag_id";
    let before = world.rows(stored).await;
    assert!(before.contains(&world.folder().join("sql").display().to_string()));
    world.dags.sync(dags::Which::All, &quiet).await.unwrap();
    assert_eq!(before, world.rows(stored).await);
    story.push(install(&world, std::slice::from_ref(&reader), Mode::Update).await);
    world.put("names.txt", "two");
    story.push(install(&world, &[reader], Mode::Update).await);
    insta::assert_snapshot!(story.join("\n"), @r#"
    reader.py: parsed ["reader"]
    reader.py: unchanged ["reader"]
    reader.py: parsed ["reader"]
    "#);
    world.end().await;
}
