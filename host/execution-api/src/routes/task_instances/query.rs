//! `task-instances/count`, `states`, `previous/…`, `breadcrumbs`: what sensors and templates ask about others.

use axum::Json;
use axum::extract::{Path, State};
use metadata::execution::task_instances::{self, Filter, Found, Previous, States};
use model::TaskInstanceState;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use crate::problem::Problem;
use crate::request::{Caller, Params};
use crate::{ApiState, dates};

pub(crate) async fn count(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<i64>, Problem> {
    let filter = filter(&mut params);
    let group = params
        .optional("task_group_id")
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    let named = params.all("states");
    params.check()?;
    let states = States {
        none: named.iter().any(|state| state == "null"),
        named: named.into_iter().filter(|state| state != "null").collect(),
    };
    let mut db = api.pool.acquire().await?;
    let Some(group) = group else {
        return Ok(Json(
            task_instances::count(&mut db, &filter, &states, None).await?,
        ));
    };
    let members = members(&api, &mut db, &filter, &group).await?;
    let (task_ids, map_indexes): (Vec<String>, Vec<i32>) = if members.is_empty() {
        // airflow: the group's own id stands for it, and matches nothing.
        (vec![group], vec![-1])
    } else {
        members
            .into_iter()
            .map(|ti| (ti.task_id, ti.map_index))
            .unzip()
    };
    let pairs = Some((task_ids.as_slice(), map_indexes.as_slice()));
    Ok(Json(
        task_instances::count(&mut db, &filter, &states, pairs).await?,
    ))
}

pub(crate) async fn states(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let filter = filter(&mut params);
    let group = params
        .optional("task_group_id")
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let found = match group {
        None => task_instances::find(&mut db, &filter).await?,
        Some(group) => {
            let mut members = members(&api, &mut db, &filter, &group).await?;
            if !filter.task_ids.is_empty() {
                members.extend(task_instances::find(&mut db, &filter).await?);
            }
            members
        }
    };
    let mut runs: Map<String, Value> = Map::new();
    for ti in found {
        let name = if ti.map_index < 0 {
            ti.task_id
        } else {
            format!("{}_{}", ti.task_id, ti.map_index)
        };
        runs.entry(ti.run_id).or_insert_with(|| json!({}))[name] = json!(ti.state);
    }
    Ok(Json(json!({"task_states": runs})))
}

pub(crate) async fn previous(
    State(api): State<ApiState>,
    _: Caller,
    Path((dag_id, task_id)): Path<(String, String)>,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let logical_date = params.date("logical_date");
    let map_index = params.integer("map_index").unwrap_or(-1);
    let state: Option<TaskInstanceState> = params.named("state");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let state = state.map(TaskInstanceState::as_str);
    let found =
        task_instances::previous(&mut db, &dag_id, &task_id, map_index, logical_date, state)
            .await?;
    Ok(Json(found.map_or(Value::Null, |previous| {
        previous_answer(&previous)
    })))
}

pub(crate) async fn breadcrumbs(
    State(api): State<ApiState>,
    _: Caller,
    mut params: Params,
) -> Result<Json<Value>, Problem> {
    let dag_id = params.required("dag_id");
    let run_id = params.required("run_id");
    params.check()?;
    let mut db = api.pool.acquire().await?;
    let crumbs: Vec<Value> = task_instances::breadcrumbs(&mut db, &dag_id, &run_id)
        .await?
        .into_iter()
        .map(|crumb| {
            json!({
                "task_id": crumb.task_id,
                "map_index": crumb.map_index,
                "state": crumb.state,
                "operator": crumb.operator,
                "duration": crumb.duration,
            })
        })
        .collect();
    Ok(Json(json!({"breadcrumbs": crumbs})))
}

fn filter(params: &mut Params) -> Filter {
    Filter {
        dag_id: params.required("dag_id"),
        map_index: params.integer("map_index"),
        task_ids: params.all("task_ids"),
        logical_dates: params.dates("logical_dates"),
        run_ids: params.all("run_ids"),
    }
}

/// The task instances of all tasks in a group and the groups inside it. `airflow: _get_group_tasks`
async fn members(
    api: &ApiState,
    db: &mut PgConnection,
    filter: &Filter,
    group_id: &str,
) -> Result<Vec<Found>, Problem> {
    let stored = api
        .dags
        .latest_of(&mut *db, &filter.dag_id)
        .await?
        .ok_or_else(|| {
            Problem::not_found(format!(
                "The Dag with ID: `{}` was not found",
                filter.dag_id
            ))
        })?;
    let dag = &stored.dag;
    let Some(group) = dag
        .groups
        .iter()
        .position(|group| group.group_id == group_id)
    else {
        return Err(Problem::not_found(format!(
            "Task group {group_id} not found in DAG {}",
            filter.dag_id
        )));
    };
    let is_inside = |task: &&model::SerializedTask| {
        std::iter::successors(task.group, |at| dag.groups[*at].parent).any(|at| at == group)
    };
    let task_ids: Vec<String> = dag
        .tasks
        .iter()
        .filter(is_inside)
        .map(|task| task.task_id.clone())
        .collect();
    if task_ids.is_empty() {
        return Ok(Vec::new());
    }
    let filter = Filter {
        task_ids,
        ..filter.clone()
    };
    Ok(task_instances::find(db, &filter).await?)
}

fn previous_answer(previous: &Previous) -> Value {
    json!({
        "task_id": previous.task_id,
        "dag_id": previous.dag_id,
        "run_id": previous.run_id,
        "logical_date": dates::json(previous.logical_date),
        "start_date": dates::json(previous.start_date),
        "end_date": dates::json(previous.end_date),
        "state": previous.state,
        "try_number": previous.try_number,
        "map_index": previous.map_index,
        "duration": previous.duration,
    })
}
