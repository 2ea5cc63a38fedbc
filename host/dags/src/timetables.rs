//! The Python process that asks timetables of users' own classes (`host/python/timetables.py`). A class that raises,
//! hangs or ends the process costs its own DAG an answer, nobody else.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use model::TimetableData;
use scheduler::runs::TimeRestriction;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::helper::{Helper, Program};
use crate::{Result, plugins};

/// For one answer. Airflow's scheduler would wait for ever, and with it every DAG.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Starts the process when it is asked something, and keeps it.
pub struct Timetables {
    program: Program,
    plugins_folder: Option<PathBuf>,
    limit: Duration,
    helper: Option<(Helper, String)>,
    used: Instant,
}

/// What the process needs.
#[derive(Debug, Clone)]
pub struct TimetableSettings {
    /// The interpreter that has Airflow.
    pub python: PathBuf,
    /// A private directory of ours.
    pub scratch: PathBuf,
    /// The process's whole environment, with the database's URL: a timetable may read Variables.
    pub environment: Vec<(String, String)>,
    /// Of one answer.
    pub limit: Duration,
}

/// A run as a timetable gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDates {
    pub logical_date: Option<DateTime<Utc>>,
    pub data_interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    pub run_after: DateTime<Utc>,
    pub partition_key: Option<String>,
    pub partition_date: Option<DateTime<Utc>>,
}

/// The next run, as a timetable tells it. `airflow: DagRunInfo`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NextRun {
    pub logical_date: Option<DateTime<Utc>>,
    pub start: Option<DateTime<Utc>>,
    pub end: Option<DateTime<Utc>>,
    pub run_after: DateTime<Utc>,
    pub partition_key: Option<String>,
    pub partition_date: Option<DateTime<Utc>>,
    pub run_id: String,
}

/// What a run that somebody asks for is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualQuestion {
    /// As `manual`.
    pub run_type: String,
    pub run_after: DateTime<Utc>,
    /// `None`: the run has no data interval.
    pub interval_at: Option<DateTime<Utc>>,
    /// Whether it needs a run id.
    pub needs_name: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ManualAnswer {
    pub start: Option<DateTime<Utc>>,
    pub end: Option<DateTime<Utc>>,
    pub run_id: Option<String>,
}

/// Why a timetable has no answer, for the DAG's author.
pub type Problem = String;

#[derive(Deserialize)]
struct Failed {
    failed: String,
}

#[derive(Deserialize)]
struct NextAnswer {
    next: Option<NextRun>,
}

#[derive(Deserialize)]
struct NameAnswer {
    run_id: String,
}

impl Timetables {
    #[must_use]
    pub fn new(settings: TimetableSettings) -> Self {
        Self {
            plugins_folder: plugins::folder(&settings.environment),
            program: Program {
                what: "timetables",
                name: "timetables",
                text: include_str!("../../python/timetables.py"),
                python: settings.python,
                scratch: settings.scratch,
                environment: settings.environment,
            },
            limit: settings.limit,
            helper: None,
            used: Instant::now(),
        }
    }

    /// Stops the process if nobody needed it for `idle`. It starts again by itself.
    pub fn rest(&mut self, idle: Duration) {
        if self.used.elapsed() >= idle {
            self.helper = None;
        }
    }

    /// The run after `last`. `airflow: DagModel.calculate_dagrun_date_fields`
    pub async fn next(
        &mut self,
        timetable: &TimetableData,
        restriction: TimeRestriction,
        last: Option<&RunDates>,
    ) -> Result<std::result::Result<Option<NextRun>, Problem>> {
        let TimeRestriction {
            earliest,
            latest,
            catchup,
        } = restriction;
        let request = json!({
            "op": "next",
            "timetable": encoded(timetable),
            "restriction": {"earliest": earliest, "latest": latest, "catchup": catchup},
            "last": last.map(run_dates),
        });
        let answer: std::result::Result<NextAnswer, Problem> =
            self.ask(timetable, &request).await?;
        Ok(answer.map(|answer| answer.next))
    }

    /// What the scheduled run with these dates is called. `airflow: Timetable.generate_run_id`
    pub async fn name(
        &mut self,
        timetable: &TimetableData,
        run: &RunDates,
    ) -> Result<std::result::Result<String, Problem>> {
        let mut request = run_dates(run);
        request["op"] = json!("name");
        request["run_type"] = json!("scheduled");
        request["timetable"] = encoded(timetable);
        let answer: std::result::Result<NameAnswer, Problem> =
            self.ask(timetable, &request).await?;
        Ok(answer.map(|answer| answer.run_id))
    }

    /// The data interval and id of a run that somebody asks for.
    /// `airflow: Timetable.infer_manual_data_interval, generate_run_id`
    pub async fn manual(
        &mut self,
        timetable: &TimetableData,
        question: &ManualQuestion,
    ) -> Result<std::result::Result<ManualAnswer, Problem>> {
        let request = json!({
            "op": "manual",
            "timetable": encoded(timetable),
            "run_type": question.run_type,
            "run_after": question.run_after,
            "interval_at": question.interval_at,
            "name": question.needs_name,
        });
        self.ask(timetable, &request).await
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &mut self,
        timetable: &TimetableData,
        request: &Value,
    ) -> Result<std::result::Result<T, Problem>> {
        let class = &timetable.class;
        // A plugin that changed is another class of the same name.
        let plugins = plugins::fingerprint(self.plugins_folder.as_deref());
        let running = self
            .helper
            .take()
            .filter(|(_, loaded)| *loaded == plugins)
            .map(|(helper, _)| helper);
        let mut helper = match running {
            Some(helper) => helper,
            None => self.program.launch()?,
        };
        helper
            .ready()
            .await
            .map_err(|error| self.program.ended(&error))?;
        let answer = helper.ask(request, self.limit).await;
        self.used = Instant::now();
        Ok(match answer {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(format!(
                "the timetable {class} gave no answer within {} s\n\
                 hint: look for a loop without end, or for a service that it waits for",
                self.limit.as_secs_f64()
            )),
            Err(_) => Err(format!(
                "the timetable {class} ended the process that asked it; it said:\n{}",
                self.program.last_words()
            )),
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                self.helper = Some((helper, plugins));
                match (read, serde_json::from_slice::<Failed>(&bytes)) {
                    (_, Ok(Failed { failed })) => Err(format!(
                        "the timetable {class} raised an exception:\n{failed}"
                    )),
                    (Ok(answer), Err(_)) => Ok(answer),
                    (Err(error), Err(_)) => Err(format!(
                        "the timetable {class} gave an answer that can't be read: {error}"
                    )),
                }
            }
        })
    }
}

fn encoded(timetable: &TimetableData) -> Value {
    json!({"__type": timetable.class, "__var": timetable.var})
}

fn run_dates(run: &RunDates) -> Value {
    json!({
        "logical_date": run.logical_date,
        "start": run.data_interval.map(|(start, _)| start),
        "end": run.data_interval.map(|(_, end)| end),
        "run_after": run.run_after,
        "partition_key": run.partition_key,
        "partition_date": run.partition_date,
    })
}
