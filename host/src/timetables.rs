//! Timetables of users' own classes: the questions that ticks left are answered here, beside the ticks and outside of
//! their transaction. A question outlives this process; its answer is written with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use dags::timetables::{
    LIMIT, ManualAnswer, ManualQuestion, NextRun, RunDates, TimetableSettings, Timetables,
};
use environment::{Environment, python};
use execution_api::ManualDates;
use metadata::serialized::SerializedDags;
use metadata::timetables::{self as questions, AfterRun, Wish};
use model::{SerializedDag, TimetableData};
use scheduler::runs::{TimeRestriction, custom_timetable};
use scheduler::snapshot::NextDagRun;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::clock;
use crate::dag_files;
use crate::serve::Wake;

/// Python stays this long after its last answer.
const IDLE: Duration = Duration::from_secs(120);
/// A timetable that failed is asked again after this long, then after twice as long, and so on.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(60);
const LAST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// Why no question can be answered; what is wrong with one timetable is kept with its question.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Dags(#[from] dags::Error),
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    #[error("{0}")]
    Timetable(String),
}

/// The Python process of an environment, which starts with the first question.
pub struct Helper {
    environment: Environment,
    process: Mutex<Option<Timetables>>,
}

impl Helper {
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        Self {
            environment: environment.clone(),
            process: Mutex::new(None),
        }
    }

    async fn open(&self) -> Result<Timetables, Error> {
        let python =
            python::ensure(self.environment.home(), &environment::progress::Silent).await?;
        Ok(Timetables::new(TimetableSettings {
            python: python.python,
            scratch: self.environment.run_dir().join("dags"),
            environment: dag_files::process_environment(
                &self.environment,
                environment::Purpose::DagSync,
            ),
            limit: LIMIT,
        }))
    }

    /// Answers what is asked now; each answer is true when it is committed.
    async fn answer_all(&self, pool: &PgPool, serialized: &SerializedDags) -> Result<(), Error> {
        let mut process = self.process.lock().await;
        let mut python = match process.take() {
            Some(python) => python,
            None => self.open().await?,
        };
        let ended = answer_all(&mut python, pool, serialized).await;
        *process = Some(python);
        ended
    }

    async fn rest(&self) {
        if let Ok(mut process) = self.process.try_lock()
            && let Some(python) = process.as_mut()
        {
            python.rest(IDLE);
        }
    }

    /// What a run that somebody asks for is to be, where only Python can tell; `None` where it need not be asked.
    ///
    /// # Errors
    /// When the timetable has no answer.
    pub async fn manual(
        &self,
        dag: &SerializedDag,
        question: ManualQuestion,
    ) -> Result<Option<ManualAnswer>, Error> {
        if custom_timetable(&dag.timetable).is_none()
            || (question.interval_at.is_none() && !question.needs_name)
        {
            return Ok(None);
        }
        let mut process = self.process.lock().await;
        let mut python = match process.take() {
            Some(python) => python,
            None => self.open().await?,
        };
        let answer = python.manual(&dag.timetable, &question).await;
        *process = Some(python);
        answer?.map(Some).map_err(Error::Timetable)
    }
}

#[async_trait]
impl ManualDates for Helper {
    async fn infer(
        &self,
        dag: &SerializedDag,
        run_type: &str,
        run_after: chrono::DateTime<chrono::Utc>,
    ) -> Result<execution_api::Interval, String> {
        let question = ManualQuestion {
            run_type: run_type.to_owned(),
            run_after,
            interval_at: Some(run_after),
            needs_name: false,
        };
        match self.manual(dag, question).await {
            Ok(answer) => Ok(answer.and_then(|answer| answer.start.zip(answer.end))),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn answer_all(
    python: &mut Timetables,
    pool: &PgPool,
    serialized: &SerializedDags,
) -> Result<(), Error> {
    let now = clock::now();
    let mut db = pool.acquire().await.map_err(metadata::Error::from)?;
    let wishes = questions::wishes(&mut db, now).await?;
    let dag_ids: Vec<String> = wishes.iter().map(|wish| wish.dag_id.clone()).collect();
    let stored = serialized.latest(&mut db, &dag_ids).await?;
    drop(db);
    for wish in &wishes {
        let answer = match stored.get(&wish.dag_id) {
            Some(Ok(stored)) if custom_timetable(&stored.dag.timetable).is_none() => {
                // Another timetable since: Airflow's sync has written its dates.
                Ok((wish.next.clone(), None))
            }
            Some(Ok(stored)) => answer(python, &stored.dag, wish).await?,
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the DAG has not been serialized yet".to_owned()),
        };
        let mut tx = pool.begin().await.map_err(metadata::Error::from)?;
        match answer {
            Ok((next, run_id)) => {
                questions::answer(&mut tx, wish, &next, run_id.as_deref()).await?;
            }
            Err(problem) => {
                tracing::warn!(dag_id = wish.dag_id, problem, "a timetable has no answer");
                // From now on, not from when the batch began: a class that hangs takes its time.
                let ended = clock::now();
                let not_before = ended + pause(wish.failures);
                questions::fail(&mut tx, wish, &problem, not_before, ended).await?;
            }
        }
        tx.commit().await.map_err(metadata::Error::from)?;
    }
    Ok(())
}

/// The next run and its name, or the name alone when the dates are there.
async fn answer(
    python: &mut Timetables,
    dag: &SerializedDag,
    wish: &Wish,
) -> Result<Result<(NextDagRun, Option<String>), String>, Error> {
    let timetable: &TimetableData = &dag.timetable;
    if let Some(run_after) = wish.next.create_after {
        let run = RunDates {
            logical_date: wish.next.logical_date,
            data_interval: wish
                .next
                .data_interval_start
                .zip(wish.next.data_interval_end),
            run_after,
            partition_key: wish.next.partition_key.clone(),
            partition_date: wish.next.partition_date,
        };
        let name = python.name(timetable, &run).await?;
        return Ok(name.map(|run_id| (wish.next.clone(), Some(run_id))));
    }
    let last = wish.last.clone().map(run_dates);
    let next = python
        .next(timetable, TimeRestriction::of(dag), last.as_ref())
        .await?;
    Ok(next.map(|next| match next {
        None => (NextDagRun::default(), None),
        Some(next) => {
            let run_id = next.run_id.clone();
            (next_dagrun(next), Some(run_id))
        }
    }))
}

fn run_dates(run: AfterRun) -> RunDates {
    RunDates {
        logical_date: run.logical_date,
        data_interval: run.data_interval_start.zip(run.data_interval_end),
        run_after: run.run_after,
        partition_key: run.partition_key,
        partition_date: run.partition_date,
    }
}

fn next_dagrun(next: NextRun) -> NextDagRun {
    NextDagRun {
        logical_date: next.logical_date,
        data_interval_start: next.start,
        data_interval_end: next.end,
        create_after: Some(next.run_after),
        partition_key: next.partition_key,
        partition_date: next.partition_date,
    }
}

fn pause(failures: i32) -> TimeDelta {
    let doublings = u32::try_from(failures).unwrap_or(0).min(10);
    (FIRST_PAUSE * 2_i32.pow(doublings)).min(LAST_PAUSE)
}

/// Answers while a loop ticks on.
#[derive(Default)]
pub(crate) struct Answering {
    work: Option<JoinHandle<()>>,
}

impl Answering {
    /// Starts to answer when a tick found something asked; asks for a tick when it is done.
    pub(crate) async fn follow(
        &mut self,
        helper: &Arc<Helper>,
        pool: &PgPool,
        serialized: &Arc<SerializedDags>,
        is_asked: bool,
        wake: &Wake,
    ) {
        if self.work.as_ref().is_some_and(JoinHandle::is_finished) {
            self.work = None;
        }
        if !is_asked {
            helper.rest().await;
            return;
        }
        if self.work.is_none() {
            let (helper, pool, serialized, wake) = (
                Arc::clone(helper),
                pool.clone(),
                Arc::clone(serialized),
                wake.clone(),
            );
            self.work = Some(tokio::spawn(async move {
                let ended = helper.answer_all(&pool, &serialized).await;
                if let Err(error) = ended {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "timetables of users' own classes can't be asked"
                    );
                    tokio::time::sleep(RETRY).await;
                }
                wake.ask();
            }));
        }
    }

    pub(crate) fn is_at_work(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.is_finished())
    }

    pub(crate) fn stop(self) {
        if let Some(work) = self.work {
            work.abort();
        }
    }
}

/// After Python itself could not be started.
const RETRY: Duration = Duration::from_secs(5);
