//! Secrets in log lines become `***`, by the rules of Airflow's secrets masker: known values anywhere in a text, and whatever
//! stands under a name that sounds sensitive.

use std::sync::{Arc, RwLock};

use serde_json::Value;

/// airflow: `DEFAULT_SENSITIVE_FIELDS`
const SENSITIVE_NAMES: [&str; 22] = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "bearer",
    "connection_string",
    "dsn",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxy",
    "proxy_password",
    "proxies",
    "secret",
    "service_account",
    "service_key",
    "token",
    "keyfile_dict",
    "webhook_url",
];
const STARS: &str = "***";
/// airflow: `[logging] min_length_masked_secret`
const SHORTEST: usize = 5;
/// airflow: `SECRETS_TO_SKIP_MASKING`
const NO_SECRET: &str = "airflow";

/// What is to be masked in one task's log. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masker {
    /// Longest first, so that a secret within another does not leave the other's rest readable.
    secrets: Arc<RwLock<Vec<String>>>,
    more_names: Arc<Vec<String>>,
}

impl Masker {
    /// `more_names` is `[core] sensitive_var_conn_names`: separated by commas.
    pub(crate) fn new(more_names: &str) -> Self {
        let names = more_names
            .split(',')
            .map(|name| name.trim().to_lowercase())
            .filter(|name| !name.is_empty());
        Self {
            secrets: Arc::default(),
            more_names: Arc::new(names.collect()),
        }
    }

    /// Masks every text in `value` from now on. With a `name`, only if the name is sensitive.
    // airflow: SecretsMasker.add_mask
    pub(crate) fn add(&self, value: &Value, name: Option<&str>) {
        match value {
            Value::String(secret) => self.add_text(secret, name),
            Value::Array(items) => items.iter().for_each(|item| self.add(item, name)),
            Value::Object(entries) => entries
                .iter()
                .for_each(|(name, value)| self.add(value, Some(name))),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn add_text(&self, secret: &str, name: Option<&str>) {
        let long_enough = secret.chars().count() >= SHORTEST;
        let wanted = name.is_none_or(|name| name.is_empty() || self.is_sensitive(name));
        if !long_enough || !wanted || secret.eq_ignore_ascii_case(NO_SECRET) {
            return;
        }
        let mut secrets = self
            .secrets
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(place) = secrets.binary_search_by(|known| {
            secret
                .len()
                .cmp(&known.len())
                .then_with(|| known.as_str().cmp(secret))
        }) {
            secrets.insert(place, secret.to_owned());
        }
    }

    /// Whether a value under this name is hidden.
    // airflow: SecretsMasker.should_hide_value_for_key
    pub(crate) fn is_sensitive(&self, name: &str) -> bool {
        let mut normal = String::with_capacity(name.len());
        for letter in name.trim().to_lowercase().chars() {
            if letter.is_alphanumeric() {
                normal.push(letter);
            } else if !normal.ends_with('_') || letter == '_' {
                normal.push('_');
            }
        }
        let known = SENSITIVE_NAMES
            .iter()
            .copied()
            .chain(self.more_names.iter().map(String::as_str));
        known.into_iter().any(|part| normal.contains(part))
    }

    /// The text without secrets.
    pub(crate) fn text(&self, mut text: String) -> String {
        let secrets = self
            .secrets
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for secret in secrets.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), STARS);
            }
        }
        text
    }

    /// The value without secrets and without what stands under sensitive names.
    // airflow: SecretsMasker.redact
    pub(crate) fn value(&self, value: Value, name: Option<&str>) -> Value {
        if name.is_some_and(|name| self.is_sensitive(name)) {
            return hide(value);
        }
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items
                .into_iter()
                .map(|item| self.value(item, None))
                .collect(),
            Value::Object(entries) => entries
                .into_iter()
                .map(|(name, value)| {
                    let masked = self.value(value, Some(&name));
                    (name, masked)
                })
                .collect(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }
}

// airflow: SecretsMasker._redact_all
fn hide(value: Value) -> Value {
    match value {
        Value::String(_) => Value::String(STARS.to_owned()),
        Value::Array(items) => items.into_iter().map(hide).collect(),
        Value::Object(entries) => entries
            .into_iter()
            .map(|(name, value)| (name, hide(value)))
            .collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::Masker;
    use serde_json::json;

    #[test]
    fn secrets_and_sensitive_names_are_masked() {
        let masker = Masker::new("pin, Geheim");
        masker.add(&json!("hunter2"), None);
        masker.add(&json!("hunter2-and-more"), None);
        masker.add(&json!({"password": "s3cret!", "host": "db.example.org", "extra": ["not-under-a-name"]}), None);
        masker.add(&json!("abcd"), None);
        masker.add(&json!("Airflow"), None);
        let masked = masker.value(
            json!({
                "event": "hunter2-and-more, hunter2, s3cret!, abcd, airflow, db.example.org",
                "nested": {"Api Key": ["x", 1], "mein_geheim": {"a": "b"}, "deep": [{"token": "t"}]},
            }),
            None,
        );
        insta::assert_snapshot!(masked, @r#"{"event":"***, ***, ***, abcd, airflow, db.example.org","nested":{"Api Key":["***",1],"deep":[{"token":"***"}],"mein_geheim":{"a":"***"}}}"#);
    }
}
