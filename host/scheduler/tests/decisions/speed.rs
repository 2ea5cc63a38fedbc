//! Nothing may be quadratic. The limits are wide: they catch a wrong order of growth, not a slow machine.

use std::time::{Duration, Instant};

use scheduler::plan::Verdict;

use crate::world::{DagText, World};

fn planned(text: &str, limit: Duration) {
    let mut world = World::new(DagText::parse(text));
    world.run("r");
    let snapshot = world.snapshot();
    let begin = Instant::now();
    let plan = scheduler::run::plan(&world.dag, &snapshot, world.now);
    let took = begin.elapsed();
    assert_eq!(plan.verdict, Verdict::Success);
    assert!(took < limit, "took {took:?}");
}

#[test]
fn five_thousand_empty_tasks_side_by_side_end_in_one_plan() {
    let tasks: String = (0..5000).map(|n| format!("task t{n} empty\n")).collect();
    planned(&format!("dag d\n{tasks}"), Duration::from_millis(300));
}

#[test]
fn a_chain_of_a_thousand_empty_tasks_ends_in_one_plan() {
    let tasks: String = (1..1000)
        .map(|n| format!("task t{n} empty up=t{}\n", n - 1))
        .collect();
    planned(
        &format!("dag d\ntask t0 empty\n{tasks}"),
        Duration::from_millis(300),
    );
}

#[test]
fn a_fan_of_two_thousand_into_one_ends_in_one_plan() {
    let tasks: String = (0..2000).map(|n| format!("task t{n} empty\n")).collect();
    let all: Vec<String> = (0..2000).map(|n| format!("t{n}")).collect();
    planned(
        &format!("dag d\n{tasks}task end empty up={}", all.join(",")),
        Duration::from_millis(300),
    );
}

#[test]
fn ten_thousand_mapped_task_instances_expand_in_one_plan() {
    let mut world = World::new(DagText::parse("dag d\ntask a\ntask m map=a up=a"));
    world.run("r");
    let plan = world.plan();
    world.apply(&plan);
    world.finish("a", "success", Some(10_000));
    let snapshot = world.snapshot();
    let begin = Instant::now();
    let plan = scheduler::run::plan(&world.dag, &snapshot, world.now);
    let took = begin.elapsed();
    assert_eq!(plan.decisions.len(), 20_000);
    assert!(took < Duration::from_millis(500), "took {took:?}");
}
