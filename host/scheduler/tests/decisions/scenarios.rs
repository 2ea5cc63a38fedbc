//! Runs every script of `tests/scenarios` and compares with its transcript. `BLESS=1` writes transcripts.
//!
//! A script: lines about the DAG (see `world.rs`), then commands. `run ID`, `tick`, `show`, `start TASK`,
//! `finish TASK STATE [returns N]`, `skip TASK followed=…`, `clear TASK`, `advance 5m`. `#` is a comment.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use model::{SerializedDag, TaskInstanceState};

use crate::world::{DagText, World, seconds};

#[test]
fn scripts_give_their_transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "found {} scripts", scripts.len());
    let mut wrong = String::new();
    for script in scripts {
        let transcript = play(&fs::read_to_string(&script).unwrap());
        let expected = script.with_extension("out");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &transcript).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != transcript {
            let _ = writeln!(wrong, "== {}\n{transcript}", script.display());
        }
    }
    assert!(wrong.is_empty(), "transcripts differ:\n{wrong}");
}

fn play(script: &str) -> String {
    let mut dag = DagText::default();
    let mut world: Option<World> = None;
    let mut transcript = String::new();
    for line in script.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            let _ = writeln!(transcript, "{line}");
            continue;
        }
        let _ = writeln!(transcript, "> {line}");
        if dag.line(line) {
            // A change of the DAG while it runs is a new version of it.
            if let Some(world) = &mut world {
                world.dag = SerializedDag::parse(&dag.document()).unwrap();
            }
            continue;
        }
        let world =
            world.get_or_insert_with(|| World::new(SerializedDag::parse(&dag.document()).unwrap()));
        transcript.push_str(&command(world, line));
    }
    transcript
}

fn command(world: &mut World, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["run", id] => world.run(id),
        ["tick"] => {
            let plan = world.plan();
            let text = world.describe(&plan);
            world.apply(&plan);
            return text;
        }
        ["show"] => return world.show(),
        ["start", name] => world.find(name).state = Some(TaskInstanceState::Running),
        ["defer", name] => world.find(name).state = Some(TaskInstanceState::Deferred),
        ["finish", name, state] => world.finish(name, state, None),
        ["finish", name, state, "returns", length] => {
            world.finish(name, state, Some(length.parse().unwrap()));
        }
        ["skip", name, what] => world.record_skip(name, what),
        ["clear", name] => world.clear(name),
        ["advance", time] => world.now += TimeDelta::seconds(seconds(time)),
        _ => panic!("unknown command {line:?}"),
    }
    String::new()
}
