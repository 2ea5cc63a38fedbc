//! Making a blueprint true on Modal, by RPC and step by step. Each step finds what an earlier attempt has done; nothing is published
//! before all of it is there, so that what ran goes on when a deployment fails.

use std::collections::BTreeMap;

use environment::Progress;
use modal_api::{
    CODE_FOLDER, Client, Code, Creation, Definition, FunctionHandle, HttpServer, ImageBuild,
    ImageLayer, MountOwner, Publication, PythonClass, Resources, Retries, Scaling, Upload,
    VolumeMount, VolumeVersion,
};

use super::blueprint::{
    Blueprint, Content, FUNCTIONS, File, Function, Kind, Layer, MODULE, Schedule, VOLUME,
};
use super::container::{AIRFLOW_UI, EXECUTION_API};
use super::error::Error;

/// What is deployed now.
#[derive(Debug, Clone)]
pub(crate) struct Deployed {
    pub(crate) app_id: String,
    pub(crate) execution_api_url: String,
    pub(crate) ui_url: String,
}

/// Deploys; `tag` names the version.
pub(crate) async fn deploy(
    client: &Client,
    blueprint: &Blueprint,
    tag: &str,
    progress: &dyn Progress,
) -> Result<Deployed, Error> {
    let environment = client.environment_get(&blueprint.environment).await?;
    let existing = client
        .app_find(&blueprint.app, &blueprint.environment)
        .await?;
    let (app_id, known) = match existing {
        Some(app_id) => {
            let layout = client.app_layout(&app_id).await?;
            (app_id, layout.functions)
        }
        None => {
            let tags = BTreeMap::from([("made-by".to_owned(), "modalflow".to_owned())]);
            let app_id = client
                .app_create(&blueprint.app, &blueprint.environment, tags)
                .await?;
            (app_id, BTreeMap::new())
        }
    };
    let _alive = client.app_heartbeats(&app_id);
    let made = Making {
        client,
        blueprint,
        app_id: &app_id,
        builder_version: &environment.image_builder_version,
        progress,
    }
    .all(&known, tag)
    .await;
    if let Err(error) = &made
        && known.is_empty()
    {
        // What was never published is forgotten; what is published stays as it was.
        if let Err(second) = client.app_abandon(&app_id, &error.to_string()).await {
            tracing::warn!(error = %second, "the app that could not be deployed is still there");
        }
    }
    made
}

/// One deployment under way.
struct Making<'a> {
    client: &'a Client,
    blueprint: &'a Blueprint,
    app_id: &'a str,
    builder_version: &'a str,
    progress: &'a dyn Progress,
}

impl Making<'_> {
    async fn all(
        &self,
        known: &BTreeMap<String, FunctionHandle>,
        tag: &str,
    ) -> Result<Deployed, Error> {
        let blueprint = self.blueprint;
        let step = self.progress.step("making volume and dict");
        let volume = self
            .client
            .volume_get_or_create(
                &blueprint.volume,
                &blueprint.environment,
                Creation::IfMissing,
                Some(VolumeVersion::V2),
            )
            .await?;
        self.client
            .dict_get_or_create(&blueprint.dict, &blueprint.environment, Creation::IfMissing)
            .await?;
        let mut secrets = self.secrets_of_others().await?;
        drop(step);
        let mount_ids = self.code().await?;
        let (image_id, images) = self.images().await?;
        let step = self.progress.step("deploying functions");
        // As late as can be: containers of the deployment before read them too.
        secrets.extend(self.own_secrets().await?);
        let parts = Parts {
            image_id,
            images,
            mount_ids,
            secrets,
            volume_id: volume.volume_id,
        };
        let mut functions = BTreeMap::new();
        let mut urls = BTreeMap::new();
        for function in &blueprint.functions {
            let definition = define(function, &blueprint.app, &parts);
            let made = self
                .define(&definition, known.get(&function.name))
                .await
                .map_err(Error::at(format!("deploy function {}", function.name)))?;
            urls.insert(function.entry, made.web_url.clone());
            functions.insert(
                function.name.clone(),
                (made.function_id, made.definition_id),
            );
        }
        self.client
            .app_publish(Publication {
                app_id: self.app_id,
                name: &blueprint.app,
                deployment_tag: tag,
                functions,
                classes: BTreeMap::new(),
                tags: BTreeMap::from([("made-by".to_owned(), "modalflow".to_owned())]),
            })
            .await
            .map_err(Error::at(format!("publish app {}", blueprint.app)))?;
        drop(step);
        let mut address = |function: &'static str| {
            urls.remove(function)
                .filter(|url| !url.is_empty())
                .ok_or(Error::NoAddress { function })
        };
        Ok(Deployed {
            app_id: self.app_id.to_owned(),
            execution_api_url: address(EXECUTION_API)?,
            ui_url: address(AIRFLOW_UI)?,
        })
    }

    async fn define(
        &self,
        definition: &Definition,
        known: Option<&FunctionHandle>,
    ) -> Result<FunctionHandle, modal_api::Error> {
        let known = known.map(|handle| handle.function_id.as_str());
        let early = self
            .client
            .function_precreate(self.app_id, definition, known)
            .await?;
        self.client
            .function_create(self.app_id, definition, Some(&early.function_id))
            .await
    }

    /// The user's, by name; they must be there.
    async fn secrets_of_others(&self) -> Result<BTreeMap<String, String>, Error> {
        let environment = &self.blueprint.environment;
        let functions = &self.blueprint.functions;
        let mut ids = BTreeMap::new();
        for name in functions.iter().flat_map(|function| &function.secrets) {
            if self.blueprint.own_secret(name).is_none() && !ids.contains_key(name) {
                let id = self.client.secret_find(name, environment, &[]).await?;
                ids.insert(name.clone(), id);
            }
        }
        Ok(ids)
    }

    /// Ours, written; ids by name.
    async fn own_secrets(&self) -> Result<BTreeMap<String, String>, Error> {
        let environment = &self.blueprint.environment;
        let mut ids = BTreeMap::new();
        for secret in &self.blueprint.secrets {
            let values = secret.values.clone();
            let id = self
                .client
                .secret_put(&secret.name, environment, values)
                .await?;
            ids.insert(secret.name.clone(), id);
        }
        Ok(ids)
    }

    /// Modal's runtime, and the file with our functions.
    async fn code(&self) -> Result<Vec<String>, Error> {
        let file = Upload::bytes(format!("{CODE_FOLDER}/{MODULE}.py"), FUNCTIONS);
        let ours = self
            .client
            .mount_create(vec![file], MountOwner::App(self.app_id))
            .await?;
        Ok(vec![self.client.mount_of_client().await?, ours])
    }

    /// The image of all functions, and those of single tasks on top of it, by name.
    async fn images(&self) -> Result<(String, BTreeMap<String, String>), Error> {
        let step = self.progress.step("building the image");
        let image = &self.blueprint.image;
        let mut image_id = self
            .layer(
                ImageLayer {
                    commands: vec![format!("FROM {}", image.base)],
                    ..ImageLayer::default()
                },
                &step,
            )
            .await?;
        for layer in &image.layers {
            image_id = self.on_top(&image_id, layer, &step).await?;
        }
        let mut images = BTreeMap::new();
        for (name, layer) in &self.blueprint.images {
            images.insert(name.clone(), self.on_top(&image_id, layer, &step).await?);
        }
        Ok((image_id, images))
    }

    async fn on_top(
        &self,
        base: &str,
        layer: &Layer,
        step: &environment::progress::Step,
    ) -> Result<String, Error> {
        let mut commands = vec!["FROM base".to_owned()];
        let mut context = None;
        match layer {
            Layer::NoEntrypoint => commands.push("ENTRYPOINT []".to_owned()),
            Layer::Run(lines) => commands.extend(lines.iter().map(|line| format!("RUN {line}"))),
            Layer::Copy { file, to } => {
                let upload = upload(file, to)?;
                context = Some(
                    self.client
                        .mount_create(vec![upload], MountOwner::App(self.app_id))
                        .await?,
                );
                commands.push("COPY . /".to_owned());
            }
        }
        let layer = ImageLayer {
            base: Some(base),
            commands,
            context_mount_id: context.as_deref(),
            ..ImageLayer::default()
        };
        self.layer(layer, step).await
    }

    async fn layer(
        &self,
        layer: ImageLayer<'_>,
        step: &environment::progress::Step,
    ) -> Result<String, Error> {
        let what = layer.commands.last().cloned().unwrap_or_default();
        let build = ImageBuild {
            app_id: self.app_id,
            builder_version: self.builder_version,
            force_build: false,
            ignore_cache: false,
        };
        let mut log = |text: &str| {
            if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
                step.detail(line.trim());
            }
        };
        self.client
            .image_build(layer, build, &mut log)
            .await
            .map(|image| image.image_id)
            .map_err(Error::at(format!("build the image: {what}")))
    }
}

fn upload(file: &File, to: &str) -> Result<Upload, Error> {
    Ok(match &file.content {
        Content::Text(text) => Upload::bytes(to, text.clone()),
        Content::At(path) => Upload::file(to, path)?,
    }
    .with_mode(file.mode))
}

/// What all functions have in common, by ids.
struct Parts {
    image_id: String,
    /// By name.
    images: BTreeMap<String, String>,
    mount_ids: Vec<String>,
    /// By name.
    secrets: BTreeMap<String, String>,
    volume_id: String,
}

fn define(function: &Function, app: &str, parts: &Parts) -> Definition {
    let python = Code::Python {
        module: MODULE.to_owned(),
        name: function.entry.to_owned(),
    };
    let code = match &function.kind {
        Kind::Scheduled { .. } | Kind::Called { .. } => python,
        Kind::Server {
            port,
            startup,
            routing_region,
        } => Code::Server(HttpServer {
            class: Some(PythonClass {
                module: MODULE.to_owned(),
                name: function.entry.to_owned(),
            }),
            port: *port,
            proxy_regions: vec![routing_region.clone()],
            startup_timeout: *startup,
            exit_grace_period: None,
            unauthenticated: true,
        }),
    };
    let image_id = function
        .image
        .as_ref()
        .and_then(|name| parts.images.get(name))
        .unwrap_or(&parts.image_id);
    let mut definition = Definition::new(app, &function.name, code, image_id);
    definition.mount_ids.clone_from(&parts.mount_ids);
    definition.secret_ids = function
        .secrets
        .iter()
        .filter_map(|name| parts.secrets.get(name).cloned())
        .collect();
    definition.volumes = vec![VolumeMount {
        volume_id: parts.volume_id.clone(),
        path: VOLUME.to_owned(),
        read_only: false,
    }];
    definition.resources = Resources {
        cpu: Some(function.cpu),
        memory_mib: Some(function.memory),
        ..Resources::default()
    };
    definition.scaling = Scaling {
        max_containers: Some(function.max_containers),
        scaledown_window: Some(function.idle),
        ..Scaling::default()
    };
    definition.regions = function.region.iter().cloned().collect();
    match &function.kind {
        Kind::Scheduled { timeout, every } => {
            definition.timeout = *timeout;
            definition.schedule = Some(match every {
                Schedule::Cron(line) => modal_api::Schedule::Cron {
                    expression: line.clone(),
                    timezone: "UTC".to_owned(),
                },
                Schedule::Seconds(seconds) => {
                    modal_api::Schedule::Every(std::time::Duration::from_secs(*seconds))
                }
            });
        }
        Kind::Called { timeout, snapshot } => {
            definition.timeout = *timeout;
            definition.retries = Some(Retries::default());
            definition.memory_snapshot = *snapshot;
        }
        Kind::Server { .. } => {}
    }
    definition
}
