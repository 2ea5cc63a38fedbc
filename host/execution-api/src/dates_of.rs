//! What the routes ask of timetables that are Python: users' own classes.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use model::SerializedDag;

/// Start and end of a run's data, if it has an interval.
pub type Interval = Option<(DateTime<Utc>, DateTime<Utc>)>;

/// Asks a user's own timetable.
#[async_trait]
pub trait ManualDates: Send + Sync {
    /// The data interval of a run that somebody asks for. `airflow: Timetable.infer_manual_data_interval`
    ///
    /// # Errors
    /// A text for whoever asked.
    async fn infer(
        &self,
        dag: &SerializedDag,
        run_type: &str,
        run_after: DateTime<Utc>,
    ) -> Result<Interval, String>;
}

/// Where there is no Python.
pub struct NoTimetables;

#[async_trait]
impl ManualDates for NoTimetables {
    async fn infer(
        &self,
        dag: &SerializedDag,
        _run_type: &str,
        _run_after: DateTime<Utc>,
    ) -> Result<Interval, String> {
        Err(format!(
            "the timetable {} can't be asked here",
            dag.timetable.class
        ))
    }
}
