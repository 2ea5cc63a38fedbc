//! Questions to a person: `hitl_detail`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// A question. JSON columns are text.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Question {
    pub options: String,
    pub subject: String,
    pub body: Option<String>,
    pub defaults: Option<String>,
    pub multiple: Option<bool>,
    pub params: String,
    pub assignees: Option<String>,
}

/// An answer, or that there is none yet. JSON columns are text.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Answer {
    pub responded_at: Option<DateTime<Utc>>,
    pub responded_by: Option<String>,
    pub chosen_options: Option<String>,
    pub params_input: Option<String>,
}

/// Asks; a question that is there already stays, without its answer. `airflow: upsert_hitl_detail`
///
/// # Errors
/// The database's errors; a foreign key violation when there is no such task instance.
pub async fn ask(
    db: &mut PgConnection,
    id: Uuid,
    question: &Question,
    now: DateTime<Utc>,
) -> Result<Question, Error> {
    Ok(sqlx::query_as(
        "INSERT INTO hitl_detail AS h (ti_id, options, subject, body, defaults, multiple, params, assignees, \
                created_at, params_input) \
         VALUES ($1, $2::json, $3, $4, $5::json, $6, $7::json, $8::json, $9, '{}'::json) \
         ON CONFLICT (ti_id) DO UPDATE \
            SET responded_by = NULL, responded_at = NULL, chosen_options = 'null'::json, params_input = '{}'::json \
         RETURNING h.options::text AS options, h.subject, h.body, h.defaults::text AS defaults, h.multiple, \
                   h.params::text AS params, h.assignees::text AS assignees",
    )
    .bind(id)
    .bind(&question.options)
    .bind(&question.subject)
    .bind(&question.body)
    .bind(question.defaults.as_deref().unwrap_or("null"))
    .bind(question.multiple)
    .bind(&question.params)
    .bind(&question.assignees)
    .bind(now)
    .fetch_one(db)
    .await?)
}

macro_rules! answer_columns {
    () => {
        "responded_at, responded_by::text AS responded_by, chosen_options::text AS chosen_options, \
         params_input::text AS params_input "
    };
}

/// What was answered so far; `None` when nothing was asked. The row stays locked against an answer that comes in
/// between, in the order in which Airflow's UI locks: task instance, then question.
///
/// # Errors
/// The database's errors.
pub async fn lock_answer(db: &mut PgConnection, id: Uuid) -> Result<Option<Answer>, Error> {
    sqlx::query("SELECT 1 FROM task_instance WHERE id = $1 FOR UPDATE")
        .bind(id)
        .execute(&mut *db)
        .await?;
    Ok(sqlx::query_as(concat!(
        "SELECT ",
        answer_columns!(),
        "FROM hitl_detail WHERE ti_id = $1 FOR UPDATE"
    ))
    .bind(id)
    .fetch_optional(db)
    .await?)
}

/// What was answered so far; `None` when nothing was asked.
///
/// # Errors
/// The database's errors.
pub async fn answer_of(db: &mut PgConnection, id: Uuid) -> Result<Option<Answer>, Error> {
    Ok(sqlx::query_as(concat!(
        "SELECT ",
        answer_columns!(),
        "FROM hitl_detail WHERE ti_id = $1"
    ))
    .bind(id)
    .fetch_optional(db)
    .await?)
}

/// Answers in the task's own name, if nobody answered before; the row as it is now.
///
/// # Errors
/// The database's errors.
pub async fn answer(
    db: &mut PgConnection,
    id: Uuid,
    chosen_options: &str,
    params_input: &str,
    now: DateTime<Utc>,
) -> Result<Option<Answer>, Error> {
    Ok(sqlx::query_as(concat!(
        "UPDATE hitl_detail \
            SET responded_by = NULL, responded_at = $4, chosen_options = $2::json, params_input = $3::json \
          WHERE ti_id = $1 AND responded_at IS NULL \
         RETURNING ",
        answer_columns!()
    ))
    .bind(id)
    .bind(chosen_options)
    .bind(params_input)
    .bind(now)
    .fetch_optional(db)
    .await?)
}
