//! Secrets: environment variables of containers. Values go in; no answer holds one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{Client, Creation, Error, listing::Page, names, outcome::instant, wire};

/// Who an unnamed secret belongs to.
#[derive(Debug, Clone, Copy)]
pub enum SecretOwner<'a> {
    /// As long as the app needs it.
    App(&'a str),
    /// As long as this client works with it; empty: the default environment.
    Environment(&'a str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSecret {
    pub secret_id: String,
    pub name: String,
    pub created_at: Option<DateTime<Utc>>,
}

impl Client {
    /// Makes or replaces the named secret, and answers its id. Containers that start later see the new values.
    pub async fn secret_put(
        &self,
        name: &str,
        environment: &str,
        values: BTreeMap<String, String>,
    ) -> Result<String, Error> {
        self.secret_create(name, environment, values, Creation::Overwrite)
            .await
    }

    /// Makes a named secret, in the way that `creation` says.
    pub async fn secret_create(
        &self,
        name: &str,
        environment: &str,
        values: BTreeMap<String, String>,
        creation: Creation,
    ) -> Result<String, Error> {
        names::object("secret", name)?;
        let request = wire::SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: environment.to_owned(),
            object_creation_type: creation.wire().into(),
            env_dict: values.into_iter().collect(),
            ..Default::default()
        };
        self.secret(request)
            .await
            .map_err(|error| error.looking_for("secret", name, environment, HINT))
    }

    /// Looks a secret up; the server checks that it has these keys.
    pub async fn secret_find(
        &self,
        name: &str,
        environment: &str,
        required_keys: &[&str],
    ) -> Result<String, Error> {
        names::object("secret", name)?;
        let request = wire::SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: environment.to_owned(),
            required_keys: required_keys.iter().map(|key| (*key).to_owned()).collect(),
            ..Default::default()
        };
        self.secret(request)
            .await
            .map_err(|error| error.looking_for("secret", name, environment, HINT))
    }

    /// A secret without a name.
    pub async fn secret_unnamed(
        &self,
        owner: SecretOwner<'_>,
        values: BTreeMap<String, String>,
    ) -> Result<String, Error> {
        let (kind, app_id, environment) = match owner {
            SecretOwner::App(app_id) => (wire::ObjectCreationType::AnonymousOwnedByApp, app_id, ""),
            SecretOwner::Environment(name) => (wire::ObjectCreationType::Ephemeral, "", name),
        };
        let request = wire::SecretGetOrCreateRequest {
            environment_name: environment.to_owned(),
            object_creation_type: kind.into(),
            env_dict: values.into_iter().collect(),
            app_id: app_id.to_owned(),
            ..Default::default()
        };
        self.secret(request).await
    }

    async fn secret(&self, request: wire::SecretGetOrCreateRequest) -> Result<String, Error> {
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.secret_get_or_create(request).await
            })
            .await?;
        Ok(answer.secret_id)
    }

    /// Changes single keys; none as a value removes the key.
    pub async fn secret_update(
        &self,
        secret_id: &str,
        values: BTreeMap<String, Option<String>>,
    ) -> Result<(), Error> {
        let request = wire::SecretUpdateRequest {
            secret_id: secret_id.to_owned(),
            updates: values
                .into_iter()
                .map(|(key, value)| wire::secret_update_request::Update { key, value })
                .collect(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.secret_update(request).await
            })
            .await
    }

    /// The names of a secret's keys.
    pub async fn secret_keys(&self, secret_id: &str) -> Result<Vec<String>, Error> {
        let request = wire::SecretGetInfoRequest {
            secret_id: secret_id.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.secret_get_info(request).await
            })
            .await?;
        let mut keys = answer.metadata.unwrap_or_default().keys;
        keys.sort();
        Ok(keys)
    }

    pub async fn secret_list(&self, environment: &str) -> Result<Vec<ListedSecret>, Error> {
        let mut page = Page::default();
        let mut all = Vec::new();
        while let Some(pagination) = page.next() {
            let request = wire::SecretListRequest {
                environment_name: environment.to_owned(),
                pagination: Some(pagination),
            };
            let answer = self
                .caller
                .short(request, async |mut stub, request| {
                    stub.secret_list(request).await
                })
                .await?;
            page.seen(answer.items.iter().map(|item| item.created_at));
            all.extend(answer.items.into_iter().map(|item| ListedSecret {
                secret_id: item.secret_id,
                name: item.label,
                created_at: instant(item.created_at),
            }));
        }
        Ok(all)
    }

    pub async fn secret_delete(&self, secret_id: &str) -> Result<(), Error> {
        let request = wire::SecretDeleteRequest {
            secret_id: secret_id.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.secret_delete(request).await
            })
            .await
    }
}

const HINT: &str = "`modal secret list` shows the secrets, `modal secret create` makes one";
