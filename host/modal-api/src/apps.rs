//! Apps: what is deployed under a name. An app is made, its functions are defined, then all of it is published at once.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;

use crate::{Client, Error, FunctionHandle, names, outcome::instant, wire};

pub use crate::wire::AppState;

const HEARTBEAT: Duration = Duration::from_secs(15);

/// What stands under an app's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub app_id: String,
    /// By tag, which is what callers look a function up by.
    pub functions: BTreeMap<String, FunctionHandle>,
    /// Class ids by tag; a publication that leaves one out removes it.
    pub classes: BTreeMap<String, String>,
}

/// What an app shall consist of from now on: whatever is not named here is removed.
#[derive(Debug, Clone, Default)]
pub struct Publication<'a> {
    pub app_id: &'a str,
    pub name: &'a str,
    /// Shown in the history of deployments, and nowhere else; may be empty.
    pub deployment_tag: &'a str,
    /// Function ids and definition ids by tag.
    pub functions: BTreeMap<String, (String, String)>,
    pub classes: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The app's page on Modal.
    pub url: String,
    /// None if nothing had changed.
    pub deployed_at: Option<DateTime<Utc>>,
}

/// An app as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedApp {
    pub app_id: String,
    pub name: String,
    pub state: AppState,
    pub running_containers: i32,
    pub created_at: Option<DateTime<Utc>>,
    pub stopped_at: Option<DateTime<Utc>>,
}

/// One entry of an app's history, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub version: u32,
    pub deployed_at: Option<DateTime<Utc>>,
    pub deployed_by: String,
    pub client_version: String,
    pub tag: String,
}

/// Tells the server that an app's maker lives, until it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    task: JoinHandle<()>,
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// The id of the app that is deployed under a name, if any is.
    pub async fn app_find(&self, name: &str, environment: &str) -> Result<Option<String>, Error> {
        names::object("app", name)?;
        let request = wire::AppGetByDeploymentNameRequest {
            name: name.to_owned(),
            environment_name: environment.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_get_by_deployment_name(request).await
            })
            .await
            .map_err(|error| error.looking_for("app", name, environment, ENVIRONMENT_HINT))?;
        Ok(Some(answer.app_id).filter(|id| !id.is_empty()))
    }

    /// Makes an app that is not deployed yet, and answers its id. See [`Client::app_heartbeats`].
    pub async fn app_create(
        &self,
        name: &str,
        environment: &str,
        tags: BTreeMap<String, String>,
    ) -> Result<String, Error> {
        names::object("app", name)?;
        for (key, value) in &tags {
            names::tag(key)?;
            names::tag(value)?;
        }
        let request = wire::AppCreateRequest {
            description: name.to_owned(),
            environment_name: environment.to_owned(),
            app_state: AppState::Initializing.into(),
            tags: tags.into_iter().collect(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_create(request).await
            })
            .await
            .map_err(|error| error.looking_for("app", name, environment, ENVIRONMENT_HINT))?;
        Ok(answer.app_id)
    }

    /// The id of the app under a name; if there is none, a deployed one without functions is made. For sandboxes.
    pub async fn app_get_or_create(&self, name: &str, environment: &str) -> Result<String, Error> {
        names::object("app", name)?;
        let request = wire::AppGetOrCreateRequest {
            app_name: name.to_owned(),
            environment_name: environment.to_owned(),
            object_creation_type: wire::ObjectCreationType::CreateIfMissing.into(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_get_or_create(request).await
            })
            .await
            .map_err(|error| error.looking_for("app", name, environment, ENVIRONMENT_HINT))?;
        Ok(answer.app_id)
    }

    /// What an app consists of. A new deployment reuses the ids of the functions whose tags stay.
    pub async fn app_layout(&self, app_id: &str) -> Result<Layout, Error> {
        let request = wire::AppGetLayoutRequest {
            app_id: app_id.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_get_layout(request).await
            })
            .await?;
        let layout = answer.app_layout.unwrap_or_default();
        let mut metadata: HashMap<String, wire::FunctionHandleMetadata> = layout
            .objects
            .into_iter()
            .filter_map(|object| match object.handle_metadata_oneof {
                Some(wire::object::HandleMetadataOneof::FunctionHandleMetadata(metadata)) => {
                    Some((object.object_id, metadata))
                }
                _ => None,
            })
            .collect();
        let functions = layout.function_ids.into_iter().map(|(tag, id)| {
            let metadata = metadata.remove(&id).unwrap_or_default();
            (tag, FunctionHandle::read(id, metadata))
        });
        Ok(Layout {
            app_id: app_id.to_owned(),
            functions: functions.collect(),
            classes: layout.class_ids.into_iter().collect(),
        })
    }

    /// Keeps an app that is being made alive: the server gives it up after about a minute without a word.
    #[must_use]
    pub fn app_heartbeats(&self, app_id: &str) -> Heartbeat {
        let client = self.clone();
        let app_id = app_id.to_owned();
        let task = tokio::spawn(async move {
            loop {
                let request = wire::AppHeartbeatRequest {
                    app_id: app_id.clone(),
                };
                let beat = client
                    .caller
                    .short(request, async |mut stub, request| {
                        stub.app_heartbeat(request).await
                    })
                    .await;
                if let Err(error) = beat {
                    tracing::debug!(%error, app_id, "heartbeat failed");
                }
                tokio::time::sleep(HEARTBEAT).await;
            }
        });
        Heartbeat { task }
    }

    /// Deploys: from now on the app is what the publication says.
    pub async fn app_publish(&self, publication: Publication<'_>) -> Result<Published, Error> {
        names::object("app", publication.name)?;
        let mut function_ids = HashMap::new();
        let mut definition_ids = HashMap::new();
        for (tag, (function_id, definition_id)) in publication.functions {
            definition_ids.insert(function_id.clone(), definition_id);
            function_ids.insert(tag, function_id);
        }
        let request = wire::AppPublishRequest {
            app_id: publication.app_id.to_owned(),
            name: publication.name.to_owned(),
            deployment_tag: publication.deployment_tag.to_owned(),
            app_state: AppState::Deployed.into(),
            function_ids,
            class_ids: publication.classes.into_iter().collect(),
            definition_ids,
            tags: publication.tags.into_iter().collect(),
            ..Default::default()
        };
        let answer = self
            .caller
            .long(request, async |mut stub, request| {
                stub.app_publish(request).await
            })
            .await?;
        self.caller.warnings.add_all(&answer.server_warnings);
        Ok(Published {
            url: answer.url,
            deployed_at: instant(answer.deployed_at),
        })
    }

    /// Gives up an app whose deployment failed. One that is deployed already stays as it was.
    pub async fn app_abandon(&self, app_id: &str, exception: &str) -> Result<(), Error> {
        let request = wire::AppClientDisconnectRequest {
            app_id: app_id.to_owned(),
            reason: wire::AppDisconnectReason::DeploymentException.into(),
            exception: exception.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.app_client_disconnect(request).await
            })
            .await
    }

    /// Stops an app for good: its containers end, its name is free, its calls can no longer be asked for.
    pub async fn app_stop(&self, app_id: &str) -> Result<(), Error> {
        let request = wire::AppStopRequest {
            app_id: app_id.to_owned(),
            source: wire::AppStopSource::Cli.into(),
        };
        self.caller
            .long(request, async |mut stub, request| {
                stub.app_stop(request).await
            })
            .await
    }

    /// The apps of an environment, those that stopped lately among them.
    pub async fn app_list(&self, environment: &str) -> Result<Vec<ListedApp>, Error> {
        let request = wire::AppListRequest {
            environment_name: environment.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_list(request).await
            })
            .await?;
        Ok(answer
            .apps
            .into_iter()
            .map(|app| ListedApp {
                state: app.state(),
                name: if app.name.is_empty() {
                    app.description
                } else {
                    app.name
                },
                app_id: app.app_id,
                running_containers: app.n_running_tasks,
                created_at: instant(app.created_at),
                stopped_at: instant(app.stopped_at),
            })
            .collect())
    }

    /// The deployments of an app.
    pub async fn app_history(&self, app_id: &str) -> Result<Vec<Deployment>, Error> {
        let request = wire::AppDeploymentHistoryRequest {
            app_id: app_id.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_deployment_history(request).await
            })
            .await?;
        let mut history: Vec<Deployment> = answer
            .app_deployment_histories
            .into_iter()
            .map(|one| Deployment {
                version: one.version,
                deployed_at: instant(one.deployed_at),
                deployed_by: one.deployed_by,
                client_version: one.client_version,
                tag: one.tag,
            })
            .collect();
        history.sort_by_key(|one| std::cmp::Reverse(one.version));
        Ok(history)
    }
}

pub(crate) const ENVIRONMENT_HINT: &str =
    "`modal environment list` shows the environments; MODAL_ENVIRONMENT or the profile chooses one";
