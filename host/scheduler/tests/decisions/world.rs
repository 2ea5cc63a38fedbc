//! A database in memory, just big enough to apply plans to, and DAGs in a compact text form.

use std::collections::HashMap;
use std::fmt::Write;

use chrono::{DateTime, TimeDelta, Utc};
use model::{
    DagRun, DagRunState, DagRunType, NewTaskInstance, SerializedDag, TaskInstance,
    TaskInstanceState,
};
use scheduler::plan::{Decision, RunPlan, Verdict};
use scheduler::snapshot::{PreviousRun, RunSnapshot, SkipXcom};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A DAG from lines: `dag NAME key=value…`, `group ID key=value…`, `task ID key=value…`.
#[derive(Default)]
pub(crate) struct DagText {
    dag: Map<String, Value>,
    tasks: Vec<Map<String, Value>>,
    groups: Vec<(String, Map<String, Value>)>,
    upstream: Vec<(String, String)>,
    children: Vec<(String, String)>,
}

impl DagText {
    pub(crate) fn parse(text: &str) -> SerializedDag {
        let mut dag = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            dag.line(line);
        }
        SerializedDag::parse(&dag.document()).unwrap()
    }

    /// Takes a line; false if it is not about the DAG.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["dag", id, ref options @ ..] => {
                self.dag.insert("dag_id".into(), json!(id));
                for option in options {
                    let (key, value) = option.split_once('=').unwrap_or((option, "true"));
                    match key {
                        "timeout" => self
                            .dag
                            .insert("dagrun_timeout".into(), json!(seconds(value))),
                        "catchup" => self.dag.insert("catchup".into(), json!(true)),
                        other => panic!("dag option {other}"),
                    };
                }
            }
            ["group", id, ref options @ ..] => {
                let mut group = Map::new();
                let mut parent = String::new();
                for option in options {
                    match option.split_once('=') {
                        Some(("in", value)) => parent = value.to_owned(),
                        Some(("map", value)) => {
                            group.insert("is_mapped".into(), json!(true));
                            group.insert("expand_input".into(), expand_input(value));
                        }
                        _ => panic!("group option {option}"),
                    }
                }
                self.groups.push((id.to_owned(), group));
                self.children.push((parent, id.to_owned()));
            }
            ["task", id, ref options @ ..] => self.task(id, options),
            ["drop", id] => {
                self.tasks.retain(|task| task["task_id"] != json!(id));
                self.upstream.retain(|(up, down)| up != id && down != id);
                self.children.retain(|(_, child)| child != id);
            }
            _ => return false,
        }
        true
    }

    fn task(&mut self, id: &str, options: &[&str]) {
        let mut task = Map::new();
        task.insert("task_id".into(), json!(id));
        task.insert("task_type".into(), json!("PythonOperator"));
        let mut group = String::new();
        for option in options {
            let (key, value) = option.split_once('=').unwrap_or((option, "true"));
            let number = || json!(value.parse::<i64>().unwrap());
            let (name, value) = match key {
                "up" => {
                    for upstream in value.split(',') {
                        self.upstream.push((upstream.to_owned(), id.to_owned()));
                    }
                    continue;
                }
                "in" => {
                    group = value.to_owned();
                    continue;
                }
                "map" => {
                    task.insert("_is_mapped".into(), json!(true));
                    task.insert("_expand_input_attr".into(), json!("expand_input"));
                    ("expand_input", expand_input(value))
                }
                "rule" => ("trigger_rule", json!(value)),
                "empty" => ("_is_empty", json!(true)),
                "branch" => ("_can_skip_downstream", json!(true)),
                "setup" => ("is_setup", json!(true)),
                "teardown" => {
                    task.entry("trigger_rule")
                        .or_insert(json!("all_done_setup_success"));
                    ("is_teardown", json!(true))
                }
                "fails_run" => ("on_failure_fail_dagrun", json!(true)),
                "past" => ("depends_on_past", json!(true)),
                "wait_downstream" => ("wait_for_downstream", json!(true)),
                "retries" => ("retries", number()),
                "delay" => ("retry_delay", json!(seconds(value))),
                "sensor" => {
                    task.insert("reschedule".into(), json!(true));
                    ("_is_sensor", json!(true))
                }
                "weight" => ("priority_weight", number()),
                other => panic!("task option {other}"),
            };
            task.insert(name.to_owned(), value);
        }
        self.children.push((group, id.to_owned()));
        self.tasks.push(task);
    }

    pub(crate) fn document(&self) -> Value {
        let tasks: Vec<Value> = self
            .tasks
            .iter()
            .map(|task| {
                let mut task = task.clone();
                let downstream: Vec<&String> = self
                    .upstream
                    .iter()
                    .filter(|(upstream, _)| json!(upstream) == task["task_id"])
                    .map(|(_, downstream)| downstream)
                    .collect();
                task.insert("downstream_task_ids".into(), json!(downstream));
                json!({"__type": "operator", "__var": task})
            })
            .collect();
        let mut dag = self.dag.clone();
        dag.insert("tasks".into(), json!(tasks));
        dag.insert(
            "timetable".into(),
            json!({"__type": "airflow.timetables.simple.NullTimetable", "__var": {}}),
        );
        dag.insert("task_group".into(), self.group("", &Map::new()));
        json!({"__version": 3, "dag": dag})
    }

    fn group(&self, id: &str, own: &Map<String, Value>) -> Value {
        let mut children = Map::new();
        for (_, child) in self.children.iter().filter(|(parent, _)| parent == id) {
            let inner = self.groups.iter().find(|(group, _)| group == child);
            let value = match inner {
                Some((group, own)) => json!(["taskgroup", self.group(group, own)]),
                None => json!(["operator", child]),
            };
            children.insert(child.clone(), value);
        }
        let mut group = own.clone();
        group.insert("children".into(), Value::Object(children));
        Value::Object(group)
    }
}

/// `3` for a literal list, else `+`-joined task ids: `xcom`, `zip:a+b`, `concat:a+b`, `a*b` for a product.
fn expand_input(text: &str) -> Value {
    let mut arguments = Map::new();
    for (index, part) in text.split('*').enumerate() {
        let plain = |id: &str| json!({"task_id": id, "key": "return_value"});
        let list = |ids: &str| ids.split('+').map(plain).collect::<Vec<_>>();
        let value = if let Ok(length) = part.parse::<usize>() {
            json!(vec![0; length])
        } else if let Some(ids) = part.strip_prefix("zip:") {
            json!({"__type": "xcomref", "__var": {"type": "zip", "args": list(ids)}})
        } else if let Some(ids) = part.strip_prefix("concat:") {
            json!({"__type": "xcomref", "__var": {"type": "concat", "args": list(ids)}})
        } else {
            json!({"__type": "xcomref", "__var": plain(part)})
        };
        arguments.insert(format!("x{index}"), value);
    }
    json!({"type": "dict-of-lists", "value": {"__type": "dict", "__var": arguments}})
}

/// `90`, `90s`, `5m`, `2h`, `1d`
pub(crate) fn seconds(text: &str) -> i64 {
    let (number, unit) = match text.find(|letter: char| letter.is_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => panic!("unit {other}"),
    };
    number.parse::<i64>().unwrap() * factor
}

/// What the database holds about one run.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) run: DagRun,
    pub(crate) tis: Vec<TaskInstance>,
    skips: Vec<SkipXcom>,
    lengths: HashMap<String, i64>,
    returns: HashMap<String, i64>,
    reschedules: HashMap<Uuid, DateTime<Utc>>,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) dag: SerializedDag,
    pub(crate) now: DateTime<Utc>,
    pub(crate) runs: Vec<Run>,
    ids: u128,
}

impl World {
    pub(crate) fn new(dag: SerializedDag) -> Self {
        Self {
            dag,
            now: DateTime::parse_from_rfc3339("2026-01-10T00:00:00Z")
                .unwrap()
                .to_utc(),
            runs: Vec::new(),
            ids: 0,
        }
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    /// A running run, one logical day after the one before.
    pub(crate) fn run(&mut self, run_id: &str) {
        let day = i64::try_from(self.runs.len()).unwrap();
        let date = self.now - TimeDelta::days(5) + TimeDelta::days(day);
        let number = i32::try_from(self.runs.len()).unwrap() + 1;
        let run = DagRun {
            id: number,
            dag_id: self.dag.dag_id.clone(),
            run_id: run_id.to_owned(),
            state: DagRunState::Running,
            run_type: DagRunType::Scheduled,
            logical_date: Some(date),
            data_interval_start: Some(date),
            data_interval_end: Some(date),
            run_after: date,
            queued_at: Some(self.now),
            start_date: Some(self.now),
            end_date: None,
            last_scheduling_decision: None,
            clear_number: 0,
            backfill_id: None,
            bundle_version: None,
            created_dag_version_id: None,
            context_carrier: json!({}),
        };
        let made = scheduler::runs::task_instances(
            &self.dag,
            run.logical_date,
            run.run_type,
            &HashMap::new(),
        );
        let tis = made
            .into_iter()
            .map(|new| {
                let id = self.id();
                row(id, new)
            })
            .collect();
        self.runs.push(Run {
            run,
            tis,
            skips: Vec::new(),
            lengths: HashMap::new(),
            returns: HashMap::new(),
            reschedules: HashMap::new(),
        });
    }

    pub(crate) fn snapshot(&self) -> RunSnapshot {
        let (current, before) = self.runs.split_last().unwrap();
        RunSnapshot {
            dag_changed: true,
            run: current.run.clone(),
            task_instances: current.tis.clone(),
            skips: current.skips.clone(),
            mapped_lengths: current.lengths.clone(),
            return_values: current.returns.clone(),
            reschedule_dates: current.reschedules.clone(),
            previous_run: before.last().map(|run| PreviousRun {
                run_id: run.run.run_id.clone(),
                logical_date: run.run.logical_date,
                task_instances: run
                    .tis
                    .iter()
                    .map(|ti| (ti.task_id.clone(), ti.map_index, ti.state))
                    .collect(),
                tasks_with_history: before
                    .iter()
                    .flat_map(|run| &run.tis)
                    .map(|ti| ti.task_id.clone())
                    .collect(),
            }),
            backfill_sort_ordinal: None,
        }
    }

    pub(crate) fn plan(&self) -> RunPlan {
        scheduler::run::plan(&self.dag, &self.snapshot(), self.now)
    }

    pub(crate) fn current(&mut self) -> &mut Run {
        self.runs.last_mut().unwrap()
    }

    /// As the database would, guards and all: a decision that does not fit the row is a failed test.
    pub(crate) fn apply(&mut self, plan: &RunPlan) {
        let now = self.now;
        let run = self.current();
        for decision in &plan.decisions {
            run.apply(decision, now);
        }
        if let Some(state) = plan.verdict.end_state() {
            run.run.state = state;
            run.run.end_date = Some(now);
        }
    }

    pub(crate) fn find(&mut self, name: &str) -> &mut TaskInstance {
        let (task_id, map_index) = match name.split_once('[') {
            Some((task, index)) => (task, index.trim_end_matches(']').parse().unwrap()),
            None => (name, -1),
        };
        let tis = &mut self.current().tis;
        tis.iter_mut()
            .find(|ti| ti.task_id == task_id && ti.map_index == map_index)
            .unwrap_or_else(|| panic!("no task instance {name}"))
    }

    /// A worker ended the task. A failure is retried while tries are left.
    pub(crate) fn finish(&mut self, name: &str, state: &str, returns: Option<i64>) {
        let now = self.now;
        let until = match state.split_once('=') {
            Some(("reschedule", delay)) => Some(now + TimeDelta::seconds(seconds(delay))),
            _ => None,
        };
        let ti = self.find(name);
        let (id, task_id, mapped) = (ti.id, ti.task_id.clone(), ti.map_index >= 0);
        assert!(
            matches!(
                ti.state,
                Some(
                    TaskInstanceState::Scheduled
                        | TaskInstanceState::Queued
                        | TaskInstanceState::Running
                )
            ),
            "{name} is {:?}, nothing to finish",
            ti.state
        );
        let state = if until.is_some() {
            TaskInstanceState::UpForReschedule
        } else if state == "failed" && ti.max_tries > 0 && ti.try_number <= ti.max_tries {
            TaskInstanceState::UpForRetry
        } else {
            state.parse().unwrap()
        };
        ti.state = Some(state);
        ti.start_date = ti.start_date.or(Some(now));
        ti.end_date = Some(now);
        let run = self.current();
        run.reschedules.extend(until.map(|until| (id, until)));
        if let Some(length) = returns {
            run.lengths.insert(task_id.clone(), length);
        }
        if mapped && state == TaskInstanceState::Success {
            *run.returns.entry(task_id).or_default() += 1;
        }
    }

    /// What a branch leaves behind: `followed=a,b` or `skipped=a,b`.
    pub(crate) fn record_skip(&mut self, name: &str, what: &str) {
        let (kind, ids) = what.split_once('=').unwrap();
        let ids: Vec<&str> = ids.split(',').collect();
        let map_index = self.find(name).map_index;
        let task_id = name.split('[').next().unwrap().to_owned();
        self.current().skips.push(SkipXcom {
            task_id,
            map_index,
            value: json!({ kind: ids }),
        });
    }

    /// What somebody's click on "clear" leaves.
    pub(crate) fn clear(&mut self, name: &str) {
        let fresh = self.id();
        let ti = self.find(name);
        ti.id = fresh;
        ti.state = None;
        ti.max_tries = ti.try_number;
        let run = self.current();
        run.run.state = DagRunState::Running;
    }

    /// Each task instance, a line each.
    pub(crate) fn show(&self) -> String {
        let run = self.runs.last().unwrap();
        let mut rows: Vec<&TaskInstance> = run.tis.iter().collect();
        rows.sort_by_key(|ti| (ti.task_id.clone(), ti.map_index));
        let mut text = format!("run {} is {}\n", run.run.run_id, run.run.state);
        for ti in rows {
            let state = ti.state.map_or("no state", TaskInstanceState::as_str);
            let _ = writeln!(text, "  {} {state}, try {}", name(ti), ti.try_number);
        }
        text
    }

    /// A plan in words.
    pub(crate) fn describe(&self, plan: &RunPlan) -> String {
        let mut names: HashMap<Uuid, String> = self
            .runs
            .last()
            .unwrap()
            .tis
            .iter()
            .map(|ti| (ti.id, name(ti)))
            .collect();
        let mut text = String::new();
        for decision in &plan.decisions {
            let line = match decision {
                Decision::Schedule { id, new_try } => {
                    let how = if *new_try { "" } else { " (same try)" };
                    format!("schedule {}{how}", names[id])
                }
                Decision::SucceedEmpty { id } => format!("succeed {}", names[id]),
                Decision::Force { id, to, .. } | Decision::Mark { id, to, .. } => {
                    format!("{} becomes {to}", names[id])
                }
                Decision::Restore { id } => format!("restore {}", names[id]),
                Decision::Expand { id } => {
                    let old = names[id].clone();
                    names.insert(*id, format!("{old}[0]"));
                    format!("expand {old}")
                }
                Decision::Insert {
                    id, task_instance, ..
                } => {
                    let name = match task_instance.map_index {
                        -1 => task_instance.task_id.clone(),
                        index => format!("{}[{index}]", task_instance.task_id),
                    };
                    names.insert(*id, name.clone());
                    format!("insert {name}")
                }
                Decision::Delete { id } => format!("delete {}", names[id]),
            };
            let _ = writeln!(text, "  {line}");
        }
        for (id, waiting) in &plan.waiting {
            let _ = writeln!(text, "  {} {waiting}", names[id]);
        }
        match &plan.verdict {
            Verdict::Running => {}
            Verdict::Success => text.push_str("  the run succeeds\n"),
            Verdict::Failed(reason) => {
                let _ = writeln!(text, "  the run fails: {}", reason.as_str());
            }
        }
        let wake = scheduler::run::next_look(&self.dag, &self.snapshot(), plan, self.now).at;
        if let Some(wake) = wake {
            let _ = writeln!(text, "  next look at {wake}");
        }
        text
    }
}

impl Run {
    fn apply(&mut self, decision: &Decision, now: DateTime<Utc>) {
        let candidate = |state: Option<TaskInstanceState>| {
            matches!(
                state,
                None | Some(TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule)
            )
        };
        match decision {
            Decision::Insert {
                id, task_instance, ..
            } => self.tis.push(row(*id, *task_instance.clone())),
            Decision::Delete { id } => self.tis.retain(|ti| ti.id != *id),
            Decision::Schedule { id, new_try } => {
                let ti = self.by_id(*id);
                assert!(candidate(ti.state), "{ti:?}");
                ti.try_number += i32::from(*new_try);
                ti.state = Some(TaskInstanceState::Scheduled);
            }
            Decision::SucceedEmpty { id } => {
                let ti = self.by_id(*id);
                assert!(candidate(ti.state), "{ti:?}");
                ti.try_number += 1;
                ti.state = Some(TaskInstanceState::Success);
                ti.start_date = Some(now);
                ti.end_date = Some(now);
            }
            Decision::Mark { id, from, to } => {
                let ti = self.by_id(*id);
                assert_eq!(ti.state, *from, "{ti:?}");
                ti.state = Some(*to);
            }
            Decision::Force { id, from, to } => {
                let ti = self.by_id(*id);
                assert_eq!(ti.state, *from, "{ti:?}");
                // A finished state is left for "removed" alone.
                assert!(
                    from.is_none_or(|from| !from.is_finished())
                        || *to == TaskInstanceState::Removed
                );
                ti.state = Some(*to);
                ti.start_date = ti.start_date.or(Some(now));
                ti.end_date = Some(now);
            }
            Decision::Restore { id } => {
                let ti = self.by_id(*id);
                assert_eq!(ti.state, Some(TaskInstanceState::Removed));
                ti.state = None;
            }
            Decision::Expand { id } => {
                let ti = self.by_id(*id);
                assert_eq!(ti.map_index, -1);
                ti.map_index = 0;
            }
        }
    }

    fn by_id(&mut self, id: Uuid) -> &mut TaskInstance {
        self.tis.iter_mut().find(|ti| ti.id == id).unwrap()
    }
}

pub(crate) fn name(ti: &TaskInstance) -> String {
    match ti.map_index {
        -1 => ti.task_id.clone(),
        index => format!("{}[{index}]", ti.task_id),
    }
}

fn row(id: Uuid, new: NewTaskInstance) -> TaskInstance {
    TaskInstance {
        id,
        task_id: new.task_id,
        map_index: new.map_index,
        state: None,
        try_number: 0,
        max_tries: new.max_tries,
        start_date: None,
        end_date: None,
        pool: new.pool,
        pool_slots: new.pool_slots,
        queue: new.queue,
        priority_weight: new.priority_weight,
        dag_version_id: None,
        retry_delay_override: None,
        has_next_method: false,
    }
}
