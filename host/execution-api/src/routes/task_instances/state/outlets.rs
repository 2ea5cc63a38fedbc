//! `task_outlets` and `outlet_events` of a success.

use http::StatusCode;
use metadata::execution::asset_changes::{Alias, Emitted, Outlet};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::problem::Problem;
use crate::request::Fields;

/// `airflow: AssetProfile`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    name: Option<String>,
    uri: Option<String>,
    r#type: String,
}

#[derive(Deserialize)]
struct AssetKey {
    name: String,
    uri: String,
}

#[derive(Deserialize)]
struct Event {
    dest_asset_key: AssetKey,
    extra: Option<Box<RawValue>>,
    partition_key: Option<String>,
    source_alias_name: Option<String>,
    dest_asset_extra: Option<Box<RawValue>>,
}

/// Outlets of the kinds that have events; a profile without what its kind needs is none, as in Airflow.
pub(super) fn outlets(body: &mut Fields) -> Vec<Outlet> {
    let profiles: Vec<Profile> = body.list("task_outlets");
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    profiles
        .into_iter()
        .filter_map(|profile| {
            let (name, uri) = (given(profile.name), given(profile.uri));
            match profile.r#type.as_str() {
                "Asset" => Some(Outlet::Asset {
                    name: name?,
                    uri: uri?,
                }),
                "AssetNameRef" => Some(Outlet::NameRef { name: name? }),
                "AssetUriRef" => Some(Outlet::UriRef { uri: uri? }),
                "AssetAlias" => Some(Outlet::Alias { name: name? }),
                _ => None,
            }
        })
        .fold(Vec::new(), |mut distinct, outlet| {
            if !distinct.contains(&outlet) {
                distinct.push(outlet);
            }
            distinct
        })
}

pub(super) fn events(body: &mut Fields) -> Vec<Emitted> {
    let events: Vec<Event> = body.list("outlet_events");
    let text = |json: Option<Box<RawValue>>| {
        json.map(|json| json.get().to_owned())
            .filter(|text| text != "null")
            .unwrap_or_else(|| "{}".to_owned())
    };
    events
        .into_iter()
        .map(|event| Emitted {
            name: event.dest_asset_key.name,
            uri: event.dest_asset_key.uri,
            extra: text(event.extra),
            partition_key: event.partition_key,
            alias: event.source_alias_name.map(|name| Alias {
                name,
                asset_extra: text(event.dest_asset_extra),
            }),
        })
        .collect()
}

/// The width of the column.
const LONGEST_KEY: usize = 250;

/// # Errors
/// 422 for a key that is blank or too long. `airflow: _validate_outlet_event_partition_keys`
pub(super) fn check_partition_keys(emitted: &[Emitted]) -> Result<(), Problem> {
    let wrong = |message: String| {
        Err(Problem::because(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_partition_key",
            message,
        ))
    };
    for key in emitted
        .iter()
        .filter_map(|event| event.partition_key.as_deref())
    {
        if key.trim().is_empty() {
            return wrong(format!(
                "partition_key in outlet event must not be empty or whitespace-only; got '{key}'."
            ));
        }
        let length = key.chars().count();
        if length > LONGEST_KEY {
            return wrong(format!(
                "partition_key in outlet event must be at most {LONGEST_KEY} characters; got {length}."
            ));
        }
    }
    Ok(())
}
