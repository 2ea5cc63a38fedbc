//! The functions of one deployment that run tasks: looked up, made into what a task asks for, and then called by their own ids.

use std::collections::{BTreeMap, HashMap};

use modal_api::{Client, FunctionHandle, Resources};
use model::ExecutorConfig;
use tokio::sync::Mutex;

use super::Error;
use super::variant::variant;

/// Where functions are looked up, and what every variant keeps of the function that it varies: Modal replaces whole
/// lists.
#[derive(Debug, Clone, Default)]
pub struct Deployed {
    pub app: String,
    /// Modal's environment; empty is the default one.
    pub environment: String,
    /// By name.
    pub secrets: Vec<String>,
    /// Names of volumes by where they are mounted.
    pub volumes: BTreeMap<String, String>,
    pub resources: Resources,
    /// Images of a task's own have functions of their own. Where they have none, tasks run on what there is.
    pub has_images: bool,
    /// A task that asks for cores, memory or a GPU has its container for itself, and there are at most so many; none: all
    /// share what the machine has.
    pub containers_with_resources: Option<u32>,
}

impl Deployed {
    /// An app on this machine, which has neither secrets nor volumes.
    #[must_use]
    pub fn here(app: &str) -> Self {
        Self {
            app: app.to_owned(),
            ..Self::default()
        }
    }
}

/// The function that runs tasks on an image of their own, beside the one that runs all others.
#[must_use]
pub fn function_name(others: &str, image: Option<&str>) -> String {
    image.map_or_else(|| others.to_owned(), |image| format!("{others}_{image}"))
}

/// The functions found so far, by what was asked for. A new deployment makes all of them useless.
#[derive(Debug)]
pub(crate) struct Functions {
    deployed: Deployed,
    /// The one that runs all tasks without an image of their own.
    base: String,
    found: Mutex<HashMap<String, FunctionHandle>>,
}

impl Functions {
    pub(crate) fn new(deployed: Deployed, base: &str) -> Self {
        Self {
            deployed,
            base: base.to_owned(),
            found: Mutex::default(),
        }
    }

    /// Modal's environment that has them.
    pub(crate) fn environment(&self) -> &str {
        &self.deployed.environment
    }

    /// The function that runs a task with this `executor_config`.
    ///
    /// # Errors
    /// [`Error::Function`], [`Error::Image`], [`Error::Variant`]
    pub(crate) async fn of(
        &self,
        client: &Client,
        config: &ExecutorConfig,
    ) -> Result<FunctionHandle, Error> {
        let key = if config.is_empty() {
            String::new()
        } else {
            format!("{config:?}")
        };
        // Held on purpose: a hundred tasks that want the same variant bind it once.
        let mut found = self.found.lock().await;
        if let Some(handle) = found.get(&key) {
            return Ok(handle.clone());
        }
        let handle = self.find(client, config).await?;
        found.insert(key, handle.clone());
        Ok(handle)
    }

    /// The function of tasks without an image of their own, as it is deployed now.
    ///
    /// # Errors
    /// [`Error::Function`]
    pub(crate) async fn base(&self, client: &Client) -> Result<FunctionHandle, Error> {
        self.named(client, &self.base).await
    }

    /// Any function of the app, as it is deployed now.
    ///
    /// # Errors
    /// [`Error::Function`]
    pub(crate) async fn named(&self, client: &Client, name: &str) -> Result<FunctionHandle, Error> {
        let Deployed {
            app, environment, ..
        } = &self.deployed;
        let found = client.function_get(app, name, environment).await;
        found.map_err(|source| self.error(name, source))
    }

    pub(crate) async fn forget(&self) {
        self.found.lock().await.clear();
    }

    async fn find(
        &self,
        client: &Client,
        config: &ExecutorConfig,
    ) -> Result<FunctionHandle, Error> {
        let image = config.image.as_deref().filter(|_| self.deployed.has_images);
        let function = match image {
            Some(image) => self.on_image(client, image).await?,
            None => self.base(client).await?,
        };
        let config = &ExecutorConfig {
            image: None,
            ..config.clone()
        };
        if config.is_empty() {
            return Ok(function);
        }
        let variant = variant(client, &self.deployed, config)
            .await
            .map_err(Error::Variant)?;
        client
            .function_bind(&function.function_id, &variant, &self.deployed.environment)
            .await
            .map_err(Error::Variant)
    }

    async fn on_image(&self, client: &Client, image: &str) -> Result<FunctionHandle, Error> {
        let name = function_name(&self.base, Some(image));
        match self.named(client, &name).await {
            Err(Error::Function { source, .. }) if source.is_not_found() => {
                // Whether there is a deployment at all is told apart.
                let base = self.base(client).await?;
                Err(Error::Image {
                    name: image.to_owned(),
                    known: self.images(client, &base.app_id).await?,
                })
            }
            found => found,
        }
    }

    /// The images that were deployed, by their names.
    async fn images(&self, client: &Client, app_id: &str) -> Result<Vec<String>, Error> {
        let prefix = function_name(&self.base, Some(""));
        let layout = client
            .app_layout(app_id)
            .await
            .map_err(|source| self.error(&prefix, source))?;
        // Sorted, since the layout is.
        Ok(layout
            .functions
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned))
            .collect())
    }

    fn error(&self, name: &str, source: modal_api::Error) -> Error {
        Error::Function {
            app: self.deployed.app.clone(),
            name: name.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use emulator::{Config, Emulator, Listen, Stop};
    use modal_api::{Client, Code, Credentials, Definition, ImageBuild, ImageLayer, Publication};
    use serde_json::json;
    use uuid::Uuid;

    use super::{Deployed, function_name};
    use crate::executor::{Error, Executor, RUN_TASK, Workload};

    /// What is deployed: the function without an image of its own, and one on the image `pandas`.
    async fn deploy(client: &Client) {
        let app_id = client.app_create("app", "", BTreeMap::new()).await.unwrap();
        let environment = client.environment_get("").await.unwrap();
        let build = ImageBuild {
            app_id: &app_id,
            builder_version: &environment.image_builder_version,
            force_build: false,
            ignore_cache: false,
        };
        let layer = ImageLayer {
            commands: vec!["FROM debian:12-slim".to_owned()],
            ..ImageLayer::default()
        };
        let image = client.image_build(layer, build, &mut |_| ()).await.unwrap();
        let mut functions = BTreeMap::new();
        for name in [RUN_TASK.to_owned(), function_name(RUN_TASK, Some("pandas"))] {
            let code = Code::Python {
                module: "worker".to_owned(),
                name: "run_task".to_owned(),
            };
            let definition = Definition::new("app", &name, code, &image.image_id);
            let made = client
                .function_create(&app_id, &definition, None)
                .await
                .unwrap();
            functions.insert(name, (made.function_id, made.definition_id));
        }
        let publication = Publication {
            app_id: &app_id,
            name: "app",
            functions,
            ..Publication::default()
        };
        client.app_publish(publication).await.unwrap();
    }

    #[tokio::test]
    async fn an_image_that_is_not_deployed_is_refused_and_no_deployment_at_all_is_waited_for() {
        let python = std::env::var_os("MODALFLOW_TEST_MODAL_PYTHON");
        let python = python.expect("tests/run names a Python with Modal's client");
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("modal.sock");
        let emulator = Emulator::start(Config {
            state_dir: folder.path().join("state"),
            socket_dir: folder.path().join("sockets"),
            listen: Listen {
                unix: Some(socket.clone()),
                tcp: None,
                beyond_loopback: false,
            },
            tokens: None,
            python: Some(python.into()),
        })
        .await
        .unwrap();
        let url = format!("unix://{}", socket.display());
        let client = Client::connect(url.parse().unwrap(), Credentials::local()).unwrap();
        let ask = async |image: &str| -> Error {
            let deployed = Deployed {
                has_images: true,
                ..Deployed::here("app")
            };
            let workload = Workload {
                dispatch_id: Uuid::from_u128(1),
                json: "{}".to_owned(),
                executor_config: json!({"image": image}),
            };
            let executor = Executor::new(client.clone(), deployed);
            let mut spawned = executor.spawn(vec![workload]).await;
            spawned.remove(0).1.unwrap_err()
        };
        let before = ask("polars").await;
        assert!(!before.is_refusal(), "{before}");

        deploy(&client).await;
        let error = ask("polars").await;
        assert!(error.is_refusal());
        insta::assert_snapshot!(error, @r#"
        executor_config: there is no image "polars"; deployed are pandas
        hint: write how it is made under modal.images in config.yaml, then `modalflow-host create`
        "#);
        let stop = Stop::Terminate {
            grace: std::time::Duration::ZERO,
        };
        emulator.stop(stop).await.unwrap();
    }
}
