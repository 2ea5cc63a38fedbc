//! What a DAG asks for that this scheduler can't decide yet. Such a DAG gets a visible error and no runs, rather
//! than wrong ones.

use model::{ExpandInput, MappedArgument, SerializedDag};

use serde_json::Value;

use crate::deadlines::{self, Alert};
use crate::partitions::PartitionedAssets;
use crate::timetables::{Timetable, Unreadable};

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    pub what: String,
    pub hint: &'static str,
}

/// Empty: the DAG can be scheduled exactly as Airflow would.
#[must_use]
pub fn check(dag: &SerializedDag) -> Vec<Unsupported> {
    let mut missing = Vec::new();
    missing.extend(check_timetable(dag));
    missing.extend(
        dag.deadline
            .iter()
            .filter_map(|alert| check_deadline(alert)),
    );
    for task in &dag.tasks {
        if task.expand_input.as_ref().is_some_and(is_unsized) {
            missing.push(Unsupported {
                what: format!("what task {:?} is mapped over", task.task_id),
                hint: "map over a list, a dict or an XCom of another task",
            });
        }
    }
    missing
}

/// An alert as it stands in a DAG that has just been parsed; in a stored one there is only its id.
fn check_deadline(alert: &str) -> Option<Unsupported> {
    let alert: Value = serde_json::from_str(alert).ok()?;
    let fields = alert.get("__var").unwrap_or(&alert);
    match Alert::read(&fields["reference"], &fields["interval"]) {
        Ok(_) => None,
        Err(unreadable @ deadlines::Unreadable::Reference(_)) => Some(Unsupported {
            what: unreadable.to_string(),
            hint: "use one of DeadlineReference; a reference of its own class is Python code",
        }),
        Err(unreadable @ deadlines::Unreadable::Interval(_)) => Some(Unsupported {
            what: unreadable.to_string(),
            hint: "use a timedelta",
        }),
    }
}

fn check_timetable(dag: &SerializedDag) -> Option<Unsupported> {
    let unreadable = match Timetable::read(&dag.timetable) {
        Ok(Timetable::PartitionedAsset) => match PartitionedAssets::of(&dag.timetable) {
            Err(Unreadable::Class(class)) => {
                return Some(Unsupported {
                    what: format!("partitions through the class {class}"),
                    hint: "use the partition mappers and windows that Airflow ships; others are Python code",
                });
            }
            read => read.err(),
        },
        Ok(_) => None,
        // A class of the user's own: Python is asked.
        Err(Unreadable::Class(class)) if !class.starts_with("airflow.timetables.") => None,
        Err(unreadable) => Some(unreadable),
    };
    match unreadable? {
        Unreadable::Class(class) => Some(Unsupported {
            what: format!("the timetable {class}"),
            hint: "use another timetable that Airflow ships",
        }),
        Unreadable::Data { class, problem } => Some(Unsupported {
            what: format!("this {class}: {problem}"),
            hint: "check the arguments of the DAG's schedule",
        }),
        Unreadable::Cron {
            expression,
            problem,
        } => Some(Unsupported {
            what: format!("the cron expression {expression:?}: {problem}"),
            hint: "a cron expression is `minute hour day-of-month month day-of-week`",
        }),
    }
}

fn is_unsized(input: &ExpandInput) -> bool {
    input
        .arguments()
        .any(|argument| matches!(argument, MappedArgument::Unsized { .. }))
}
