//! The tables of `~/.modal.toml`, and single settings with the variables before them. Nothing is read from disk here.

use std::{collections::BTreeMap, fmt::Display, path::Path, time::Duration};

use crate::{Credentials, Error};

pub(crate) type Profiles = BTreeMap<String, toml::Table>;

// modal: _read_user_config
pub(crate) fn profiles(path: &Path, text: &str) -> Result<Profiles, Error> {
    let file = path.display();
    let tables: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Error::Config(format!("{file}: {}", error.message())))?;
    tables
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::Table(table) => Ok((name, table)),
            _ => Err(Error::Config(format!(
                "{file}: '{name}' stands outside of a profile\nhint: each profile is a table, as [default]"
            ))),
        })
        .collect()
}

// modal: _config_active_profile, _check_config
pub(crate) fn chosen(
    path: &Path,
    profiles: &Profiles,
    asked: Option<String>,
) -> Result<String, Error> {
    let active: Vec<&String> = profiles
        .iter()
        .filter(|(_, table)| table.get("active").and_then(toml::Value::as_bool) == Some(true))
        .map(|(name, _)| name)
        .collect();
    let hint = "hint: run `modal profile activate NAME`, or set MODAL_PROFILE";
    if active.len() > 1 {
        return Err(Error::Config(format!(
            "{}: more than one profile is active\n{hint}",
            path.display()
        )));
    }
    let asked = asked.filter(|name| !name.is_empty());
    let profile = asked
        .or_else(|| active.first().map(|name| (*name).clone()))
        .unwrap_or_else(|| "default".to_owned());
    if profiles.len() > 1 && active.is_empty() && profile == "default" {
        return Err(Error::Config(format!(
            "{}: no profile is active\n{hint}",
            path.display()
        )));
    }
    Ok(profile)
}

/// One profile, with the variables before it.
pub(crate) struct Settings<'a> {
    pub(crate) table: Option<&'a toml::Table>,
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Settings<'_> {
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        (self.variable)(&format!("MODAL_{}", key.to_uppercase())).or_else(|| {
            let value = self.table?.get(key)?;
            match value {
                toml::Value::String(text) => Some(text.clone()),
                toml::Value::Integer(number) => Some(number.to_string()),
                toml::Value::Float(number) => Some(number.to_string()),
                toml::Value::Boolean(truth) => Some(truth.to_string()),
                toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
            }
        })
    }

    pub(crate) fn seconds(&self, key: &str) -> Result<Option<Duration>, Error> {
        let Some(text) = self.text(key).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let seconds = text
            .parse()
            .map_err(|_| wrong(key, &text, "a whole number of seconds"))?;
        Ok(Some(Duration::from_secs(seconds)))
    }

    // modal: _to_boolean
    pub(crate) fn switch(&self, key: &str) -> bool {
        self.text(key)
            .is_some_and(|text| !matches!(text.to_lowercase().as_str(), "" | "0" | "false"))
    }

    pub(crate) fn credentials(
        &self,
        profiles: &Profiles,
        profile: &str,
        path: &Path,
    ) -> Result<Credentials, Error> {
        let token = |key| self.text(key).filter(|text| !text.is_empty());
        let oauth = [
            "oauth_refresh_token",
            "oauth_client_id",
            "oauth_client_secret",
            "oauth_jwt_key",
        ];
        if let Some(key) = oauth.into_iter().find(|key| token(key).is_some()) {
            return Err(Error::Config(format!(
                "'{key}' is set, and signing in by OAuth is not supported\nhint: use a token: `modal token new`"
            )));
        }
        match (token("token_id"), token("token_secret")) {
            (Some(id), Some(secret)) => Ok(Credentials::token(id, secret)),
            (None, None) => {
                let asked = (self.variable)("MODAL_PROFILE").is_some_and(|name| !name.is_empty());
                if asked && !profiles.contains_key(profile) {
                    return Err(Error::Config(format!(
                        "{} has no profile '{profile}'\nhint: `modal profile list` shows the profiles, `modal token new --profile {profile}` makes it",
                        path.display()
                    )));
                }
                Ok(Credentials::local())
            }
            (id, _) => {
                let missing = if id.is_none() {
                    "token_id"
                } else {
                    "token_secret"
                };
                Err(Error::Config(format!(
                    "half a token: {missing} is missing in profile '{profile}'\nhint: set both MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`"
                )))
            }
        }
    }
}

pub(crate) fn wrong(key: &str, value: impl Display, expected: &str) -> Error {
    Error::Config(format!(
        "setting {key} is '{value}'; expected is {expected}"
    ))
}
