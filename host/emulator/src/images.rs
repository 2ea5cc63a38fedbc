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
    dockerfile::{assignments, expand, instructions, join_path, unquote},
    ids, mounts, objects,
    rows::{Change, Row, Rows, Table},
    secrets, session,
};

/// A chain of layers ends here at the latest.
const MAX_LAYERS: usize = 200;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ImageRow {
    #[prost(enumeration = "GenericStatus", tag = "1")]
    status: i32,
    #[prost(string, tag = "2")]
    exception: String,
    /// Lines of the build's log.
    #[prost(string, repeated, tag = "3")]
    log: Vec<String>,
    /// The image below.
    #[prost(string, tag = "4")]
    pub(crate) base: String,
    #[prost(map = "string, string", tag = "5")]
    env: HashMap<String, String>,
    #[prost(string, tag = "6")]
    workdir: String,
    #[prost(message, repeated, tag = "7")]
    pub(crate) copies: Vec<Copy>,
    #[prost(string, tag = "8")]
    builder_version: String,
    #[prost(double, tag = "9")]
    built_at: f64,
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
    let row = build(rows, &image, version, ask.now());
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

fn build(rows: &Rows, image: &wire::Image, builder_version: String, now: f64) -> ImageRow {
    let mut row = ImageRow {
        status: GenericStatus::Success.into(),
        base: image
            .base_images
            .first()
            .map(|base| base.image_id.clone())
            .unwrap_or_default(),
        builder_version,
        built_at: now,
        commands: image.dockerfile_commands.clone(),
        ..Default::default()
    };
    let mut arguments = image.build_args.clone();
    for secret_id in &image.secret_ids {
        arguments.extend(secrets::values(rows, secret_id).values);
    }
    for instruction in instructions(&image.dockerfile_commands) {
        if let Err(reason) = step(rows, image, &instruction, &mut arguments, &mut row) {
            row.log.push(format!("error: {reason}"));
            row.set_status(GenericStatus::Failure);
            row.exception = format!("Image build failed at '{instruction}': {reason}");
            return row;
        }
    }
    if image.build_function.is_some() {
        let reason = "functions are not run while an image is built";
        row.log.push(format!("error: {reason}"));
        row.set_status(GenericStatus::Failure);
        row.exception = format!(
            "{reason}: this is modalflow's emulator\nhint: leave run_function out, or do its work when the container starts"
        );
    }
    row
}

fn step(
    rows: &Rows,
    image: &wire::Image,
    instruction: &str,
    arguments: &mut HashMap<String, String>,
    row: &mut ImageRow,
) -> Result<(), String> {
    let (word, rest) = instruction
        .split_once(char::is_whitespace)
        .unwrap_or((instruction, ""));
    let rest = rest.trim();
    row.log.push(format!("=> {instruction}"));
    match word.to_ascii_uppercase().as_str() {
        "FROM" if rest.is_empty() => return Err("FROM needs an image".to_owned()),
        "FROM" if rest != "base" => {
            row.log.push(format!(
                "   {rest} is not pulled: functions run with this machine's files and the emulator's Python"
            ));
        }
        "RUN" if rest.is_empty() => return Err("RUN needs a command".to_owned()),
        "RUN" => row
            .log
            .push("   not run: install what it installs into the emulator's Python".to_owned()),
        "ENV" => {
            // What one instruction sets, its own values do not see.
            let before = row.env.clone();
            for (name, value) in assignments(rest)? {
                row.env.insert(name, expand(&value, &before, arguments));
            }
        }
        "ARG" => {
            if let Some((name, value)) = rest.split_once('=') {
                arguments
                    .entry(name.trim().to_owned())
                    .or_insert_with(|| unquote(value.trim()));
            }
        }
        "WORKDIR" if rest.is_empty() => return Err("WORKDIR needs a path".to_owned()),
        "WORKDIR" => {
            let path = expand(&unquote(rest), &row.env, arguments);
            let before = Some(row.workdir.as_str()).filter(|path| !path.is_empty());
            row.workdir = join_path(before, &path);
        }
        "COPY" | "ADD" => copy(rows, image, rest, row)?,
        "ENTRYPOINT" | "CMD" | "SHELL" | "USER" | "LABEL" | "EXPOSE" | "VOLUME" | "STOPSIGNAL"
        | "HEALTHCHECK" | "ONBUILD" => {
            row.log.push("   recorded, without effect".to_owned());
        }
        "FROM" => {}
        _ => return Err(format!("unknown instruction: {word}")),
    }
    Ok(())
}

fn copy(rows: &Rows, image: &wire::Image, rest: &str, row: &mut ImageRow) -> Result<(), String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let Some((to, sources)) = words
        .split_last()
        .filter(|(_, sources)| !sources.is_empty())
    else {
        return Err("COPY needs a source and a target".to_owned());
    };
    if sources.iter().any(|word| word.starts_with("--")) {
        row.log
            .push("   not copied: options of COPY are not there".to_owned());
        return Ok(());
    }
    for source in sources {
        let from = format!(
            "/{}",
            source.trim_start_matches("./").trim_start_matches('/')
        );
        let from = from.trim_end_matches('.').trim_end_matches('/').to_owned();
        if image.context_mount_id.is_empty() {
            row.log
                .push(format!("   {source} is not copied: it was not uploaded"));
            continue;
        }
        let files = mounts::files(rows, &image.context_mount_id);
        if files.is_empty() {
            row.log.push(format!(
                "   {source} is not copied: Modal's own files are not here"
            ));
            continue;
        }
        let is_there = files
            .iter()
            .any(|file| file.filename == from || file.filename.starts_with(&format!("{from}/")));
        if !is_there {
            return Err(format!("'{source}' is not in the build's context"));
        }
        row.copies.push(Copy {
            mount_id: image.context_mount_id.clone(),
            from,
            to: join_path(
                Some(row.workdir.as_str()).filter(|path| !path.is_empty()),
                to,
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use modal_api::wire::{Image, generic_result::GenericStatus};

    use super::{ImageRow, build};
    use crate::rows::Rows;

    fn built(lines: &[&str]) -> ImageRow {
        let image = Image {
            dockerfile_commands: lines.iter().map(|line| (*line).to_owned()).collect(),
            build_args: [("WHO".to_owned(), "me".to_owned())].into(),
            ..Default::default()
        };
        build(&Rows::default(), &image, "2025.06".to_owned(), 1.0)
    }

    #[test]
    fn layers_are_recorded_and_the_log_says_what_is_not_done() {
        let row = built(&[
            "FROM python:3.12-slim",
            "# a comment",
            "RUN pip install \\",
            "    numpy",
            "ENV A=1 B=\"two words\" C=$WHO-${A}",
            "ENV OLD form of it",
            "WORKDIR /srv",
            "WORKDIR app",
        ]);
        assert_eq!(row.status(), GenericStatus::Success);
        let mut env: Vec<_> = row.env.iter().collect();
        env.sort_unstable();
        insta::assert_snapshot!(
            format!("{env:?}\n{}\n{}", row.workdir, row.log.join("\n")),
            @r#"
        [("A", "1"), ("B", "two words"), ("C", "me-"), ("OLD", "form of it")]
        /srv/app
        => FROM python:3.12-slim
           python:3.12-slim is not pulled: functions run with this machine's files and the emulator's Python
        => RUN pip install numpy
           not run: install what it installs into the emulator's Python
        => ENV A=1 B="two words" C=$WHO-${A}
        => ENV OLD form of it
        => WORKDIR /srv
        => WORKDIR app
        "#
        );
    }

    #[test]
    fn what_no_dockerfile_knows_fails_the_build() {
        let row = built(&["FROM base", "RNU make"]);
        assert_eq!(row.status(), GenericStatus::Failure);
        assert_eq!(
            row.log.last().map(String::as_str),
            Some("error: unknown instruction: RNU")
        );
        assert_eq!(built(&["COPY . /x"]).status(), GenericStatus::Success);
        assert_eq!(built(&["COPY x"]).status(), GenericStatus::Failure);
    }
}
