//! Trigger rules against what the real scheduler of Airflow 3.3.2 did.

use model::TaskInstanceState;

use crate::world::{DagText, World};

/// Upstream states in the head: s success, k skipped, f failed, u `upstream_failed`. R: it ran, K: skipped,
/// U: `upstream_failed`.
const MEASURED: &str = "
rule                        ss    sk    sf    su    kk    ff    kf    u     skf
all_success                 R     K     U     U     K     U     U     U     U
all_failed                  K     K     K     K     K     R     K     R     K
all_done                    R     R     R     R     R     R     R     R     R
always                      R     R     R     R     R     R     R     R     R
all_done_min_one_success    R     K     R     R     K     U     K     U     K
all_done_setup_success      R     R     R     R     R     R     R     R     R
one_success                 R     R     R     R     K     U     U     U     R
one_failed                  K     K     R     R     K     R     R     R     R
one_done                    R     R     R     R     K     R     R     K     R
none_failed                 R     R     U     U     R     U     U     U     U
none_failed_min_one_success R     R     U     U     K     U     U     U     U
none_skipped                R     K     R     R     K     R     K     R     K
all_skipped                 K     K     K     K     R     K     K     K     K
";

#[test]
fn trigger_rules_do_what_airflow_did() {
    let mut lines = MEASURED.trim().lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().skip(1).collect();
    let mut wrong = Vec::new();
    for line in lines {
        let mut cells = line.split_whitespace();
        let rule = cells.next().unwrap();
        for (states, expected) in head.iter().zip(cells) {
            let ours = outcome(rule, states);
            if ours != expected {
                wrong.push(format!("{rule} over {states}: {ours}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn outcome(rule: &str, states: &str) -> &'static str {
    let ids: Vec<String> = (0..states.len())
        .map(|index| format!("up{index}"))
        .collect();
    let upstream: String = ids.iter().map(|id| format!("task {id}\n")).collect();
    let mut world = World::new(DagText::parse(&format!(
        "dag d\n{upstream}task join up={} rule={rule}",
        ids.join(",")
    )));
    world.run("r");
    for (id, letter) in ids.iter().zip(states.chars()) {
        world.find(id).state = Some(match letter {
            's' => TaskInstanceState::Success,
            'k' => TaskInstanceState::Skipped,
            'f' => TaskInstanceState::Failed,
            _ => TaskInstanceState::UpstreamFailed,
        });
    }
    let plan = world.plan();
    world.apply(&plan);
    match world.find("join").state {
        Some(TaskInstanceState::Scheduled) => "R",
        Some(TaskInstanceState::Skipped) => "K",
        Some(TaskInstanceState::UpstreamFailed) => "U",
        _ => "?",
    }
}
