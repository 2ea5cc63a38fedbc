//! Hides rendered fields whose name says that they are secret. Values are masked by the worker, which knows them;
//! names are looked at here once more. `airflow: secrets_masker.redact`

use serde_json::Value;
use serde_json::value::RawValue;

/// `airflow: DEFAULT_SENSITIVE_FIELDS`
const SENSITIVE: [&str; 22] = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "bearer",
    "connection_string",
    "dsn",
    "keyfile_dict",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxies",
    "proxy",
    "proxy_password",
    "secret",
    "service_account",
    "service_key",
    "token",
    "webhook_url",
];

/// The object's text with `***` for what a sensitive name stands before. It is taken apart only when it has one.
pub(crate) fn fields(object: &RawValue) -> String {
    let text = object.get();
    let lower = text.to_ascii_lowercase();
    // An escaped letter could hide a name from this glance.
    let may_have_one = lower.contains("\\u")
        || SENSITIVE.iter().any(|word| match word.split_once('_') {
            // The separator may be any run of other characters.
            Some((first, _)) => lower.contains(first),
            None => lower.contains(word),
        });
    if !may_have_one {
        return text.to_owned();
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) if object.iter().any(|(name, value)| has_secret(name, value)) => {
            redacted("", Value::Object(object)).to_string()
        }
        _ => text.to_owned(),
    }
}

fn has_secret(name: &str, value: &Value) -> bool {
    is_sensitive(name)
        || match value {
            Value::Object(object) => object.iter().any(|(name, value)| has_secret(name, value)),
            Value::Array(list) => list.iter().any(|value| has_secret("", value)),
            _ => false,
        }
}

fn redacted(name: &str, value: Value) -> Value {
    match value {
        value if is_sensitive(name) => hidden(value),
        Value::Object(object) => object
            .into_iter()
            .map(|(name, value)| {
                let value = redacted(&name, value);
                (name, value)
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(|value| redacted("", value)).collect(),
        value => value,
    }
}

/// `***` for every text inside; other values and the shape stay. `airflow: SecretsMasker._redact_all`
fn hidden(value: Value) -> Value {
    match value {
        Value::String(_) => Value::from("***"),
        Value::Object(object) => object
            .into_iter()
            .map(|(name, value)| (name, hidden(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(hidden).collect(),
        value => value,
    }
}

/// `airflow: SecretsMasker.should_hide_value_for_key`
fn is_sensitive(name: &str) -> bool {
    let mut normalized = String::with_capacity(name.len());
    for character in name.trim().to_lowercase().chars() {
        if character.is_alphanumeric() || character == '_' {
            normalized.push(character);
        } else if !normalized.ends_with('_') {
            normalized.push('_');
        }
    }
    SENSITIVE.iter().any(|word| normalized.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::fields;

    #[test]
    fn values_under_sensitive_names_are_hidden() {
        let shown: Vec<String> = [
            r#"{"bash_command": "echo 1", "n": 1.0}"#,
            r#"{"env": {"DB_PASSWORD": "swordfish", "PORT": 1}}"#,
            r#"{"headers": [{"api-key": ["a", 1]}], "big": 12345678901234567890}"#,
            r#"{"sql": "select token from t"}"#,
            r#"{"Token ": {"a": "b"}}"#,
        ]
        .iter()
        .map(|text| fields(&RawValue::from_string((*text).to_owned()).unwrap()))
        .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        {"bash_command": "echo 1", "n": 1.0}
        {"env":{"DB_PASSWORD":"***","PORT":1}}
        {"big":12345678901234567890,"headers":[{"api-key":["***",1]}]}
        {"sql": "select token from t"}
        {"Token ":{"a":"***"}}
        "#);
    }
}
