//! Who asks, in which environment, and whether both sides speak the same version.

use modal_api::wire;
use tonic::Status;

use crate::{
    ask::Ask,
    core::Inner,
    ids, objects,
    rows::{Change, Row, Table},
    token,
};

pub(crate) const IMAGE_BUILDER_VERSION: &str = "2025.06";
/// Modal's name for the environment that has none in a request.
const DEFAULT_ENVIRONMENT: &str = "main";
/// There is one workspace and one person in it.
const WORKSPACE: &str = "local";
pub(crate) const USER: &str = "local";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EnvironmentRow {
    #[prost(double, tag = "1")]
    created_at: f64,
}

impl Row for EnvironmentRow {
    const TABLE: Table = Table::Environments;
}

pub(crate) fn hello(_: &Ask, (): ()) -> Result<wire::ClientHelloResponse, Status> {
    Ok(wire::ClientHelloResponse {
        image_builder_version: IMAGE_BUILDER_VERSION.to_owned(),
        ..Default::default()
    })
}

pub(crate) fn auth_token(
    ask: &Ask,
    _: wire::AuthTokenGetRequest,
) -> Result<wire::AuthTokenGetResponse, Status> {
    Ok(wire::AuthTokenGetResponse {
        token: token::unsigned(ask.wall()),
    })
}

pub(crate) fn token_info(
    ask: &Ask,
    _: wire::TokenInfoGetRequest,
) -> Result<wire::TokenInfoGetResponse, Status> {
    let identity = wire::UserIdentity {
        user_id: USER.to_owned(),
        username: USER.to_owned(),
    };
    Ok(wire::TokenInfoGetResponse {
        token_id: ask
            .core
            .tokens
            .as_ref()
            .map(|tokens| tokens.id.clone())
            .unwrap_or_default(),
        workspace_id: ids::workspace(WORKSPACE),
        workspace_name: WORKSPACE.to_owned(),
        identity: Some(wire::token_info_get_response::Identity::UserIdentity(
            identity,
        )),
        ..Default::default()
    })
}

pub(crate) fn workspace(_: &Ask, (): ()) -> Result<wire::WorkspaceNameLookupResponse, Status> {
    Ok(wire::WorkspaceNameLookupResponse {
        workspace_name: WORKSPACE.to_owned(),
        username: USER.to_owned(),
    })
}

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::EnvironmentGetOrCreateRequest,
) -> Result<wire::EnvironmentGetOrCreateResponse, Status> {
    use wire::ObjectCreationType as Creation;
    let mut guard = ask.core.lock();
    let name = environment_name(&request.deployment_name).to_owned();
    let exists = environment(&guard, &name);
    match request.object_creation_type() {
        Creation::Unspecified => {
            exists?;
        }
        Creation::CreateFailIfExists if exists.is_ok() => return Err(already_exists(&name)),
        _ if exists.is_ok() => {}
        _ => create_row(ask, &mut guard, &name)?,
    }
    let settings = wire::EnvironmentSettings {
        image_builder_version: IMAGE_BUILDER_VERSION.to_owned(),
        webhook_suffix: String::new(),
    };
    Ok(wire::EnvironmentGetOrCreateResponse {
        environment_id: ids::environment(&name),
        metadata: Some(wire::EnvironmentMetadata {
            name,
            settings: Some(settings),
        }),
    })
}

pub(crate) fn list(ask: &Ask, (): ()) -> Result<wire::EnvironmentListResponse, Status> {
    let guard = ask.core.lock();
    let item = |name: &str, created_at: f64| wire::EnvironmentListItem {
        name: name.to_owned(),
        webhook_suffix: String::new(),
        created_at,
        default: name == DEFAULT_ENVIRONMENT,
        environment_id: ids::environment(name),
        current_concurrent_tasks: running_containers(&guard, name),
        image_builder_version: Some(IMAGE_BUILDER_VERSION.to_owned()),
    };
    let mut items = vec![item(DEFAULT_ENVIRONMENT, 0.0)];
    for (name, row) in guard.state.rows.scan::<EnvironmentRow>(b"") {
        items.push(item(&String::from_utf8_lossy(name), row.created_at));
    }
    Ok(wire::EnvironmentListResponse { items })
}

pub(crate) fn create(ask: &Ask, request: wire::EnvironmentCreateRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    if environment(&guard, &request.name).is_ok() {
        return Err(already_exists(&request.name));
    }
    create_row(ask, &mut guard, &request.name)
}

/// Ends an environment with the objects in it. One with apps is kept: they are stopped first.
pub(crate) fn delete(ask: &Ask, request: wire::EnvironmentDeleteRequest) -> Result<(), Status> {
    let mut guard = ask.core.lock();
    let name = environment(&guard, &request.name)?;
    if name == DEFAULT_ENVIRONMENT {
        return Err(Status::failed_precondition(
            "environment 'main' cannot be deleted",
        ));
    }
    let has_functions = guard
        .functions
        .values()
        .any(|function| environment_name(&function.spec.environment) == name);
    if has_functions {
        return Err(Status::failed_precondition(format!(
            "environment '{name}' has deployed apps\nhint: stop them first (modal app stop)"
        )));
    }
    let mut change = Change::default();
    objects::delete_all_in(&guard.state.rows, &name, &mut change);
    change.delete::<EnvironmentRow>(&name);
    ask.commit(&mut guard, change)
}

/// The environment of a request: it exists.
pub(crate) fn environment(inner: &Inner, name: &str) -> Result<String, Status> {
    let name = environment_name(name);
    if name == DEFAULT_ENVIRONMENT || inner.state.rows.has::<EnvironmentRow>(name) {
        return Ok(name.to_owned());
    }
    Err(Status::not_found(format!(
        "environment '{name}' not found\nhint: make it (modal environment create {name}), or leave it out"
    )))
}

pub(crate) fn environment_name(name: &str) -> &str {
    if name.is_empty() {
        DEFAULT_ENVIRONMENT
    } else {
        name
    }
}

/// The row of an environment that a deployment from this process needs.
pub(crate) fn add_environment(inner: &Inner, name: &str, now: f64, change: &mut Change) {
    if environment(inner, name).is_err() {
        change.put(environment_name(name), &EnvironmentRow { created_at: now });
    }
}

fn create_row(ask: &Ask, inner: &mut Inner, name: &str) -> Result<(), Status> {
    let is_good = name.len() <= 64
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && !name.to_ascii_lowercase().starts_with("en-");
    if !is_good {
        return Err(Status::invalid_argument(format!(
            "invalid environment name '{name}': up to 64 letters, digits, dashes and underscores are allowed, the first a letter or digit, and no en- in front"
        )));
    }
    let mut change = Change::default();
    change.put(
        name,
        &EnvironmentRow {
            created_at: ask.wall(),
        },
    );
    ask.commit(inner, change)
}

fn already_exists(name: &str) -> Status {
    Status::already_exists(format!("environment '{name}' already exists"))
}

fn running_containers(inner: &Inner, environment: &str) -> i32 {
    let count = inner
        .state
        .containers
        .values()
        .filter_map(|container| inner.functions.get(&container.function_id))
        .filter(|function| environment_name(&function.spec.environment) == environment)
        .count();
    i32::try_from(count).unwrap_or(i32::MAX)
}
