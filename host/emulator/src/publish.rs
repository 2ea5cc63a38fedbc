//! Deployments: what an app consists of from now on, its history, and the way back.

use std::collections::HashMap;

use modal_api::wire::{self, AppState};
use tonic::Status;

use crate::{
    app_parts::layout_of,
    apps::{self, AppRow},
    ask::Ask,
    core::Inner,
    definitions::{DefinitionRow, FunctionRow},
    objects,
    rows::{Change, Row, Rows, Table},
    session,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VersionRow {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(double, tag = "2")]
    deployed_at: f64,
    #[prost(string, tag = "3")]
    tag: String,
    #[prost(string, tag = "4")]
    client_version: String,
    #[prost(uint32, tag = "5")]
    rollback_version: u32,
    #[prost(message, optional, tag = "6")]
    commit_info: Option<wire::CommitInfo>,
    #[prost(map = "string, string", tag = "7")]
    function_ids: HashMap<String, String>,
    #[prost(map = "string, string", tag = "8")]
    class_ids: HashMap<String, String>,
    #[prost(map = "string, string", tag = "9")]
    definition_ids: HashMap<String, String>,
}

impl Row for VersionRow {
    const TABLE: Table = Table::Versions;
}

pub(crate) fn publish(
    ask: &Ask,
    request: wire::AppPublishRequest,
) -> Result<wire::AppPublishResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let mut row = apps::get(&guard.state.rows, &request.app_id)?;
    if row.is_stopped() {
        return Err(Status::failed_precondition(format!(
            "App {} has ended\nhint: deploy it anew",
            request.app_id
        )));
    }
    if request.staged {
        return Err(Status::unimplemented(
            "staged deployments are not there: this is modalflow's emulator",
        ));
    }
    check_layout(&guard.state.rows, &request)?;
    let is_deployment = request.app_state() == AppState::Deployed;
    if is_deployment {
        objects::check_name("App", &request.name)?;
        check_tag(&request.deployment_tag)?;
        request.name.clone_into(&mut row.name);
        row.description = request.name.clone();
    }
    row.state = request.app_state;
    row.function_ids = request.function_ids;
    row.class_ids = request.class_ids;
    row.definition_ids = request.definition_ids;
    row.tags = request.tags;
    let label = Label {
        tag: request.deployment_tag,
        client_version: ask.client_version.clone(),
        rollback_version: 0,
        commit_info: request.commit_info,
    };
    let (url, deployed_at) = put(ask, &mut guard, &request.app_id, row, label)?;
    Ok(wire::AppPublishResponse {
        url,
        server_warnings: Vec::new(),
        deployed_at,
    })
}

/// Makes an earlier version the newest one.
pub(crate) fn rollback(
    ask: &Ask,
    request: wire::AppRollbackRequest,
) -> Result<wire::AppRollbackResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let mut row = deployed(&guard.state.rows, &request.app_id)?;
    let wanted = if request.version < 0 {
        i64::from(row.version) + i64::from(request.version)
    } else {
        i64::from(request.version)
    };
    let version = u32::try_from(wanted)
        .ok()
        .and_then(|number| {
            guard
                .state
                .rows
                .get::<VersionRow>(version_key(&request.app_id, number))
        })
        .ok_or_else(|| {
            Status::not_found(format!("App {} has no version {wanted}", request.app_id))
        })?;
    row.function_ids = version.function_ids;
    row.class_ids = version.class_ids;
    row.definition_ids = version.definition_ids;
    let label = Label {
        tag: version.tag,
        client_version: version.client_version,
        rollback_version: version.version,
        commit_info: version.commit_info,
    };
    let (url, deployed_at) = put(ask, &mut guard, &request.app_id, row, label)?;
    Ok(wire::AppRollbackResponse {
        url,
        server_warnings: Vec::new(),
        deployed_at,
    })
}

/// The same version once more: containers are replaced.
pub(crate) fn rollover(
    ask: &Ask,
    request: wire::AppRolloverRequest,
) -> Result<wire::AppRolloverResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let row = deployed(&guard.state.rows, &request.app_id)?;
    let label = Label {
        client_version: ask.client_version.clone(),
        ..Default::default()
    };
    let (url, deployed_at) = put(ask, &mut guard, &request.app_id, row, label)?;
    Ok(wire::AppRolloverResponse {
        url,
        server_warnings: Vec::new(),
        deployed_at,
    })
}

pub(crate) fn history(
    ask: &Ask,
    request: wire::AppDeploymentHistoryRequest,
) -> Result<wire::AppDeploymentHistoryResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    let row = apps::get(rows, &request.app_id)?;
    let versions = rows.scan::<VersionRow>(&objects::own_key(&request.app_id));
    let app_deployment_histories = versions
        .rev()
        .map(|(_, version)| wire::AppDeploymentHistory {
            app_id: request.app_id.clone(),
            version: version.version,
            client_version: version.client_version,
            deployed_at: version.deployed_at,
            deployed_by: session::USER.to_owned(),
            tag: version.tag,
            rollback_version: version.rollback_version,
            rollback_allowed: row.state() == AppState::Deployed,
            commit_info: version.commit_info,
        })
        .collect();
    Ok(wire::AppDeploymentHistoryResponse {
        app_deployment_histories,
        production_app_version: row.version,
    })
}

pub(crate) fn layout(
    ask: &Ask,
    request: wire::AppGetLayoutRequest,
) -> Result<wire::AppGetLayoutResponse, Status> {
    let guard = ask.core.lock();
    let row = apps::get(&guard.state.rows, &request.app_id)?;
    Ok(wire::AppGetLayoutResponse {
        app_layout: Some(layout_of(&guard.state.rows, &request.app_id, &row)),
    })
}

/// What a version is called in the history.
#[derive(Default)]
struct Label {
    tag: String,
    client_version: String,
    rollback_version: u32,
    commit_info: Option<wire::CommitInfo>,
}

fn put(
    ask: &Ask,
    inner: &mut Inner,
    app_id: &str,
    mut row: AppRow,
    label: Label,
) -> Result<(String, f64), Status> {
    let now = ask.wall();
    let mut change = Change::default();
    let is_deployment = row.state() == AppState::Deployed;
    if is_deployment {
        row.version += 1;
        row.deployed_at = now;
        let version = VersionRow {
            version: row.version,
            deployed_at: now,
            tag: label.tag,
            client_version: label.client_version,
            rollback_version: label.rollback_version,
            commit_info: label.commit_info,
            function_ids: row.function_ids.clone(),
            class_ids: row.class_ids.clone(),
            definition_ids: row.definition_ids.clone(),
        };
        change.put(version_key(app_id, row.version), &version);
    }
    change.put(app_id, &row);
    let url = apps::page_url(app_id);
    let deployed_at = if is_deployment { now } else { 0.0 };
    // Those of a rollback and a rollover have the same fields under the same numbers.
    let answer = wire::AppPublishResponse {
        url: url.clone(),
        server_warnings: Vec::new(),
        deployed_at,
    };
    // There is one deployed app of a name.
    let namesake = apps::deployed(&inner.state.rows, &row.environment, &row.name)
        .filter(|(id, _)| is_deployment && id != app_id);
    ask.commit_once(inner, change, &answer)?;
    if let Some((id, _)) = namesake {
        ask.core.stop_app(inner, &id, session::USER);
    }
    ask.core.activate_app(inner, app_id);
    Ok((url, deployed_at))
}

fn check_layout(rows: &Rows, request: &wire::AppPublishRequest) -> Result<(), Status> {
    for (tag, function_id) in &request.function_ids {
        let is_ready = rows
            .get::<FunctionRow>(function_id)
            .is_some_and(|row| row.app_id == request.app_id && !row.definition_id.is_empty());
        if !is_ready {
            return Err(Status::not_found(format!(
                "function '{tag}' ({function_id}) of App {} not found",
                request.app_id
            )));
        }
    }
    for (function_id, definition_id) in &request.definition_ids {
        let is_its_own = rows
            .get::<DefinitionRow>(definition_id)
            .is_some_and(|row| row.function_id == *function_id);
        if !definition_id.is_empty() && !is_its_own {
            return Err(Status::not_found(format!(
                "definition {definition_id} of function {function_id} not found"
            )));
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), Status> {
    let is_good = tag.len() <= 50
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_good {
        Ok(())
    } else {
        Err(Status::invalid_argument(format!(
            "invalid deployment tag '{tag}': up to 50 letters, digits, dashes, periods and underscores are allowed"
        )))
    }
}

fn deployed(rows: &Rows, app_id: &str) -> Result<AppRow, Status> {
    let row = apps::get(rows, app_id)?;
    if row.state() == AppState::Deployed {
        Ok(row)
    } else {
        Err(Status::failed_precondition(format!(
            "App {app_id} is not deployed"
        )))
    }
}

fn version_key(app_id: &str, version: u32) -> Vec<u8> {
    [objects::own_key(app_id).as_slice(), &version.to_be_bytes()].concat()
}
