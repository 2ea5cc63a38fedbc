//! Environments: the rooms of a workspace. Names of apps, volumes and all else hold within one.

use crate::{Client, Error, apps::ENVIRONMENT_HINT, names, wire};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub environment_id: String,
    pub name: String,
    /// Goes into each request for an image.
    pub image_builder_version: String,
    /// Part of the addresses of what serves HTTP.
    pub webhook_suffix: String,
}

/// Whose token this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub token_id: String,
    pub workspace: String,
    /// Empty for a token that belongs to no person.
    pub user: String,
}

impl Client {
    /// Looks an environment up; an empty name is the workspace's default one.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub async fn environment_get(&self, name: &str) -> Result<Environment, Error> {
        names::environment(name)?;
        let request = wire::EnvironmentGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: wire::ObjectCreationType::Unspecified.into(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.environment_get_or_create(request).await
            })
            .await
            .map_err(|error| error.looking_for("environment", name, "", ENVIRONMENT_HINT))?;
        let metadata = answer.metadata.unwrap_or_default();
        let settings = metadata.settings.unwrap_or_default();
        Ok(Environment {
            environment_id: answer.environment_id,
            name: metadata.name,
            image_builder_version: settings.image_builder_version,
            webhook_suffix: settings.webhook_suffix,
        })
    }

    /// The names of the workspace's environments.
    pub async fn environment_list(&self) -> Result<Vec<String>, Error> {
        let answer = self
            .caller
            .short((), async |mut stub, request| {
                stub.environment_list(request).await
            })
            .await?;
        Ok(answer.items.into_iter().map(|item| item.name).collect())
    }

    /// Whose token we use.
    pub async fn token_info(&self) -> Result<TokenInfo, Error> {
        let answer = self
            .caller
            .short(wire::TokenInfoGetRequest {}, async |mut stub, request| {
                stub.token_info_get(request).await
            })
            .await?;
        let user = match answer.identity {
            Some(wire::token_info_get_response::Identity::UserIdentity(user)) => user.username,
            None => String::new(),
        };
        Ok(TokenInfo {
            token_id: answer.token_id,
            workspace: answer.workspace_name,
            user,
        })
    }
}
