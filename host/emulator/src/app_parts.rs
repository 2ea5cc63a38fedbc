//! What belongs to an app: its functions and classes as callers know them, and all that goes with it.

use std::collections::HashSet;

use modal_api::wire;

use crate::{
    apps::AppRow,
    classes::ClassRow,
    definitions::{self, DefinitionRow, FunctionRow},
    mounts, objects,
    publish::VersionRow,
    rows::{Change, Rows},
    schedules::ScheduleRow,
};

/// What an app consists of, with what callers must know of each function.
pub(crate) fn layout_of(rows: &Rows, app_id: &str, row: &AppRow) -> wire::AppLayout {
    use wire::object::HandleMetadataOneof;
    let functions = row.function_ids.values().filter_map(|function_id| {
        let metadata = definitions::handle_metadata(rows, app_id, function_id).ok()?;
        Some(wire::Object {
            object_id: function_id.clone(),
            handle_metadata_oneof: Some(HandleMetadataOneof::FunctionHandleMetadata(metadata)),
        })
    });
    let classes = row.class_ids.values().map(|class_id| wire::Object {
        object_id: class_id.clone(),
        handle_metadata_oneof: Some(HandleMetadataOneof::ClassHandleMetadata(
            wire::ClassHandleMetadata::default(),
        )),
    });
    wire::AppLayout {
        objects: functions.chain(classes).collect(),
        function_ids: row.function_ids.clone(),
        class_ids: row.class_ids.clone(),
    }
}

/// The app that a function belongs to.
pub(crate) fn app_of(rows: &Rows, function_id: &str) -> Option<String> {
    let app_id = rows.get::<FunctionRow>(function_id)?.app_id;
    // That of a variant of a function of this process is not one that the API knows.
    (!app_id.is_empty()).then_some(app_id)
}

/// All functions that were ever made for an app, variants too.
pub(crate) fn functions_of(rows: &Rows, app_id: &str) -> HashSet<String> {
    rows.scan::<FunctionRow>(b"")
        .filter(|(_, row)| row.app_id == app_id)
        .map(|(id, _)| String::from_utf8_lossy(id).into_owned())
        .collect()
}

/// Adds the rows that end the memory of an app.
pub(crate) fn forget(rows: &Rows, app_id: &str, change: &mut Change) {
    change.delete::<AppRow>(app_id);
    objects::clear::<VersionRow>(rows, &objects::own_key(app_id), change);
    let functions = functions_of(rows, app_id);
    for (definition_id, row) in rows.scan::<DefinitionRow>(b"") {
        if functions.contains(&row.function_id) {
            change.delete::<DefinitionRow>(definition_id);
        }
    }
    for function_id in &functions {
        change.delete::<FunctionRow>(function_id);
        change.delete::<ScheduleRow>(function_id);
    }
    for (class_id, row) in rows.scan::<ClassRow>(b"") {
        if row.app_id == app_id {
            change.delete::<ClassRow>(class_id);
        }
    }
    objects::forget_owned(rows, app_id, change);
    mounts::forget_owned(rows, app_id, change);
}

#[cfg(test)]
mod tests {
    use super::{AppRow, FunctionRow, forget};
    use crate::{
        images::{Copy, ImageRow},
        mounts::MountRow,
        objects::ObjectRow,
        record::Event,
        rows::{Change, Rows, key},
        secrets::SecretRow,
    };

    fn apply(rows: &mut Rows, change: Change) {
        if let Event::RowsChanged(event) = change.into_event() {
            rows.apply(event);
        }
    }

    #[test]
    fn what_an_app_owns_goes_with_it() {
        let mut rows = Rows::default();
        let mut change = Change::default();
        for app_id in ["ap-1", "ap-2"] {
            let id = |kind: &str| format!("{kind}-of-{app_id}");
            let own = |name: &str| ObjectRow {
                kind: "st".to_owned(),
                name: name.to_owned(),
                app_id: app_id.to_owned(),
                ..Default::default()
            };
            change.put(app_id, &AppRow::default());
            let function = FunctionRow {
                app_id: app_id.to_owned(),
                ..Default::default()
            };
            change.put(id("fu"), &function);
            change.put(id("unnamed"), &own(""));
            change.put(key(&[id("unnamed").as_bytes()]), &SecretRow::default());
            change.put(id("named"), &own("named"));
            for mount in ["mo", "copied"] {
                change.put(key(&[id(mount).as_bytes()]), &MountRow::of_app(app_id));
            }
            let mut image = ImageRow::default();
            image.copies.push(Copy {
                mount_id: id("copied"),
                ..Default::default()
            });
            change.put(id("im"), &image);
        }
        apply(&mut rows, change);
        let mut change = Change::default();
        forget(&rows, "ap-1", &mut change);
        apply(&mut rows, change);
        let text = |keys: Vec<&[u8]>| -> Vec<String> {
            let texts = keys.into_iter().map(String::from_utf8_lossy);
            texts
                .map(|text| text.trim_start_matches(|letter| letter < ' ').to_owned())
                .collect()
        };
        let own = b"";
        assert_eq!(text(rows.keys::<AppRow>(own).collect()), ["ap-2"]);
        assert_eq!(
            text(rows.keys::<FunctionRow>(own).collect()),
            ["fu-of-ap-2"]
        );
        assert_eq!(
            text(rows.keys::<ObjectRow>(own).collect()),
            ["named-of-ap-1", "named-of-ap-2", "unnamed-of-ap-2"]
        );
        assert_eq!(rows.keys::<SecretRow>(own).count(), 1);
        assert_eq!(rows.keys::<MountRow>(own).count(), 3);
        assert!(rows.has::<MountRow>(key(&[b"copied-of-ap-1"])));
    }
}
