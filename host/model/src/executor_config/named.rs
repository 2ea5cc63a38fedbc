//! What a task asks for by name: volumes, secrets, variables. What the worker itself lives on is not to be had.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Problem;
use super::read::{Read, object, wrong};

/// Where nothing may be mounted: the container would lose what it runs on.
const TAKEN: &[&str] = &["/", "/root", "/tmp"];
/// Nor here, nor below: DAGs and XComs, the host, Modal's own.
const TAKEN_WHOLLY: &[&str] = &["/vol", "/opt/modalflow", "/pkg", "/__modal"];
/// What the names of the Secrets begin with that hold an environment's keys.
const KEYS_OF_ENVIRONMENTS: &str = "airflow-secrets-";
/// What the variables begin with that tell a worker what it is.
const OF_THE_WORKER: &str = "MODALFLOW_";

pub(super) fn text<'a>(key: &str, value: &'a Value, example: &str) -> Read<&'a str> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| {
            wrong(
                key,
                "a name",
                value,
                &format!("{{\"{key}\": \"{example}\"}}"),
            )
        })
}

/// One name or a list of them.
pub(super) fn names(key: &str, value: &Value, example: &str) -> Read<Vec<String>> {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| text(key, item, example).map(str::to_owned))
            .collect(),
        one => Ok(vec![text(key, one, example)?.to_owned()]),
    }
}

pub(super) fn secrets(value: &Value) -> Read<Vec<String>> {
    let named = names("secrets", value, "my-secret")?;
    match named
        .iter()
        .find(|name| name.starts_with(KEYS_OF_ENVIRONMENTS))
    {
        Some(name) => Err(Problem {
            problem: format!(
                "secrets: {name} holds the keys of an environment, which tasks never get"
            ),
            hint: "put what the task needs into a secret of its own".to_owned(),
        }),
        None => Ok(named),
    }
}

pub(super) fn variables(value: &Value) -> Read<BTreeMap<String, String>> {
    let variables = texts(value)?;
    match variables
        .keys()
        .find(|name| name.starts_with(OF_THE_WORKER))
    {
        Some(name) => Err(Problem {
            problem: format!("env: {name} is one of the worker's own variables"),
            hint: format!("take a name that does not begin with {OF_THE_WORKER}"),
        }),
        None => Ok(variables),
    }
}

fn texts(value: &Value) -> Read<BTreeMap<String, String>> {
    let refused = || {
        wrong(
            "env",
            "a dict of texts",
            value,
            "{\"env\": {\"LEVEL\": \"debug\"}}",
        )
    };
    object(value)
        .ok_or_else(refused)?
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| match value {
            Value::String(value) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok((name.clone(), value.clone()))
            }
            _ => Err(refused()),
        })
        .collect()
}

pub(super) fn volumes(value: &Value) -> Read<BTreeMap<String, String>> {
    const EXAMPLE: &str = "{\"volumes\": {\"/data\": \"my-volume\"}}";
    let refused = || {
        wrong(
            "volumes",
            "a dict of volume names by absolute path",
            value,
            EXAMPLE,
        )
    };
    object(value)
        .ok_or_else(refused)?
        .iter()
        .map(|(path, name)| {
            let name = name.as_str().filter(|name| !name.is_empty());
            match name {
                Some(name) if is_free(path) => Ok((path.clone(), name.to_owned())),
                _ => Err(refused()),
            }
        })
        .collect()
}

/// Whether a volume may be mounted there.
fn is_free(path: &str) -> bool {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let plain = format!("/{}", parts.join("/"));
    let is_within = |taken: &&str| {
        plain
            .strip_prefix(taken)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path.starts_with('/')
        && !parts.contains(&"..")
        && !TAKEN.contains(&plain.as_str())
        && !TAKEN_WHOLLY.iter().any(is_within)
        // A folder above them would hide them.
        && !TAKEN_WHOLLY.iter().any(|taken| taken.starts_with(&format!("{plain}/")))
}
