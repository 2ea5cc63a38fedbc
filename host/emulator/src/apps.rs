//! Apps: created, kept alive, stopped, listed. What a deployment puts into one is in `publish`.

use std::collections::HashMap;

use modal_api::wire::{self, AppState};
use tonic::Status;

use crate::{
    app_life::containers_of,
    ask::Ask,
    ids, objects,
    rows::{Change, Row, Rows, Table},
    session,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AppRow {
    /// Empty until it is deployed.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) description: String,
    #[prost(string, tag = "3")]
    pub(crate) environment: String,
    #[prost(enumeration = "AppState", tag = "4")]
    pub(crate) state: i32,
    #[prost(double, tag = "5")]
    pub(crate) created_at: f64,
    #[prost(double, tag = "6")]
    pub(crate) deployed_at: f64,
    #[prost(double, tag = "7")]
    pub(crate) stopped_at: f64,
    /// Of the last deployment; 0 before the first.
    #[prost(uint32, tag = "8")]
    pub(crate) version: u32,
    #[prost(map = "string, string", tag = "9")]
    pub(crate) function_ids: HashMap<String, String>,
    #[prost(map = "string, string", tag = "10")]
    pub(crate) class_ids: HashMap<String, String>,
    #[prost(map = "string, string", tag = "11")]
    pub(crate) definition_ids: HashMap<String, String>,
    #[prost(map = "string, string", tag = "12")]
    pub(crate) tags: HashMap<String, String>,
    /// Empty: it ended by itself.
    #[prost(string, tag = "13")]
    pub(crate) stopped_by: String,
}

impl Row for AppRow {
    const TABLE: Table = Table::Apps;
}

impl AppRow {
    /// What people call it.
    pub(crate) fn title(&self) -> &str {
        if self.name.is_empty() {
            &self.description
        } else {
            &self.name
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state() == AppState::Stopped
    }

    fn lifecycle(&self) -> wire::AppLifecycle {
        wire::AppLifecycle {
            app_state: self.state,
            created_at: self.created_at,
            created_by: session::USER.to_owned(),
            deployed_at: self.deployed_at,
            deployed_by: session::USER.to_owned(),
            version: i32::try_from(self.version).unwrap_or(i32::MAX),
            stopped_at: self.stopped_at,
            stopped_by: self.stopped_by.clone(),
        }
    }

    fn handle_metadata(&self, app_id: &str) -> wire::AppHandleMetadata {
        wire::AppHandleMetadata {
            description: self.title().to_owned(),
            app_id: app_id.to_owned(),
            environment_name: self.environment.clone(),
            lifecycle: Some(self.lifecycle()),
            functions: self.function_ids.clone(),
            servers: HashMap::new(),
        }
    }
}

pub(crate) fn create(
    ask: &Ask,
    request: wire::AppCreateRequest,
) -> Result<wire::AppCreateResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let row = AppRow {
        description: request.description,
        environment: session::environment(&guard, &request.environment_name)?,
        state: request.app_state,
        created_at: ask.wall(),
        tags: request.tags,
        ..Default::default()
    };
    let app_id = ids::object("ap");
    let mut change = Change::default();
    change.put(&app_id, &row);
    let answer = wire::AppCreateResponse {
        app_page_url: page_url(&app_id),
        app_logs_url: page_url(&app_id),
        app_id: app_id.clone(),
    };
    ask.commit_once(&mut guard, change, &answer)?;
    guard.heard_of.insert(app_id, ask.now());
    Ok(answer)
}

/// Finds a deployed app or makes an empty one.
pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::AppGetOrCreateRequest,
) -> Result<wire::AppGetOrCreateResponse, Status> {
    use wire::ObjectCreationType as Creation;
    let mut guard = ask.core.lock();
    let environment = session::environment(&guard, &request.environment_name)?;
    objects::check_name("App", &request.app_name)?;
    let found = deployed(&guard.state.rows, &environment, &request.app_name);
    let (app_id, row) = match (found, request.object_creation_type()) {
        (Some(_), Creation::CreateFailIfExists) => {
            return Err(Status::already_exists(format!(
                "App '{}' already exists in environment '{environment}'",
                request.app_name
            )));
        }
        (Some(found), _) => found,
        (None, Creation::Unspecified) => return Err(not_found(&request.app_name, &environment)),
        (None, _) => {
            let row = AppRow {
                description: request.app_name.clone(),
                name: request.app_name,
                environment,
                state: AppState::Deployed.into(),
                created_at: ask.wall(),
                deployed_at: ask.wall(),
                ..Default::default()
            };
            let app_id = ids::object("ap");
            let mut change = Change::default();
            change.put(&app_id, &row);
            ask.commit(&mut guard, change)?;
            (app_id, row)
        }
    };
    Ok(wire::AppGetOrCreateResponse {
        handle_metadata: Some(row.handle_metadata(&app_id)),
        app_id,
    })
}

/// No app of this name is an answer, not an error.
pub(crate) fn by_name(
    ask: &Ask,
    request: wire::AppGetByDeploymentNameRequest,
) -> Result<wire::AppGetByDeploymentNameResponse, Status> {
    let guard = ask.core.lock();
    let environment_name = session::environment(&guard, &request.environment_name)?;
    let rows = &guard.state.rows;
    let mut answer = wire::AppGetByDeploymentNameResponse::default();
    if let Some((app_id, row)) = deployed(rows, &environment_name, &request.name) {
        answer.app_id = app_id;
        answer.lifecycle = Some(row.lifecycle());
    } else if let Some((app_id, row)) = rows
        .scan::<AppRow>(b"")
        .filter(|(_, row)| row.name == request.name && row.environment == environment_name)
        .max_by(|(_, a), (_, b)| a.stopped_at.total_cmp(&b.stopped_at))
    {
        answer.previous_app_id = String::from_utf8_lossy(app_id).into_owned();
        answer.lifecycle = Some(row.lifecycle());
    }
    answer.environment_name = environment_name;
    Ok(answer)
}

pub(crate) fn heartbeat(ask: &Ask, request: wire::AppHeartbeatRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let row = get(&guard.state.rows, &request.app_id)?;
    if row.is_stopped() {
        return Err(Status::not_found(format!(
            "App {} has ended",
            request.app_id
        )));
    }
    guard.heard_of.insert(request.app_id, ask.now());
    Ok(())
}

/// The client is gone: what lived with it ends, what was detached finishes its work first.
pub(crate) fn client_disconnect(
    ask: &Ask,
    request: wire::AppClientDisconnectRequest,
) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut row = get(&guard.state.rows, &request.app_id)?;
    match row.state() {
        AppState::Ephemeral | AppState::Initializing => {
            ask.core.stop_app(&mut guard, &request.app_id, "");
        }
        AppState::Detached => {
            row.set_state(AppState::DetachedDisconnected);
            let mut change = Change::default();
            change.put(&request.app_id, &row);
            ask.commit(&mut guard, change)?;
            ask.core.end_apps(&mut guard, ask.now());
        }
        _ => {}
    }
    Ok(())
}

pub(crate) fn stop(ask: &Ask, request: wire::AppStopRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    get(&guard.state.rows, &request.app_id)?;
    ask.core
        .stop_app(&mut guard, &request.app_id, session::USER);
    Ok(())
}

pub(crate) fn list(
    ask: &Ask,
    request: wire::AppListRequest,
) -> Result<wire::AppListResponse, Status> {
    let guard = ask.core.lock();
    let environment = session::environment(&guard, &request.environment_name)?;
    let rows = guard.state.rows.scan::<AppRow>(b"");
    let mut apps: Vec<_> = rows
        .filter(|(_, row)| row.environment == environment)
        .map(|(app_id, row)| {
            let app_id = String::from_utf8_lossy(app_id).into_owned();
            wire::app_list_response::AppListItem {
                description: row.title().to_owned(),
                state: row.state,
                created_at: row.created_at,
                stopped_at: row.stopped_at,
                n_running_tasks: i32::try_from(containers_of(&guard, &app_id).len())
                    .unwrap_or(i32::MAX),
                name: row.name.clone(),
                metadata: Some(row.handle_metadata(&app_id)),
                app_id,
            }
        })
        .collect();
    // The official client keeps this order among those of one second.
    apps.sort_by(|one, other| other.created_at.total_cmp(&one.created_at));
    Ok(wire::AppListResponse { apps })
}

pub(crate) fn lifecycle(
    ask: &Ask,
    request: wire::AppGetLifecycleRequest,
) -> Result<wire::AppGetLifecycleResponse, Status> {
    let row = get(&ask.core.lock().state.rows, &request.app_id)?;
    Ok(wire::AppGetLifecycleResponse {
        lifecycle: Some(row.lifecycle()),
    })
}

pub(crate) fn info(
    ask: &Ask,
    request: wire::AppGetInfoRequest,
) -> Result<wire::AppGetInfoResponse, Status> {
    let row = get(&ask.core.lock().state.rows, &request.app_id)?;
    Ok(wire::AppGetInfoResponse {
        info: Some(row.handle_metadata(&request.app_id)),
    })
}

pub(crate) fn set_tags(ask: &Ask, request: wire::AppSetTagsRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let mut row = get(&guard.state.rows, &request.app_id)?;
    row.tags = request.tags;
    let mut change = Change::default();
    change.put(&request.app_id, &row);
    ask.commit(&mut guard, change)
}

pub(crate) fn get_tags(
    ask: &Ask,
    request: wire::AppGetTagsRequest,
) -> Result<wire::AppGetTagsResponse, Status> {
    let row = get(&ask.core.lock().state.rows, &request.app_id)?;
    Ok(wire::AppGetTagsResponse { tags: row.tags })
}

pub(crate) fn get(rows: &Rows, app_id: &str) -> Result<AppRow, Status> {
    rows.get(app_id)
        .ok_or_else(|| Status::not_found(format!("App {app_id} not found")))
}

pub(crate) fn deployed(rows: &Rows, environment: &str, name: &str) -> Option<(String, AppRow)> {
    rows.scan::<AppRow>(b"")
        .find(|(_, row)| {
            row.name == name && row.environment == environment && row.state() == AppState::Deployed
        })
        .map(|(id, row)| (String::from_utf8_lossy(id).into_owned(), row))
}

pub(crate) fn not_found(name: &str, environment: &str) -> Status {
    Status::not_found(format!(
        "App '{name}' not found in environment '{environment}'"
    ))
}

pub(crate) fn page_url(app_id: &str) -> String {
    // There is no page: what a person can do instead.
    format!("modal app logs {app_id}")
}
