//! Which of the files that were found have to be looked into. Reads files and compares with what is known; starts
//! nothing and writes nothing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use metadata::dag_files::DagFile;

use crate::Which;
use crate::discover::{Found, Stat, What, might_contain_dag};
use crate::memory::{self, Again, Inputs, Memory, SOURCE_BYTES, compare_inputs, sha256};
use crate::report::{FileReport, Outcome};

/// What a sync has to do.
#[derive(Debug, Default)]
pub(crate) struct Triage {
    pub(crate) tasks: Vec<Task>,
    pub(crate) unchanged: Vec<FileReport>,
    /// Rows whose file is the same with another time.
    pub(crate) touched: Vec<DagFile>,
    /// Files that are no more, and whether they held DAGs or an error.
    pub(crate) gone: Vec<(String, bool)>,
    /// What each known file held last, by path.
    pub(crate) claims: HashMap<String, Vec<String>>,
    /// The folder was never synced.
    pub(crate) is_first: bool,
}

/// A file to look into.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) path: String,
    pub(crate) full: PathBuf,
    pub(crate) stat: Stat,
    pub(crate) sha256: String,
    pub(crate) source: String,
    /// It can't be parsed, for this reason.
    pub(crate) failure: Option<String>,
    /// Else it is a module that others import.
    pub(crate) is_dag: bool,
    /// It had DAGs or an error before.
    pub(crate) is_known: bool,
    /// How often this content failed for reasons that may pass.
    pub(crate) failures_before: u32,
}

impl Triage {
    /// Whether Airflow's tables have to be touched at all.
    pub(crate) fn must_write(&self, tasks: &[Task], which: Which) -> bool {
        let of_interest = |task: &Task| task.is_dag || task.failure.is_some() || task.is_known;
        tasks.iter().any(of_interest)
            || (self.looks_for_gone(which) && !self.is_first_and_empty(tasks))
    }

    pub(crate) fn looks_for_gone(&self, which: Which) -> bool {
        self.is_first || which == Which::All || self.gone.iter().any(|(_, had_dags)| *had_dags)
    }

    fn is_first_and_empty(&self, tasks: &[Task]) -> bool {
        self.is_first && tasks.is_empty()
    }

    /// Who holds which DAG among the files that are not looked into.
    pub(crate) fn holders(&self) -> HashMap<String, String> {
        let mut holders = HashMap::new();
        for file in &self.unchanged {
            for dag_id in self.claims.get(&file.path).into_iter().flatten() {
                holders.insert(dag_id.clone(), file.path.clone());
            }
        }
        holders
    }
}

/// How a file compares with its row.
enum Comparison {
    Same,
    Touched(DagFile),
    Look(Task),
}

pub(crate) fn triage(
    folder: &Path,
    found: &[Found],
    rows: Vec<DagFile>,
    which: Which,
    parser_hash: &str,
    changed_answers: &HashSet<String>,
    now: DateTime<Utc>,
) -> Triage {
    let mut triage = Triage {
        is_first: rows.is_empty(),
        ..Triage::default()
    };
    let mut known: HashMap<String, (DagFile, Option<Memory>)> = rows
        .into_iter()
        .map(|row| (row.path.clone(), (Memory::of(&row), row)))
        .map(|(path, (memory, row))| (path, (row, memory)))
        .collect();
    for (path, (_, memory)) in &known {
        let claims = memory.as_ref().map_or(&[][..], Memory::claims).to_vec();
        triage.claims.insert(path.clone(), claims);
    }
    let mut same = Vec::new();
    for found in found {
        // A row may be believed if it was made by the same parser and nothing else wants a look.
        let row = known.remove(&found.path);
        let believed = row.as_ref().and_then(|(row, memory)| {
            let memory = memory.as_ref()?;
            let stale = which == Which::All
                || row.parser_hash != parser_hash
                || changed_answers.contains(&row.path)
                || memory.is_due(row.parsed_at, now);
            (!stale).then_some((row, memory))
        });
        match compare(
            folder,
            found,
            row.as_ref().map(|(row, memory)| (row, memory.as_ref())),
            believed,
            now,
        ) {
            Comparison::Same => same.extend(row),
            Comparison::Touched(row) => {
                let memory = Memory::of(&row);
                triage.touched.push(row.clone());
                same.push((row, memory));
            }
            Comparison::Look(task) => triage.tasks.push(task),
        }
    }
    triage.gone = known
        .into_iter()
        .map(|(path, (_, memory))| (path, !matches!(memory, Some(Memory::NoDag))))
        .collect();
    triage.gone.sort();
    look_again_for_others_sake(found, same, &mut triage, now);
    triage
}

/// Files that failed for another file's sake are looked into when any other changed; all else stays unchanged.
fn look_again_for_others_sake(
    found: &[Found],
    same: Vec<(DagFile, Option<Memory>)>,
    triage: &mut Triage,
    now: DateTime<Utc>,
) {
    let others_changed = !triage.tasks.is_empty() || !triage.gone.is_empty();
    for (row, memory) in same {
        let waits = matches!(
            memory,
            Some(Memory::Failed {
                again: Again::WhenOthersChange,
                ..
            })
        );
        let again = found
            .iter()
            .find(|found| waits && others_changed && found.path == row.path)
            .map(|found| look(found, Some((&row, memory.as_ref())), now));
        match (again, memory) {
            (Some(task), _) => {
                triage.touched.retain(|touched| touched.path != row.path);
                triage.tasks.push(task);
            }
            (None, Some(Memory::Parsed { dag_ids, .. })) => {
                triage.unchanged.push(unchanged(row.path, dag_ids, None));
            }
            (
                None,
                Some(Memory::Failed {
                    claims, message, ..
                }),
            ) => {
                triage
                    .unchanged
                    .push(unchanged(row.path, claims, Some(message)));
            }
            (None, Some(Memory::NoDag) | None) => {}
        }
    }
    triage.tasks.sort_by(|a, b| a.path.cmp(&b.path));
}

fn unchanged(path: String, dag_ids: Vec<String>, error: Option<String>) -> FileReport {
    FileReport {
        path,
        outcome: Outcome::Unchanged { dag_ids, error },
        warnings: Vec::new(),
        seconds: 0.0,
    }
}

fn compare(
    folder: &Path,
    found: &Found,
    row: Option<(&DagFile, Option<&Memory>)>,
    believed: Option<(&DagFile, &Memory)>,
    now: DateTime<Utc>,
) -> Comparison {
    let Some((known, memory)) = believed else {
        return Comparison::Look(look(found, row, now));
    };
    let same_stat = match &found.what {
        What::Python(stat) => stat.size == known.size && stat.mtime_ns == known.mtime_ns,
        What::Refused(_) => false,
    };
    let inputs = compare_inputs(folder, memory.inputs(), now);
    if same_stat && inputs == Inputs::Unchanged {
        return Comparison::Same;
    }
    let task = look(found, row, now);
    if task.sha256 != known.sha256 || inputs == Inputs::Changed {
        return Comparison::Look(task);
    }
    if matches!(found.what, What::Refused(_)) {
        return Comparison::Same;
    }
    let memory = match inputs {
        Inputs::Touched(present) => memory.clone().with_inputs(present),
        Inputs::Unchanged | Inputs::Changed => memory.clone(),
    };
    Comparison::Touched(DagFile {
        size: task.stat.size,
        mtime_ns: task.stat.mtime_ns,
        outcome: memory.to_text(),
        ..known.clone()
    })
}

/// Reads a file, as far as that is needed to know what it is.
fn look(found: &Found, row: Option<(&DagFile, Option<&Memory>)>, now: DateTime<Utc>) -> Task {
    let mut task = Task {
        path: found.path.clone(),
        full: found.full.clone(),
        stat: Stat {
            size: 0,
            mtime_ns: -1,
        },
        sha256: String::new(),
        source: String::new(),
        failure: None,
        is_dag: false,
        is_known: matches!(row, Some((_, memory)) if !matches!(memory, Some(Memory::NoDag))),
        failures_before: 0,
    };
    match &found.what {
        What::Refused(why) => task.failure = Some(why.clone()),
        What::Python(_) => match memory::read(&found.full, now) {
            Err(error) => {
                task.failure = Some(format!(
                    "it cannot be read: {error}\nhint: see its owner and permissions"
                ));
            }
            Ok(content) => {
                task.is_dag = might_contain_dag(&content.bytes);
                if content.too_large && task.is_dag {
                    task.failure = Some(too_large(content.stat.size));
                }
                task.stat = content.stat;
                task.sha256 = content.sha256;
                task.source = String::from_utf8_lossy(&content.bytes).into_owned();
            }
        },
    }
    if let Some(why) = &task.failure
        && task.sha256.is_empty()
    {
        task.sha256 = sha256(why.as_bytes());
    }
    if let Some((
        row,
        Some(Memory::Failed {
            again: Again::Later { failures },
            ..
        }),
    )) = row
        && row.sha256 == task.sha256
    {
        task.failures_before = *failures;
    }
    task
}

pub(crate) fn too_large(size: i64) -> String {
    format!(
        "it has {size} bytes; a DAG file may have {SOURCE_BYTES}\nhint: keep data in files of their own, which the DAG reads"
    )
}
