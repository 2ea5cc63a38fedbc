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
        install(&world, &[a.clone()], Mode::Update).await,
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
        install(&world, &[a.clone()], Mode::Create).await,
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
        insta::assert_snapshot!(story.join("\n"), @"");
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
    insta::assert_snapshot!(lines.join("\n"), @"");
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
    insta::assert_snapshot!(show(&report), @"");
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
    insta::assert_snapshot!(story.join("\n"), @"");
    assert_eq!(listing(&world), "two.py");
    world.end().await;
}
