//! Definitions of functions: what `FunctionCreate` brings and what callers are told of it.
//!
//! A function's id stays when it is deployed again; its definition changes. The bytes of a definition are kept as they came.

use modal_api::{verbatim, wire};
use prost::{Message, bytes::Bytes};
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::{
    apps::{self, AppRow},
    ask::Ask,
    core::{Core, Inner},
    definition_checks::check,
    handles::{data, limits, metadata, method_metadata, warnings},
    ids,
    rows::{Change, Row, Rows, Table},
    servers,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FunctionRow {
    #[prost(string, tag = "1")]
    pub(crate) app_id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// The newest one; what runs is what was published.
    #[prost(string, tag = "3")]
    pub(crate) definition_id: String,
    /// The function that this one is a variant of.
    #[prost(string, tag = "4")]
    pub(crate) parent: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) serialized_params: Bytes,
    #[prost(message, optional, tag = "6")]
    pub(crate) options: Option<wire::FunctionOptions>,
    /// Set from outside, until the next deployment.
    #[prost(message, optional, tag = "7")]
    pub(crate) settings: Option<wire::AutoscalerSettings>,
}

impl Row for FunctionRow {
    const TABLE: Table = Table::Functions;
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DefinitionRow {
    #[prost(string, tag = "1")]
    pub(crate) function_id: String,
    /// A `Function`, with fields that we do not know.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) function: Bytes,
}

impl Row for DefinitionRow {
    const TABLE: Table = Table::Definitions;
}

/// Gives a function its id before it is known what it depends on.
pub(crate) fn precreate(
    ask: &Ask,
    request: wire::FunctionPrecreateRequest,
) -> Result<wire::FunctionPrecreateResponse, Status> {
    let mut guard = ask.core.lock();
    if let Some(answer) = ask.earlier(&guard) {
        return Ok(answer);
    }
    let mut change = Change::default();
    let function_id = own_function(
        &guard.state.rows,
        &request.app_id,
        &request.existing_function_id,
        &request.function_name,
        &mut change,
    )?;
    let methods = request.method_definitions.iter();
    let answer = wire::FunctionPrecreateResponse {
        function_id,
        handle_metadata: Some(wire::FunctionHandleMetadata {
            function_name: request.function_name,
            function_type: request.function_type,
            method_handle_metadata: methods
                .map(|(name, method)| (name.clone(), method_metadata(name, method)))
                .collect(),
            function_schema: request.function_schema,
            supported_input_formats: request.supported_input_formats,
            supported_output_formats: request.supported_output_formats,
            app_id: request.app_id,
            ..limits()
        }),
    };
    ask.commit_once(&mut guard, change, &answer)?;
    Ok(answer)
}

pub(crate) fn create(
    ask: &Ask,
    request: verbatim::FunctionCreateRequest,
) -> Result<wire::FunctionCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let bytes = request
        .definition()
        .cloned()
        .ok_or_else(|| Status::invalid_argument("no definition"))?;
    let definition = wire::Function::decode(bytes.clone())
        .map_err(|error| Status::invalid_argument(format!("unreadable definition: {error}")))?;
    check(&ask.core, &guard, &definition)?;
    servers::check(&definition)?;
    let mut change = Change::default();
    let function_id = own_function(
        &guard.state.rows,
        &request.app_id,
        &request.existing_function_id,
        &definition.function_name,
        &mut change,
    )?;
    let definition_id = definition_id(&function_id, &bytes);
    let mut row = guard
        .state
        .rows
        .get::<FunctionRow>(&function_id)
        .unwrap_or_default();
    request.app_id.clone_into(&mut row.app_id);
    row.name.clone_from(&definition.function_name);
    row.definition_id.clone_from(&definition_id);
    row.settings = None;
    change.put(&function_id, &row);
    let definition_row = DefinitionRow {
        function_id: function_id.clone(),
        function: bytes,
    };
    change.put(&definition_id, &definition_row);
    ask.commit(&mut guard, change)?;
    if servers::is_served(&definition) {
        ask.core.open_server(&mut guard, &function_id)?;
    }
    let told = metadata(&definition, &request.app_id, &definition_id);
    Ok(wire::FunctionCreateResponse {
        handle_metadata: Some(wire::FunctionHandleMetadata {
            experimental_flash_urls: servers::urls(&guard.state.rows, &function_id),
            ..told
        }),
        function_data: Some(data(&definition)),
        server_warnings: warnings(&definition),
        function: Some(definition),
        function_id,
    })
}

/// A function of an app by its name; none: the app or the function is not there.
pub(crate) fn by_name(
    rows: &Rows,
    environment: &str,
    app_name: &str,
    tag: &str,
) -> Option<wire::FunctionGetResponse> {
    let (app_id, app) = apps::deployed(rows, environment, app_name)?;
    let function_id = app.function_ids.get(tag)?;
    let definition = published(rows, &app, function_id)?.1;
    Some(wire::FunctionGetResponse {
        function_id: function_id.clone(),
        handle_metadata: handle_metadata(rows, &app_id, function_id).ok(),
        server_warnings: Vec::new(),
        function: Some(data(&definition)),
    })
}

pub(crate) fn by_id(
    ask: &Ask,
    request: wire::FunctionGetByIdRequest,
) -> Result<wire::FunctionGetByIdResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    let row = function(rows, &request.function_id)?;
    let app = apps::get(rows, &row.app_id)?;
    let named = if row.parent.is_empty() {
        &request.function_id
    } else {
        &row.parent
    };
    let (_, definition) =
        published(rows, &app, named).ok_or_else(|| unknown(&request.function_id))?;
    Ok(wire::FunctionGetByIdResponse {
        function: Some(data(&definition)),
        handle_metadata: Some(handle_metadata(rows, &row.app_id, &request.function_id)?),
    })
}

/// What a caller must know of a function that is published or about to be.
pub(crate) fn handle_metadata(
    rows: &Rows,
    app_id: &str,
    function_id: &str,
) -> Result<wire::FunctionHandleMetadata, Status> {
    let row = function(rows, function_id)?;
    let app = apps::get(rows, app_id)?;
    let named = if row.parent.is_empty() {
        function_id
    } else {
        &row.parent
    };
    let (definition_id, definition) =
        published(rows, &app, named).ok_or_else(|| unknown(function_id))?;
    Ok(wire::FunctionHandleMetadata {
        experimental_flash_urls: servers::urls(rows, named),
        ..metadata(&definition, app_id, &definition_id)
    })
}

/// Removes the files of definitions that are no more.
pub(crate) fn clean(core: &Core, inner: &Inner) {
    let Ok(entries) = std::fs::read_dir(core.ground_dir("")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_known = name.to_str().is_some_and(|id| {
            inner
                .state
                .rows
                .has::<DefinitionRow>(id.get(..25).unwrap_or(id))
        });
        if !is_known && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::debug!(%error, ?name, "the files of a definition are still there");
        }
    }
}

/// The definition that the app's last deployment names; before it, the newest.
pub(crate) fn published(
    rows: &Rows,
    app: &AppRow,
    function_id: &str,
) -> Option<(String, wire::Function)> {
    let row = rows.get::<FunctionRow>(function_id)?;
    let named = app
        .definition_ids
        .get(function_id)
        .filter(|id| !id.is_empty());
    let definition_id = named.unwrap_or(&row.definition_id).clone();
    let definition = rows.get::<DefinitionRow>(&definition_id)?;
    Some((
        definition_id,
        wire::Function::decode(definition.function).ok()?,
    ))
}

pub(crate) fn function(rows: &Rows, function_id: &str) -> Result<FunctionRow, Status> {
    rows.get(function_id).ok_or_else(|| unknown(function_id))
}

pub(crate) fn unknown(function_id: &str) -> Status {
    Status::not_found(format!("function {function_id} not found"))
}

/// The function's id: the one it has, or a new one with its row.
fn own_function(
    rows: &Rows,
    app_id: &str,
    existing: &str,
    name: &str,
    change: &mut Change,
) -> Result<String, Status> {
    apps::get(rows, app_id)?;
    if !existing.is_empty() {
        let row = function(rows, existing)?;
        if row.app_id != app_id {
            return Err(unknown(existing));
        }
        return Ok(existing.to_owned());
    }
    let function_id = ids::object("fu");
    let row = FunctionRow {
        app_id: app_id.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    change.put(&function_id, &row);
    Ok(function_id)
}

fn definition_id(function_id: &str, bytes: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(function_id)
        .chain_update(bytes)
        .finalize();
    ids::definition(&crate::contents::hex(&hash))
}
