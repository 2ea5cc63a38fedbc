//! What was deployed, for whoever compares two deployments: definitions byte for byte as they came, and what the ids in them
//! stand for.

use std::collections::BTreeMap;

use modal_api::wire;
use prost::bytes::Bytes;

use crate::{
    apps::AppRow,
    core::Core,
    definitions::{DefinitionRow, published},
    images::ImageRow,
    mounts,
    objects::ObjectRow,
    rows::Rows,
};

/// The published functions of all deployed apps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// By app and function: a `Function` of Modal's API, with fields that the emulator does not know.
    pub functions: BTreeMap<(String, String), Bytes>,
    /// What an id that occurs in them stands for, in words that say nothing of ids.
    pub meaning: BTreeMap<String, String>,
}

impl Recorded {
    pub(crate) fn of(core: &Core) -> Self {
        let guard = core.lock();
        let rows = &guard.state.rows;
        let mut recorded = Self::default();
        for (_, app) in rows.scan::<AppRow>(b"") {
            if app.is_stopped() {
                continue;
            }
            for (tag, function_id) in &app.function_ids {
                let Some((definition_id, definition)) = published(rows, &app, function_id) else {
                    continue;
                };
                let Some(row) = rows.get::<DefinitionRow>(&definition_id) else {
                    continue;
                };
                recorded
                    .functions
                    .insert((app.title().to_owned(), tag.clone()), row.function);
                recorded.explain(rows, &definition);
            }
        }
        recorded
    }

    fn explain(&mut self, rows: &Rows, definition: &wire::Function) {
        let objects = definition.secret_ids.iter().chain(
            definition
                .volume_mounts
                .iter()
                .map(|mount| &mount.volume_id),
        );
        for id in objects {
            if let Some(row) = rows.get::<ObjectRow>(id) {
                let text = format!("{} {} version {}", row.kind, row.name, row.version);
                self.meaning.insert(id.clone(), text);
            }
        }
        for id in &definition.mount_ids {
            self.meaning.insert(id.clone(), mount(rows, id));
        }
        let image_id = &definition.image_id;
        if !image_id.is_empty() {
            self.meaning.insert(image_id.clone(), image(rows, image_id));
        }
    }
}

fn mount(rows: &Rows, mount_id: &str) -> String {
    let mut files: Vec<String> = mounts::files(rows, mount_id)
        .into_iter()
        .map(|file| {
            let mode = file.mode.unwrap_or_default();
            format!("{} {:o} {}", file.filename, mode & 0o777, file.sha256_hex)
        })
        .collect();
    files.sort();
    format!("mount [{}]", files.join(", "))
}

/// The layers from the lowest up: each one's commands, and the files that it copied.
fn image(rows: &Rows, image_id: &str) -> String {
    let mut layers = Vec::new();
    let mut next = image_id.to_owned();
    while let Some(row) = rows.get::<ImageRow>(&next) {
        let mut commands = row.commands.clone();
        let copies = row.copies.iter().map(|copy| mount(rows, &copy.mount_id));
        commands.extend(copies);
        layers.push(commands.join("\n"));
        next.clone_from(&row.base);
    }
    layers.reverse();
    layers.join("\n")
}
