//! From a child's end to what its file holds, or to the one text that says what happened and how to mend it.
//! The bytes of a child are anybody's: everything is checked before it is believed.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{SerializedDag, SerializedTask, WeightRule};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::memory::Again;
use crate::parser::{End, Ended};
use crate::text;

/// What a file holds, as far as its child tells.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) dags: Vec<ParsedDag>,
    pub(crate) warnings: Vec<String>,
    pub(crate) dag_warnings: Vec<DagWarning>,
    /// Absolute paths of files and folders that it read.
    pub(crate) inputs: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct ParsedDag {
    pub(crate) dag_id: String,
    /// As it was sent: big numbers and the order of keys are Airflow's business.
    pub(crate) raw: Box<RawValue>,
    pub(crate) data: Value,
    pub(crate) dag: SerializedDag,
    /// By task id, of the tasks whose weight rule is a class of the user's own.
    pub(crate) weights: BTreeMap<String, i32>,
}

/// A row for Airflow's `dag_warning`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(crate) struct DagWarning {
    pub(crate) dag_id: String,
    pub(crate) warning_type: String,
    pub(crate) message: String,
}

/// Why a file does not import.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) again: Again,
    pub(crate) inputs: Vec<String>,
}

impl Failure {
    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        Self {
            message: text::cut(message.as_ref().trim_end(), text::ERROR_BYTES),
            again: Again::Never,
            inputs: Vec::new(),
        }
    }

    fn passing(message: &str) -> Self {
        Self {
            again: Again::Later { failures: 1 },
            ..Self::new(message)
        }
    }
}

/// The child's frame.
#[derive(Deserialize)]
struct Frame {
    #[serde(default)]
    broken: Option<String>,
    #[serde(default)]
    dags: Vec<Box<RawValue>>,
    #[serde(default)]
    errors: BTreeMap<String, String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    dag_warnings: Vec<DagWarning>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    weights: BTreeMap<String, BTreeMap<String, i32>>,
}

pub(crate) fn judge(ended: &Ended, limit: Duration) -> Result<Parsed, Failure> {
    match ended.end {
        End::Result => read(&ended.body),
        End::Timeout => Err(Failure::passing(&timeout(&ended.stderr, limit))),
        End::Exit { code } => Err(Failure::new(format!(
            "the file ended the process that parsed it, with exit code {code} and without a result\nhint: look for os._exit, or for a library that ends the process when it is imported{}",
            said(&ended.stderr)
        ))),
        End::Signal { signal } => Err(killed(signal, &ended.stderr)),
        End::Garbage => Err(garbage(
            "it sent something else than a result",
            &ended.stderr,
        )),
        End::TooLarge => Err(Failure::new(
            "the DAGs of the file are larger than 32 MiB when serialized\nhint: split it into several files, and pass large values by reference",
        )),
        End::Parser => Err(Failure::passing(
            "the file took down the whole DAG parser\nhint: look for code at its top level that signals other processes or uses up all memory",
        )),
    }
}

fn timeout(stderr: &str, limit: Duration) -> String {
    let mut message = format!(
        "the file took longer than {} s to import and was stopped",
        limit.as_secs_f64()
    );
    // faulthandler's picture of the main thread, innermost call first.
    let frames: Vec<&str> = stderr
        .rsplit_once("Timeout (")
        .map(|(_, dump)| dump.lines().filter(|line| line.starts_with("  File ")))
        .into_iter()
        .flatten()
        .take_while(|line| !line.contains("importlib._bootstrap"))
        .take(8)
        .collect();
    if !frames.is_empty() {
        message.push_str("\nit was at (innermost call first):\n");
        message.push_str(&frames.join("\n"));
    }
    message.push_str("\nhint: move slow work from the top level of the file into tasks, or raise scheduler.parse_timeout_seconds");
    message
}

fn killed(signal: i32, stderr: &str) -> Failure {
    let name = nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
    let hint = match name.as_str() {
        "SIGSEGV" | "SIGBUS" | "SIGILL" | "SIGFPE" | "SIGABRT" => {
            "a compiled library crashed while it was imported or used; see where below, and try another version of it"
        }
        "SIGXCPU" => "move heavy work from the top level of the file into tasks",
        "SIGXFSZ" => "it wrote a file of more than 64 MiB; do that inside a task",
        "SIGKILL" => {
            "the system may have run out of memory, or the file's own code sent the signal"
        }
        _ => "look for code at the top level of the file that sends signals",
    };
    let message = format!(
        "the process that parsed the file was killed by {name}\nhint: {hint}{}",
        said(stderr)
    );
    if name == "SIGKILL" {
        Failure::passing(&message)
    } else {
        Failure::new(message)
    }
}

fn garbage(what: &str, stderr: &str) -> Failure {
    Failure::new(format!(
        "the result of parsing the file cannot be read: {what}\nhint: look for code at the top level of the file that writes to file descriptors it did not open{}",
        said(stderr)
    ))
}

fn said(stderr: &str) -> String {
    let last = text::last_lines(&legible(stderr), 20);
    if last.is_empty() {
        String::new()
    } else {
        format!("\nits last words on stderr:\n{}", text::cut(&last, 8 << 10))
    }
}

/// Only text, and of faulthandler's picture of the stack only the user's part: below it is what imported the file.
fn legible(stderr: &str) -> String {
    let mut is_below = false;
    let mut kept = Vec::new();
    for line in stderr.lines() {
        let is_frame = line.starts_with("  File ");
        is_below = is_frame && (is_below || line.contains("<frozen importlib._bootstrap>"));
        let is_text = !line
            .contains(|c: char| c == char::REPLACEMENT_CHARACTER || (c.is_control() && c != '\t'));
        if !is_below && is_text && !line.starts_with("Extension modules:") {
            kept.push(line);
        }
    }
    kept.join("\n")
}

fn read(body: &[u8]) -> Result<Parsed, Failure> {
    let frame: Frame =
        serde_json::from_slice(body).map_err(|error| garbage(&error.to_string(), ""))?;
    let with_inputs = |failure: Failure| Failure {
        inputs: frame.inputs.clone(),
        ..failure
    };
    if let Some(broken) = &frame.broken {
        return Err(with_inputs(Failure::new(format!(
            "the file broke the code that parses it:\n{}",
            mended(broken)
        ))));
    }
    if !frame.errors.is_empty() {
        let errors: Vec<String> = frame.errors.values().map(|text| mended(text)).collect();
        return Err(with_inputs(Failure::new(errors.join("\n\n"))));
    }
    let mut dags = Vec::with_capacity(frame.dags.len());
    for raw in frame.dags {
        dags.push(read_dag(raw, &frame.weights)?);
    }
    // Airflow keeps a module's DAGs in a set.
    dags.sort_by(|a, b| a.dag_id.cmp(&b.dag_id));
    Ok(Parsed {
        dags,
        warnings: frame
            .warnings
            .iter()
            .map(|text| text::cut(text, 2000))
            .collect(),
        dag_warnings: frame.dag_warnings,
        inputs: frame.inputs,
    })
}

fn read_dag(
    raw: Box<RawValue>,
    weights: &BTreeMap<String, BTreeMap<String, i32>>,
) -> Result<ParsedDag, Failure> {
    let data: Value =
        serde_json::from_str(raw.get()).map_err(|error| garbage(&error.to_string(), ""))?;
    let dag_id = match &data["dag"]["dag_id"] {
        Value::String(dag_id) => dag_id.clone(),
        _ => return Err(garbage("a DAG without a dag_id", "")),
    };
    if holds_class_path(&data["dag"]["deadline"]) {
        // Airflow imports what it names, in the process that has the database's URL.
        return Err(Failure::new(format!(
            "the DAG {dag_id} has a deadline with a reference of its own class, which is not supported\nhint: use one of DeadlineReference"
        )));
    }
    let dag = SerializedDag::parse(&data).map_err(|error| {
        let mut message = format!("the DAG {dag_id}: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Failure::new(message)
    })?;
    let weights = weights.get(&dag_id).cloned().unwrap_or_default();
    let is_custom = |task: &&SerializedTask| matches!(task.weight_rule, WeightRule::Custom(_));
    if let Some(task) = dag
        .tasks
        .iter()
        .filter(is_custom)
        .find(|task| !weights.contains_key(&task.task_id))
    {
        let lost = match task.is_mapped() {
            // Airflow stores the rule's `repr` with it, and fails with each run.
            true => {
                "is mapped and has a weight rule of its own class, which Airflow does not store\nhint: set the rule on tasks that are not mapped, or give this one a priority_weight"
            }
            false => "got no weight from its weight rule",
        };
        return Err(Failure::new(format!(
            "the DAG {dag_id}: the task {:?} {lost}",
            task.task_id
        )));
    }
    Ok(ParsedDag {
        dag_id,
        raw,
        data,
        dag,
        weights,
    })
}

fn holds_class_path(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.contains_key("__class_path") || fields.values().any(holds_class_path)
        }
        Value::Array(items) => items.iter().any(holds_class_path),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// An exception's text, with what to do about those that people meet most.
fn mended(text: &str) -> String {
    let text = text.trim_end();
    let hint = HINTS.iter().find_map(|(mark, hint)| {
        text.lines()
            .rev()
            .take(4)
            .any(|line| line.starts_with(mark))
            .then_some(hint)
    });
    match hint {
        Some(hint) => format!("{text}\nhint: {hint}"),
        None => text.to_owned(),
    }
}

const HINTS: [(&str, &str); 8] = [
    (
        "ModuleNotFoundError",
        "put the module into the DAG folder, or install its package into the environment",
    ),
    (
        "SystemExit",
        "take sys.exit out of the top level of the file; code that runs only by hand belongs under `if __name__ == \"__main__\":`",
    ),
    (
        "MemoryError",
        "a DAG file may take 1 GiB while it is parsed; load data inside tasks",
    ),
    (
        "RecursionError",
        "look for a function at the top level of the file that calls itself without end",
    ),
    (
        "BlockingIOError: [Errno 11]",
        "a DAG file may start few processes and threads while it is parsed; start them inside tasks",
    ),
    (
        "SyntaxError: source code string cannot contain null bytes",
        "save the file as UTF-8 text",
    ),
    (
        "SyntaxError: (unicode error)",
        "save the file as UTF-8, or declare its encoding in its first line",
    ),
    (
        "PermissionError",
        "while it is parsed, a DAG file reads Python and the DAG folder and writes nothing but temporary files; do it inside a task",
    ),
];
