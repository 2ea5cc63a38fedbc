//! A due DAG whose timetable is a class of the user's own: its run is made from what Python said before, and what
//! Python must say next is noted.

use chrono::{DateTime, Utc};
use metadata::dag_runs::{Inserted, Origin};
use metadata::serialized::StoredDag;
use metadata::{dag_runs, due, timetables};
use scheduler::runs::{CustomDecision, due_custom};
use scheduler::snapshot::{DueDag, NextDagRun};
use sqlx::PgConnection;

use super::{Error, Report};

/// What the timetable called the run that is due at a time.
pub(super) type Named = Option<(DateTime<Utc>, String)>;

/// Answers whether the DAG moved on.
pub(super) async fn due_run(
    db: &mut PgConnection,
    stored: &StoredDag,
    due_dag: &DueDag,
    named: Named,
    origin: &Origin,
    report: &mut Report,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let dag_id = &due_dag.dag_id;
    let run_id = named
        .filter(|(run_after, _)| Some(*run_after) == due_dag.next.create_after)
        .map(|(_, run_id)| run_id);
    let after = match due_custom(&stored.dag, due_dag, run_id.as_deref()) {
        Ok(CustomDecision::Create { run }) => {
            if let Inserted::New(_) = dag_runs::insert(db, &run, origin, now).await? {
                report.runs_created += 1;
            }
            run.run_id
        }
        Ok(CustomDecision::Follow { run_id }) => run_id,
        Ok(CustomDecision::Name) => {
            timetables::ask_name(db, dag_id).await?;
            return Ok(false);
        }
        Ok(CustomDecision::AtLimit) => return Ok(false),
        Err(error) => {
            report.problem(&error);
            return Ok(false);
        }
    };
    due::set_next(db, dag_id, &NextDagRun::default()).await?;
    timetables::ask(db, std::slice::from_ref(dag_id), Some(&after)).await?;
    Ok(true)
}
