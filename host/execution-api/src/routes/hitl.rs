//! `hitlDetails/{id}`: a task asks a person.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use metadata::execution::hitl::{self, Answer, Question};
use serde_json::{Value, json};
use uuid::Uuid;

use super::dag_run::parsed;
use crate::problem::Problem;
use crate::request::{Body, Fields, OwnTask};
use crate::{ApiState, clock, dates};

pub(crate) async fn ask(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut body = Fields::of_body(&body)?;
    body.any("ti_id");
    let options: Vec<String> = body.required_list("options");
    let question = Question {
        options: json!(options).to_string(),
        subject: body.string("subject"),
        body: body.optional_string("body"),
        defaults: body
            .optional_list::<String>("defaults")
            .map(|list| json!(list).to_string()),
        multiple: Some(body.flag("multiple", false)),
        params: body.object("params"),
        assignees: Some(json!(body.list::<Value>("assigned_users")).to_string()),
    };
    if options.is_empty() {
        body.too_short("options");
    }
    body.finish_open()?;
    let mut db = api.pool.acquire().await?;
    let asked = hitl::ask(&mut db, task.id, &question, clock::now()).await?;
    Ok((StatusCode::CREATED, Json(asked_answer(task.id, &asked)?)))
}

pub(crate) async fn answer(
    State(api): State<ApiState>,
    task: OwnTask,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let mut body = Fields::of_body(&body)?;
    body.any("ti_id");
    let chosen: Vec<String> = body.required_list("chosen_options");
    let params_input = body.object("params_input");
    if chosen.is_empty() {
        body.too_short("chosen_options");
    }
    body.finish_open()?;
    let mut db = api.pool.acquire().await?;
    let chosen = json!(chosen).to_string();
    if let Some(answer) =
        hitl::answer(&mut db, task.id, &chosen, &params_input, clock::now()).await?
    {
        return detail(&answer).map(Json);
    }
    hitl::answer_of(&mut db, task.id)
        .await?
        .ok_or_else(not_asked)?;
    Err(Problem::new(
        StatusCode::CONFLICT,
        format!(
            "Human-in-the-loop detail for Task Instance with id {} already exists.",
            task.id
        ),
    ))
}

pub(crate) async fn get(
    State(api): State<ApiState>,
    task: OwnTask,
) -> Result<Json<Value>, Problem> {
    let mut db = api.pool.acquire().await?;
    let answer = hitl::answer_of(&mut db, task.id)
        .await?
        .ok_or_else(not_asked)?;
    detail(&answer).map(Json)
}

fn not_asked() -> Problem {
    Problem::not_found(
        "HITLDetail not found. \
         This happens most likely due to clearing task instance before receiving response.",
    )
}

fn asked_answer(id: Uuid, question: &Question) -> Result<Value, Problem> {
    let optional = |text: &Option<String>| text.as_deref().map_or(Ok(Value::Null), parsed);
    Ok(json!({
        "ti_id": id,
        "options": parsed(&question.options)?,
        "subject": question.subject,
        "body": question.body,
        "defaults": optional(&question.defaults)?,
        "multiple": question.multiple.unwrap_or(false),
        "params": parsed(&question.params)?,
        "assigned_users": optional(&question.assignees)?,
    }))
}

fn detail(answer: &Answer) -> Result<Value, Problem> {
    let column = |text: &Option<String>, empty: Value| match text.as_deref() {
        None | Some("null") => Ok(empty),
        Some(text) => parsed(text),
    };
    Ok(json!({
        "response_received": answer.responded_at.is_some(),
        "responded_by_user": column(&answer.responded_by, Value::Null)?,
        "responded_at": dates::json(answer.responded_at),
        "chosen_options": column(&answer.chosen_options, json!([]))?,
        "params_input": column(&answer.params_input, json!({}))?,
    }))
}
