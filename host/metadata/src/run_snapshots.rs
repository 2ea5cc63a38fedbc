//! Running runs that have something to decide, loaded with a fixed number of queries however many they are.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use model::{DagRun, TaskInstance};
use scheduler::snapshot::{PreviousRun, RunSnapshot, SkipXcom};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::rows::{self, dag_run_columns, task_instance_columns};
use crate::{Error, history};

/// A running run, and whether its DAG lets new work start.
#[derive(Debug, Clone)]
pub struct Examined {
    pub run: DagRun,
    /// A paused DAG's runs may end, but nothing new starts in them.
    /// `airflow: SchedulerJobRunner._update_dag_run_state_for_paused_dags`
    pub is_paused: bool,
}

/// Which running runs to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those in which something changed since they were last looked at, and those whose wake-up time has come.
    Changed,
    /// Those that nobody has looked at since they started.
    New,
}

/// The running runs to look at, their rows locked. Cost follows the runs that are running, never history.
///
/// # Errors
/// The database's errors.
pub async fn to_examine(
    db: &mut PgConnection,
    which: Which,
    now: DateTime<Utc>,
) -> Result<Vec<Examined>, Error> {
    // Ten seconds back: a task instance's updated_at is taken before its transaction commits, so a change may
    // become visible after a decision that is dated later.
    let rows = sqlx::query(concat!(
        "SELECT ",
        dag_run_columns!(),
        ", d.is_paused \
           FROM dag_run dr JOIN dag d ON d.dag_id = dr.dag_id AND NOT d.is_stale \
          WHERE dr.state = 'running' AND dr.run_after <= $1 \
            AND (dr.last_scheduling_decision IS NULL \
                 OR $2 AND (EXISTS (SELECT FROM task_instance ti \
                             WHERE ti.dag_id = dr.dag_id AND ti.run_id = dr.run_id \
                               AND ti.updated_at > dr.last_scheduling_decision - interval '10 s') \
                 OR EXISTS (SELECT FROM modalflow.run_wake w \
                             WHERE w.dag_run_id = dr.id \
                               AND (w.wake_at <= $1 \
                                    OR w.is_held AND NOT d.is_paused \
                                    OR w.after_run_id IS NOT NULL \
                                       AND (EXISTS (SELECT FROM task_instance ti \
                                                     WHERE ti.dag_id = dr.dag_id AND ti.run_id = w.after_run_id \
                                                       AND ti.updated_at > dr.last_scheduling_decision - interval '10 s') \
                                            OR NOT EXISTS (SELECT FROM dag_run before \
                                                            WHERE before.dag_id = dr.dag_id \
                                                              AND before.run_id = w.after_run_id)))) \
                 OR EXISTS (SELECT FROM dag_version v JOIN serialized_dag s ON s.dag_version_id = v.id \
                             WHERE v.dag_id = dr.dag_id AND s.last_updated > dr.last_scheduling_decision))) \
          ORDER BY dr.last_scheduling_decision NULLS FIRST, dr.run_after \
            FOR NO KEY UPDATE OF dr SKIP LOCKED",
    ))
    .bind(now)
    .bind(which == Which::Changed)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Examined {
                run: rows::dag_run(row)?,
                is_paused: row.try_get("is_paused")?,
            })
        })
        .collect()
}

/// Which optional parts a snapshot needs; the DAG says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The latest version of the DAG.
    pub version: Uuid,
    /// A task maps over the output of another: lengths and counts are read.
    pub mapped_lengths: bool,
    /// A task can skip its downstream: `skipmixin_key` is read.
    pub skips: bool,
    /// A task depends on the past: the run before is read.
    pub previous_run: bool,
}

/// Everything that the dependencies of the runs' task instances look at, in the order of `runs`.
///
/// # Errors
/// The database's errors, and [`Error::Row`] on a state that Airflow 3.3.2 does not have.
pub async fn load(
    db: &mut PgConnection,
    runs: Vec<(DagRun, Needs)>,
) -> Result<Vec<RunSnapshot>, Error> {
    let ids: Vec<i32> = runs.iter().map(|(run, _)| run.id).collect();
    let with = |pick: fn(&Needs) -> bool| -> Vec<i32> {
        runs.iter()
            .filter(|(_, needs)| pick(needs))
            .map(|(run, _)| run.id)
            .collect()
    };
    let mut task_instances = task_instances(db, &ids).await?;
    let mut skips = skips(db, &with(|needs| needs.skips)).await?;
    let mapped = with(|needs| needs.mapped_lengths);
    let mut mapped_lengths = mapped_lengths(db, &mapped).await?;
    let mut return_values = return_values(db, &mapped).await?;
    let mut reschedules = reschedule_dates(db, &ids).await?;
    let mut snapshots = Vec::with_capacity(runs.len());
    for (run, needs) in runs {
        let previous = if needs.previous_run {
            previous_run(db, &run).await?
        } else {
            None
        };
        let ordinal = backfill_ordinal(db, &run).await?;
        let task_instances = task_instances.remove(&run.id).unwrap_or_default();
        let has_version = |ti: &TaskInstance| ti.dag_version_id == Some(needs.version);
        let dag_changed = !task_instances.iter().any(has_version)
            && !history::has_version(db, &run, needs.version).await?;
        snapshots.push(RunSnapshot {
            task_instances,
            dag_changed,
            skips: skips.remove(&run.id).unwrap_or_default(),
            mapped_lengths: mapped_lengths.remove(&run.id).unwrap_or_default(),
            return_values: return_values.remove(&run.id).unwrap_or_default(),
            reschedule_dates: reschedules.remove(&run.id).unwrap_or_default(),
            previous_run: previous,
            backfill_sort_ordinal: ordinal,
            run,
        });
    }
    Ok(snapshots)
}

type ByRun<T> = HashMap<i32, T>;

async fn task_instances(
    db: &mut PgConnection,
    runs: &[i32],
) -> Result<ByRun<Vec<model::TaskInstance>>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT dr.id AS run, ",
        task_instance_columns!(),
        "  FROM dag_run dr JOIN task_instance ti ON ti.dag_id = dr.dag_id AND ti.run_id = dr.run_id \
          WHERE dr.id = ANY($1) ORDER BY ti.task_id, ti.map_index",
    ))
    .bind(runs)
    .fetch_all(db)
    .await?;
    let mut by_run: ByRun<Vec<_>> = HashMap::new();
    for row in &rows {
        by_run
            .entry(row.try_get("run")?)
            .or_default()
            .push(rows::task_instance(row)?);
    }
    Ok(by_run)
}

/// `airflow: NotPreviouslySkippedDep`
async fn skips(db: &mut PgConnection, runs: &[i32]) -> Result<ByRun<Vec<SkipXcom>>, Error> {
    if runs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(i32, String, i32, Option<serde_json::Value>)> = sqlx::query_as(
        "SELECT dag_run_id, task_id, map_index, value FROM xcom \
          WHERE dag_run_id = ANY($1) AND key = 'skipmixin_key'",
    )
    .bind(runs)
    .fetch_all(db)
    .await?;
    let mut by_run: ByRun<Vec<_>> = HashMap::new();
    for (run, task_id, map_index, value) in rows {
        let value = value.unwrap_or_default();
        by_run.entry(run).or_default().push(SkipXcom {
            task_id,
            map_index,
            value,
        });
    }
    Ok(by_run)
}

async fn mapped_lengths(
    db: &mut PgConnection,
    runs: &[i32],
) -> Result<ByRun<HashMap<String, i64>>, Error> {
    if runs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(i32, String, i32)> = sqlx::query_as(
        "SELECT dr.id, m.task_id, m.length \
           FROM dag_run dr JOIN task_map m ON m.dag_id = dr.dag_id AND m.run_id = dr.run_id \
          WHERE dr.id = ANY($1) AND m.map_index < 0",
    )
    .bind(runs)
    .fetch_all(db)
    .await?;
    let mut by_run: ByRun<HashMap<_, _>> = HashMap::new();
    for (run, task_id, length) in rows {
        by_run
            .entry(run)
            .or_default()
            .insert(task_id, i64::from(length));
    }
    Ok(by_run)
}

async fn return_values(
    db: &mut PgConnection,
    runs: &[i32],
) -> Result<ByRun<HashMap<String, i64>>, Error> {
    if runs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(i32, String, i64)> = sqlx::query_as(
        "SELECT dag_run_id, task_id, count(*) FROM xcom \
          WHERE dag_run_id = ANY($1) AND key = 'return_value' AND map_index >= 0 \
          GROUP BY dag_run_id, task_id",
    )
    .bind(runs)
    .fetch_all(db)
    .await?;
    let mut by_run: ByRun<HashMap<_, _>> = HashMap::new();
    for (run, task_id, count) in rows {
        by_run.entry(run).or_default().insert(task_id, count);
    }
    Ok(by_run)
}

async fn reschedule_dates(
    db: &mut PgConnection,
    runs: &[i32],
) -> Result<ByRun<HashMap<Uuid, DateTime<Utc>>>, Error> {
    let rows: Vec<(i32, Uuid, DateTime<Utc>)> = sqlx::query_as(
        "SELECT DISTINCT ON (ti.id) dr.id, ti.id, r.reschedule_date \
           FROM dag_run dr \
           JOIN task_instance ti ON ti.dag_id = dr.dag_id AND ti.run_id = dr.run_id \
           JOIN task_reschedule r ON r.ti_id = ti.id \
          WHERE dr.id = ANY($1) AND ti.state = 'up_for_reschedule' \
          ORDER BY ti.id, r.id DESC",
    )
    .bind(runs)
    .fetch_all(db)
    .await?;
    let mut by_run: ByRun<HashMap<_, _>> = HashMap::new();
    for (run, ti, date) in rows {
        by_run.entry(run).or_default().insert(ti, date);
    }
    Ok(by_run)
}

/// The latest run with an earlier logical date; scheduled ones and, without catchup, any type: which of the two
/// counts is for the scheduler to say, so both are the newest of any type here unless it asks otherwise.
/// `airflow: DagRun.get_previous_dagrun`
async fn previous_run(db: &mut PgConnection, run: &DagRun) -> Result<Option<PreviousRun>, Error> {
    let Some(logical_date) = run.logical_date else {
        return Ok(None);
    };
    let previous: Option<(String, Option<DateTime<Utc>>)> = sqlx::query_as(
        "SELECT dr.run_id, dr.logical_date FROM dag_run dr \
          WHERE dr.dag_id = $1 AND dr.logical_date < $2 \
          ORDER BY dr.logical_date DESC LIMIT 1",
    )
    .bind(&run.dag_id)
    .bind(logical_date)
    .fetch_optional(&mut *db)
    .await?;
    let Some((run_id, previous_date)) = previous else {
        return Ok(None);
    };
    let rows = sqlx::query(
        "SELECT ti.task_id, ti.map_index, ti.state FROM task_instance ti \
          WHERE ti.dag_id = $1 AND ti.run_id = $2",
    )
    .bind(&run.dag_id)
    .bind(&run_id)
    .fetch_all(&mut *db)
    .await?;
    let mut task_instances = Vec::with_capacity(rows.len());
    for row in &rows {
        let task_id: String = row.try_get("task_id")?;
        let state = rows::optional_name(row, "task_instance", "state", &task_id)?;
        task_instances.push((task_id, row.try_get("map_index")?, state));
    }
    // Only of tasks that the previous run does not have, and one row of each: a DAG may have had many runs.
    let tasks_with_history: Vec<String> = sqlx::query_scalar(
        "SELECT task_id FROM (SELECT task_id FROM task_instance WHERE dag_id = $1 AND run_id = $3 \
                              EXCEPT SELECT task_id FROM task_instance WHERE dag_id = $1 AND run_id = $4) new \
          WHERE EXISTS (SELECT FROM task_instance ti \
                          JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id \
                         WHERE ti.dag_id = $1 AND ti.task_id = new.task_id AND dr.logical_date < $2)",
    )
    .bind(&run.dag_id)
    .bind(logical_date)
    .bind(&run.run_id)
    .bind(&run_id)
    .fetch_all(db)
    .await?;
    Ok(Some(PreviousRun {
        run_id,
        logical_date: previous_date,
        task_instances,
        tasks_with_history,
    }))
}

async fn backfill_ordinal(db: &mut PgConnection, run: &DagRun) -> Result<Option<i32>, Error> {
    let Some(backfill) = run.backfill_id else {
        return Ok(None);
    };
    Ok(sqlx::query_scalar(
        "SELECT sort_ordinal FROM backfill_dag_run WHERE backfill_id = $1 AND dag_run_id = $2",
    )
    .bind(backfill)
    .bind(run.id)
    .fetch_optional(db)
    .await?)
}
