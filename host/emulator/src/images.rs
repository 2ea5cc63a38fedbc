//! Images: layers are recorded, not built. Functions run with the emulator's own Python, on this machine's files.
//!
//! `ENV` and `WORKDIR` hold for containers, `COPY` from an uploaded context puts files into them. `RUN` is not run: the build log says so.
//! An instruction that no Dockerfile knows fails the build.

use std::collections::HashMap;

use modal_api::wire::{self, GenericResult, generic_result::GenericStatus};
use prost::Message;
use tonic::Status;

use crate::{
    apps,
    ask::Ask,
    core::Core,
    dockerfile::join_path,
    ids,
    image_build::build,
    objects,
    rows::{Change, Row, Rows, Table},
    session,
};

/// A chain of layers ends here at the latest.
const MAX_LAYERS: usize = 200;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ImageRow {
    #[prost(enumeration = "GenericStatus", tag = "1")]
    pub(crate) status: i32,
    #[prost(string, tag = "2")]
    pub(crate) exception: String,
    /// Lines of the build's log.
    #[prost(string, repeated, tag = "3")]
    pub(crate) log: Vec<String>,
    /// The image below.
    #[prost(string, tag = "4")]
    pub(crate) base: String,
    #[prost(map = "string, string", tag = "5")]
    pub(crate) env: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(crate) workdir: String,
    #[prost(message, repeated, tag = "7")]
    pub(crate) copies: Vec<Copy>,
    #[prost(string, tag = "8")]
    pub(crate) builder_version: String,
    #[prost(double, tag = "9")]
    pub(crate) built_at: f64,
    /// As they came.
    #[prost(string, repeated, tag = "10")]
    pub(crate) commands: Vec<String>,
}

impl Row for ImageRow {
    const TABLE: Table = Table::Images;
}

/// Files of a mount at another place.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Copy {
    #[prost(string, tag = "1")]
    pub(crate) mount_id: String,
    #[prost(string, tag = "2")]
    pub(crate) from: String,
    #[prost(string, tag = "3")]
    pub(crate) to: String,
}

/// What an image means for a container, all layers together.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) env: HashMap<String, String>,
    pub(crate) workdir: Option<String>,
    pub(crate) copies: Vec<Copy>,
}

pub(crate) fn get_or_create(
    ask: &Ask,
    request: wire::ImageGetOrCreateRequest,
) -> Result<wire::ImageGetOrCreateResponse, Status> {
    let mut guard = ask.core.lock();
    let image = request.image.unwrap_or_default();
    let version = if request.builder_version.is_empty() {
        session::IMAGE_BUILDER_VERSION.to_owned()
    } else {
        request.builder_version
    };
    let image_id = ids::image(&canonical(&image), &version);
    let rows = &guard.state.rows;
    for base in &image.base_images {
        get(rows, &base.image_id)?;
    }
    for secret_id in &image.secret_ids {
        objects::get(rows, objects::Kind::Secret, secret_id)?;
    }
    if !request.app_id.is_empty() {
        apps::get(rows, &request.app_id)?;
    }
    let known = rows
        .get::<ImageRow>(&image_id)
        .filter(|row| row.status() == GenericStatus::Success)
        .filter(|_| !request.force_build && !request.ignore_cache);
    if let Some(row) = known {
        return Ok(wire::ImageGetOrCreateResponse {
            result: Some(result(&row)),
            metadata: Some(metadata(&ask.core, rows, &image_id)),
            image_id,
        });
    }
    let row = build(rows, &image, version, ask.wall());
    let mut change = Change::default();
    change.put(&image_id, &row);
    ask.commit(&mut guard, change)?;
    // Without a result the client comes for the log and gets it with that.
    Ok(wire::ImageGetOrCreateResponse {
        image_id,
        result: None,
        metadata: None,
    })
}

/// The whole log at once: a build takes no time.
pub(crate) fn join(
    ask: &Ask,
    request: wire::ImageJoinStreamingRequest,
) -> Result<Vec<wire::ImageJoinStreamingResponse>, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    let row = get(rows, &request.image_id)?;
    let seen: usize = request.last_entry_id.parse().unwrap_or(0);
    let mut answers = Vec::new();
    for (number, line) in row.log.iter().enumerate().skip(seen) {
        answers.push(wire::ImageJoinStreamingResponse {
            task_logs: vec![wire::TaskLogs {
                data: format!("{line}\n"),
                timestamp: row.built_at,
                file_descriptor: wire::FileDescriptor::Stdout.into(),
                ..Default::default()
            }],
            entry_id: (number + 1).to_string(),
            ..Default::default()
        });
    }
    answers.push(wire::ImageJoinStreamingResponse {
        result: Some(result(&row)),
        entry_id: row.log.len().to_string(),
        eof: true,
        metadata: Some(metadata(&ask.core, rows, &request.image_id)),
        ..Default::default()
    });
    Ok(answers)
}

pub(crate) fn from_id(
    ask: &Ask,
    request: wire::ImageFromIdRequest,
) -> Result<wire::ImageFromIdResponse, Status> {
    let guard = ask.core.lock();
    let rows = &guard.state.rows;
    get(rows, &request.image_id)?;
    Ok(wire::ImageFromIdResponse {
        metadata: Some(metadata(&ask.core, rows, &request.image_id)),
        image_id: request.image_id,
    })
}

/// What the layers of an image do to a container; the top one wins.
pub(crate) fn effects(rows: &Rows, image_id: &str) -> Effects {
    let mut effects = Effects::default();
    for row in layers(rows, image_id).into_iter().rev() {
        effects.env.extend(row.env);
        if !row.workdir.is_empty() {
            effects.workdir = Some(join_path(effects.workdir.as_deref(), &row.workdir));
        }
        effects.copies.extend(row.copies);
    }
    effects
}

/// From the top down.
fn layers(rows: &Rows, image_id: &str) -> Vec<ImageRow> {
    let mut layers = Vec::new();
    let mut next = image_id.to_owned();
    while layers.len() < MAX_LAYERS
        && let Some(row) = rows.get::<ImageRow>(&next)
    {
        next.clone_from(&row.base);
        layers.push(row);
    }
    layers
}

fn get(rows: &Rows, image_id: &str) -> Result<ImageRow, Status> {
    rows.get(image_id)
        .ok_or_else(|| Status::not_found(format!("Image {image_id} not found")))
}

/// Maps have no order of their own: without one the same image would have several ids.
fn canonical(image: &wire::Image) -> Vec<u8> {
    let mut arguments: Vec<_> = image.build_args.iter().collect();
    arguments.sort_unstable();
    let mut bytes = wire::Image {
        build_args: HashMap::new(),
        ..image.clone()
    }
    .encode_to_vec();
    bytes.extend_from_slice(format!("{arguments:?}").as_bytes());
    bytes
}

fn result(row: &ImageRow) -> GenericResult {
    GenericResult {
        status: row.status,
        exception: row.exception.clone(),
        ..Default::default()
    }
}

fn metadata(core: &Core, rows: &Rows, image_id: &str) -> wire::ImageMetadata {
    let version = rows
        .get::<ImageRow>(image_id)
        .map(|row| row.builder_version)
        .unwrap_or_default();
    wire::ImageMetadata {
        python_version_info: core.python.as_ref().map(|python| python.version.clone()),
        workdir: effects(rows, image_id).workdir,
        image_builder_version: Some(version),
        ..Default::default()
    }
}
