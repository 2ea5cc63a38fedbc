//! Priority weights. `airflow: PriorityWeightStrategy.get_weight`

use model::{SerializedDag, TaskIndex, WeightRule};

/// Tasks summed up at once. Bounds the memory for the closure of a DAG of n tasks to 512 n bytes.
const BLOCK: usize = 4096;
const WORDS: usize = BLOCK / 64;

/// The `priority_weight` that a task instance of each task gets. What a rule of the user's own says stands in
/// `custom_weight`; a DAG without it does not get here.
pub(crate) fn priority_weights(dag: &SerializedDag) -> Vec<i32> {
    let mut sums: Vec<i64> = dag
        .tasks
        .iter()
        .map(|task| i64::from(task.custom_weight.unwrap_or(task.priority_weight)))
        .collect();
    let wants = |rule: &WeightRule| dag.tasks.iter().any(|task| task.weight_rule == *rule);
    if wants(&WeightRule::Downstream) {
        let order = dag.topological_order.iter().rev().copied();
        add_relatives(dag, order, &WeightRule::Downstream, &mut sums);
    }
    if wants(&WeightRule::Upstream) {
        let order = dag.topological_order.iter().copied();
        add_relatives(dag, order, &WeightRule::Upstream, &mut sums);
    }
    // The column has 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "clamped")]
    sums.into_iter()
        .map(|sum| sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
        .collect()
}

/// Adds the weights of all relatives in one direction, each once, to the tasks with that rule. `order` must
/// visit a task after its relatives.
fn add_relatives(
    dag: &SerializedDag,
    order: impl Iterator<Item = TaskIndex> + Clone,
    rule: &WeightRule,
    sums: &mut [i64],
) {
    let mut reached = vec![[0_u64; WORDS]; dag.tasks.len()];
    for first in (0..dag.tasks.len()).step_by(BLOCK) {
        for task in order.clone() {
            let relatives = match rule {
                WeightRule::Upstream => &dag.tasks[task].upstream,
                WeightRule::Downstream | WeightRule::Absolute | WeightRule::Custom(_) => {
                    &dag.tasks[task].downstream
                }
            };
            let mut mine = [0_u64; WORDS];
            for &relative in relatives {
                for (word, theirs) in mine.iter_mut().zip(&reached[relative]) {
                    *word |= theirs;
                }
                if (first..first + BLOCK).contains(&relative) {
                    mine[(relative - first) / 64] |= 1 << ((relative - first) % 64);
                }
            }
            if dag.tasks[task].weight_rule == *rule {
                sums[task] += sum_of(dag, first, &mine);
            }
            reached[task] = mine;
        }
    }
}

fn sum_of(dag: &SerializedDag, first: usize, reached: &[u64; WORDS]) -> i64 {
    let mut sum = 0;
    for (position, &word) in reached.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            sum += i64::from(dag.tasks[first + position * 64 + bit].priority_weight);
            rest &= rest - 1;
        }
    }
    sum
}
