//! Runs of random DAGs, step by step, against what Airflow 3.3.2's own scheduler made of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;

use model::{SerializedDag, TaskInstanceState};
use serde_json::{Value, json};

use crate::world::{World, name};

/// Zlib of a run a line; made by `tests/scenarios/record_runs.py`.
const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/scenarios/runs.jsonl.zlib"
);

#[test]
fn runs_go_as_they_went_in_airflow() {
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(std::fs::File::open(RECORDED).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let mut wrong = String::new();
    let (mut runs, mut different) = (0, 0);
    for line in text.lines() {
        let recorded: Value = serde_json::from_str(line).unwrap();
        runs += 1;
        if let Err(difference) = replay(&recorded) {
            different += 1;
            if different <= 8 {
                let _ = writeln!(wrong, "{difference}");
            }
        }
    }
    assert!(runs >= 100);
    assert!(wrong.is_empty(), "{different} of {runs} differ:\n{wrong}");
}

fn replay(recorded: &Value) -> Result<(), String> {
    let dag = SerializedDag::parse(&recorded["document"]).unwrap();
    let mut world = World::new(dag);
    world.run("r");
    for step in recorded["steps"].as_array().unwrap() {
        for ended in step["ended"].as_array().unwrap() {
            let (ended_name, state) = (ended[0].as_str().unwrap(), ended[1].as_str().unwrap());
            let length = (state == "success" && !ended_name.contains('['))
                .then(|| ended[2].as_i64().unwrap());
            world.finish(ended_name, state, length);
        }
        let plan = world.plan();
        world.apply(&plan);
        let ours: BTreeMap<String, Value> = world
            .current()
            .tis
            .iter()
            .map(|ti| (name(ti), json!(ti.state.map(TaskInstanceState::as_str))))
            .collect();
        let theirs: BTreeMap<String, Value> =
            serde_json::from_value(step["states"].clone()).unwrap();
        let run = world.current().run.state.as_str();
        if ours != theirs || step["run"] != json!(run) {
            let tasks: Vec<String> = world
                .dag
                .tasks
                .iter()
                .map(|task| {
                    let up: Vec<&str> = task
                        .upstream
                        .iter()
                        .map(|&up| world.dag.tasks[up].task_id.as_str())
                        .collect();
                    format!(
                        "    {} {} up={} setup={} teardown={} empty={} {:?}",
                        task.task_id,
                        task.trigger_rule,
                        up.join(","),
                        task.is_setup,
                        task.is_teardown,
                        task.is_empty,
                        task.expand_input
                    )
                })
                .collect();
            let differing: Vec<String> = theirs
                .iter()
                .filter(|(name, state)| ours.get(*name) != Some(state))
                .map(|(name, state)| format!("{name}: {:?}, not {state}", ours.get(name)))
                .collect();
            return Err(format!(
                "{}\n{}\n  ended {}\n  {}\n  all of theirs {:?}\n  run {run}, not {}",
                world.dag.dag_id,
                tasks.join("\n"),
                step["ended"],
                differing.join("\n  "),
                theirs,
                step["run"],
            ));
        }
    }
    Ok(())
}
