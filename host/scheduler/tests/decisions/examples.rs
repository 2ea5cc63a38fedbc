//! Airflow's own example DAGs, as Airflow 3.3.2 serialized them, with what it read back out of them.

use std::io::Read;

use model::SerializedDag;
use serde_json::{Value, json};

use crate::world::World;

/// Zlib of `{dag id: {"document", "facts"}}`.
const RECORDED: &[u8] = include_bytes!("../../../../tests/scenarios/example_dags.json.zlib");

fn recorded() -> serde_json::Map<String, Value> {
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(RECORDED)
        .read_to_end(&mut text)
        .unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn example_dags_read_as_airflow_reads_them() {
    let recorded = recorded();
    assert!(recorded.len() > 100);
    for (dag_id, example) in &recorded {
        let dag = SerializedDag::parse(&example["document"]).unwrap();
        assert_eq!(&dag.dag_id, dag_id);
        let facts = example["facts"].as_object().unwrap();
        assert_eq!(facts.len(), dag.tasks.len());
        let made = scheduler::runs::task_instances(
            &dag,
            None,
            model::DagRunType::Manual,
            &Default::default(),
        );
        for task in &dag.tasks {
            let mut upstream: Vec<&str> = task
                .upstream
                .iter()
                .map(|&index| dag.tasks[index].task_id.as_str())
                .collect();
            upstream.sort_unstable();
            let theirs = &facts[&task.task_id];
            let rows: Vec<_> = made
                .iter()
                .filter(|row| row.task_id == task.task_id)
                .collect();
            let count = match rows[0].map_index {
                -1 => theirs["count"].as_u64().filter(|&count| count == 0),
                _ => Some(rows.len() as u64),
            };
            let ours = json!({
                "upstream": upstream,
                "weight": rows[0].priority_weight,
                "rule": task.trigger_rule.as_str(),
                "retries": task.retries,
                "retry_delay": task.retry_delay,
                "pool": task.pool,
                "queue": task.queue,
                "operator_name": task.operator_name,
                "display": task.task_display_name,
                "is_setup": task.is_setup,
                "is_teardown": task.is_teardown,
                "past": task.depends_on_past,
                "expands": task.needs_expansion,
                "count": count,
                "empty": task.is_empty,
                "skips": task.can_skip_downstream,
                "start": task.start_date.map(|date| date.timestamp() as f64),
            });
            assert_eq!(&ours, theirs, "{dag_id}.{}", task.task_id);
        }
    }
}

/// When every task does what is asked of it and returns two values, every run ends, and well.
#[test]
fn runs_of_example_dags_end_well() {
    for (dag_id, example) in &recorded() {
        let dag = SerializedDag::parse(&example["document"]).unwrap();
        let mut world = World::new(dag);
        world.run("r");
        for _ in 0..200 {
            let plan = world.plan();
            world.apply(&plan);
            if plan.verdict != scheduler::plan::Verdict::Running {
                break;
            }
            let scheduled: Vec<String> = world
                .current()
                .tis
                .iter()
                .filter(|ti| ti.state == Some(model::TaskInstanceState::Scheduled))
                .map(crate::world::name)
                .collect();
            for name in scheduled {
                world.finish(&name, "success", (!name.contains('[')).then_some(2));
            }
        }
        let state = world.current().run.state;
        assert_eq!(
            state,
            model::DagRunState::Success,
            "{dag_id}\n{}",
            world.show()
        );
    }
}

#[test]
fn no_example_is_refused() {
    let missing: Vec<String> = recorded()
        .iter()
        .flat_map(|(dag_id, example)| {
            let dag = SerializedDag::parse(&example["document"]).unwrap();
            let missing = scheduler::supported::check(&dag);
            missing
                .into_iter()
                .map(move |missing| format!("{dag_id}: {}", missing.what))
        })
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
