//! Laws that hold for every plan, over random DAGs and random fates of their tasks.

use std::collections::HashMap;

use chrono::TimeDelta;
use model::{DagRunState, TaskInstanceState, TriggerRule};
use proptest::prelude::*;
use scheduler::plan::Verdict;
use scheduler::snapshot::{Candidate, Pool, QueueSnapshot};
use uuid::Uuid;

use crate::world::{DagText, World, name};

const FATES: [&str; 5] = ["success", "success", "failed", "skipped", "reschedule=1m"];

/// A DAG of tasks whose edges go forward, so that it has no cycle.
fn dag_text() -> impl Strategy<Value = String> {
    let task = (
        0..TriggerRule::ALL.len(),
        any::<u16>(),
        0..8_u8,
        0..4_u8,
        0..3_u8,
    );
    proptest::collection::vec(task, 1..9).prop_map(|tasks| {
        let mut text = "dag d\n".to_owned();
        for (index, (rule, upstream, kind, mapped, retries)) in tasks.into_iter().enumerate() {
            let ups: Vec<String> = (0..index)
                .filter(|bit| upstream & (1 << bit) != 0)
                .map(|up| format!("t{up}"))
                .collect();
            text.push_str(&format!("task t{index}"));
            if !ups.is_empty() {
                text.push_str(&format!(" up={}", ups.join(",")));
            }
            let rule = TriggerRule::ALL[rule];
            let map = match (mapped, ups.first()) {
                _ if rule == TriggerRule::Always => None,
                (0, Some(up)) => Some(up.clone()),
                (1, _) => Some("2".to_owned()),
                _ => None,
            };
            if let Some(map) = &map {
                text.push_str(&format!(" map={map}"));
            }
            text.push_str(&match kind {
                0 | 1 if map.is_none() => format!(" rule={rule} empty"),
                2 => " setup".to_owned(),
                3 if index > 0 => " teardown".to_owned(),
                4 => " rule=all_success past".to_owned(),
                _ => format!(" rule={rule} retries={retries} delay=30s"),
            });
            text.push('\n');
        }
        text
    })
}

fn shuffled(world: &World, seed: u64) -> World {
    let mut other = world.clone();
    let tis = &mut other.current().tis;
    tis.sort_by_key(|ti| ti.id.as_u128().wrapping_mul(u128::from(seed | 1)));
    other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_settled_and_do_not_depend_on_the_order_of_rows(
        text in dag_text(),
        fates in proptest::collection::vec((any::<u16>(), 0..FATES.len(), 0..4_i64), 1..60),
    ) {
        let mut world = World::new(DagText::parse(&text));
        for run in ["first", "second"] {
            world.run(run);
            for &(which, fate, length) in &fates {
                let plan = world.plan();
                prop_assert_eq!(&plan, &shuffled(&world, u64::from(which)).plan());
                // Applying checks that no finished state is left.
                world.apply(&plan);
                if plan.verdict != Verdict::Running {
                    prop_assert_ne!(world.current().run.state, DagRunState::Running);
                    break;
                }
                let again = world.plan();
                prop_assert_eq!(&again.decisions, &vec![], "{}\n{}", text, world.show());
                prop_assert_eq!(&again.verdict, &plan.verdict);
                let scheduled: Vec<String> = world
                    .current()
                    .tis
                    .iter()
                    .filter(|ti| ti.state == Some(TaskInstanceState::Scheduled))
                    .map(name)
                    .collect();
                if scheduled.is_empty() {
                    let wake = scheduler::run::next_look(
                        &world.dag, &world.snapshot(), &again, world.now,
                    )
                    .at;
                    match wake {
                        Some(wake) => {
                            prop_assert!(wake > world.now);
                            world.now = wake;
                        }
                        // Only another run, or a person, can help.
                        None => break,
                    }
                } else {
                    let chosen = &scheduled[usize::from(which) % scheduled.len()];
                    world.now += TimeDelta::seconds(1);
                    let length = (!chosen.contains('[')).then_some(length);
                    world.finish(chosen, FATES[fate], length);
                }
            }
        }
    }

    #[test]
    fn no_limit_is_exceeded_and_the_order_of_rows_does_not_matter(
        wanted in proptest::collection::vec(
            (0..3_u8, 0..3_u8, 0..3_u8, 0..3_u8, 1..4_i32, 0..5_i32), 0..40),
        occupied in 0..4_i64,
        parallelism in 0..12_i64,
        slots in 0..6_i32,
        caps in (1..5_i32, proptest::option::of(1..3_i32), proptest::option::of(1..3_i32)),
    ) {
        let (max_active_tasks, per_dag, per_run) = caps;
        let candidates: Vec<Candidate> = wanted
            .iter()
            .enumerate()
            .map(|(index, &(dag, run, task, pool, pool_slots, priority_weight))| Candidate {
                id: Uuid::from_u128(index as u128),
                dag_id: format!("d{dag}"),
                run_id: format!("r{run}"),
                task_id: format!("t{task}"),
                map_index: i32::try_from(index).unwrap(),
                logical_date: None,
                pool: format!("p{pool}"),
                pool_slots,
                priority_weight,
                max_active_tasks,
                max_active_tis_per_dag: per_dag,
                max_active_tis_per_dagrun: per_run,
            })
            .collect();
        let mut snapshot = QueueSnapshot {
            candidates,
            pools: HashMap::from([
                ("p0".to_owned(), Pool { slots, occupied: 1 }),
                ("p1".to_owned(), Pool { slots: -1, occupied: 9 }),
            ]),
            occupied,
            parallelism,
            ..QueueSnapshot::default()
        };
        let plan = scheduler::queue::plan(&snapshot);
        prop_assert_eq!(plan.queue.len() + plan.waiting.len(), wanted.len());
        let chosen: Vec<&Candidate> = snapshot
            .candidates
            .iter()
            .filter(|candidate| plan.queue.contains(&candidate.id))
            .collect();
        prop_assert!(chosen.is_empty() || chosen.len() as i64 + occupied <= parallelism);
        let taken: i32 = chosen.iter().filter(|c| c.pool == "p0").map(|c| c.pool_slots).sum();
        prop_assert!(taken == 0 || taken < slots);
        prop_assert!(chosen.iter().all(|c| c.pool != "p2"));
        let count = |same: &dyn Fn(&Candidate) -> bool| {
            i32::try_from(chosen.iter().filter(|c| same(c)).count()).unwrap()
        };
        for c in &chosen {
            prop_assert!(count(&|o| o.dag_id == c.dag_id && o.run_id == c.run_id) <= max_active_tasks);
            if let Some(limit) = per_dag {
                prop_assert!(count(&|o| o.dag_id == c.dag_id && o.task_id == c.task_id) <= limit);
            }
            if let Some(limit) = per_run {
                let active = count(&|o| {
                    o.dag_id == c.dag_id && o.task_id == c.task_id && o.run_id == c.run_id
                });
                prop_assert!(active <= limit);
            }
        }
        snapshot.candidates.reverse();
        prop_assert_eq!(plan, scheduler::queue::plan(&snapshot));
    }
}
