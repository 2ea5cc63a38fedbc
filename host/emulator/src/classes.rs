//! Classes: names for groups of functions. What they do is in their functions' definitions.

use modal_api::wire;
use tonic::Status;

use crate::{
    apps,
    ask::Ask,
    ids,
    rows::{Change, Row, Table},
    session,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ClassRow {
    #[prost(string, tag = "1")]
    pub(crate) app_id: String,
}

impl Row for ClassRow {
    const TABLE: Table = Table::Classes;
}

pub(crate) fn create(
    ask: &Ask,
    request: wire::ClassCreateRequest,
) -> Result<wire::ClassCreateResponse, Status> {
    let mut guard = ask.core.lock();
    apps::get(&guard.state.rows, &request.app_id)?;
    let class_id = if request.existing_class_id.is_empty() {
        ids::object("cs")
    } else {
        request.existing_class_id
    };
    let mut change = Change::default();
    change.put(
        &class_id,
        &ClassRow {
            app_id: request.app_id,
        },
    );
    ask.commit(&mut guard, change)?;
    Ok(wire::ClassCreateResponse {
        class_id,
        handle_metadata: Some(wire::ClassHandleMetadata::default()),
    })
}

pub(crate) fn get(
    ask: &Ask,
    request: wire::ClassGetRequest,
) -> Result<wire::ClassGetResponse, Status> {
    let guard = ask.core.lock();
    let environment = session::environment(&guard, &request.environment_name)?;
    let class_id = apps::deployed(&guard.state.rows, &environment, &request.app_name)
        .and_then(|(_, app)| app.class_ids.get(&request.object_tag).cloned())
        .ok_or_else(|| {
            Status::not_found(format!(
                "class '{}' of app '{}' not found in environment '{environment}'",
                request.object_tag, request.app_name
            ))
        })?;
    Ok(wire::ClassGetResponse {
        class_id,
        handle_metadata: Some(wire::ClassHandleMetadata::default()),
    })
}
