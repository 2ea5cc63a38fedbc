//! Functions as a task's `executor_config` wants them: variants of the deployed one, bound once and then called by
//! their own ids.

use std::collections::{BTreeMap, HashMap};

use modal_api::{
    Client, Creation, FunctionHandle, Resources, Retries, SecretOwner, Variant, VolumeMount,
};
use model::ExecutorConfig;
use tokio::sync::Mutex;

use super::{Error, RUN_TASK};

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

/// The ids found so far, by what was asked for. A new deployment makes all of them useless.
#[derive(Debug, Default)]
pub(super) struct Functions {
    found: Mutex<HashMap<String, String>>,
}

impl Functions {
    /// The id of the function that runs a task with this `executor_config`.
    pub(super) async fn id(
        &self,
        client: &Client,
        deployed: &Deployed,
        config: &ExecutorConfig,
    ) -> Result<String, Error> {
        let key = if config.is_empty() {
            String::new()
        } else {
            format!("{config:?}")
        };
        // Held on purpose: a hundred tasks that want the same variant bind it once.
        let mut found = self.found.lock().await;
        if let Some(id) = found.get(&key) {
            return Ok(id.clone());
        }
        let id = find(client, deployed, config).await?;
        found.insert(key, id.clone());
        Ok(id)
    }

    pub(super) async fn forget(&self) {
        self.found.lock().await.clear();
    }
}

/// The function that runs tasks on an image of their own, beside the one that runs all others.
#[must_use]
pub fn function_name(others: &str, image: Option<&str>) -> String {
    image.map_or_else(|| others.to_owned(), |image| format!("{others}_{image}"))
}

async fn find(
    client: &Client,
    deployed: &Deployed,
    config: &ExecutorConfig,
) -> Result<String, Error> {
    let image = config.image.as_deref().filter(|_| deployed.has_images);
    let function = function(client, deployed, image).await?;
    let config = &ExecutorConfig {
        image: None,
        ..config.clone()
    };
    if config.is_empty() {
        return Ok(function.function_id);
    }
    let variant = variant(client, deployed, config)
        .await
        .map_err(Error::Variant)?;
    let bound = client
        .function_bind(&function.function_id, &variant, &deployed.environment)
        .await
        .map_err(Error::Variant)?;
    Ok(bound.function_id)
}

async fn function(
    client: &Client,
    deployed: &Deployed,
    image: Option<&str>,
) -> Result<FunctionHandle, Error> {
    let name = function_name(RUN_TASK, image);
    client
        .function_get(&deployed.app, &name, &deployed.environment)
        .await
        .map_err(|source| Error::Function {
            app: deployed.app.clone(),
            name,
            source,
        })
}

/// What a task's wishes make of the function. Modal replaces whole lists, so what was deployed is named again.
pub(crate) async fn variant(
    client: &Client,
    deployed: &Deployed,
    config: &ExecutorConfig,
) -> Result<Variant, modal_api::Error> {
    let has_resources = config.cpu.is_some() || config.memory.is_some() || config.gpu.is_some();
    let alone = deployed.containers_with_resources.filter(|_| has_resources);
    Ok(Variant {
        resources: has_resources.then(|| resources(&deployed.resources, config)),
        secret_ids: secrets(client, deployed, config).await?,
        volumes: volumes(client, deployed, config).await?,
        timeout: config.timeout,
        retries: config.retries.map(|retries| Retries {
            most: retries.max_retries,
            backoff: retries.backoff_coefficient,
            first_delay: retries.initial_delay,
            max_delay: retries.max_delay,
        }),
        max_containers: config.max_containers.or(alone),
        buffer_containers: config.buffer_containers,
        scaledown_window: config.scaledown_window,
        max_concurrent_inputs: alone.map(|_| 1),
        regions: config.region.clone(),
        cloud: config.cloud.clone(),
        ..Variant::default()
    })
}

/// A deployment's resources with a task's own in their place.
pub(crate) fn resources(base: &Resources, config: &ExecutorConfig) -> Resources {
    let mut resources = base.clone();
    if let Some(cpu) = config.cpu {
        (resources.cpu, resources.cpu_limit) = (Some(cpu.request), cpu.limit);
    }
    if let Some(memory) = config.memory {
        (resources.memory_mib, resources.memory_limit_mib) = (Some(memory.request), memory.limit);
    }
    if let Some(gpu) = &config.gpu {
        resources.gpu = Some(format!("{}:{}", gpu.gpu_type, gpu.count));
    }
    resources
}

/// Those of the function, then those of the task: of two with the same key the later counts.
async fn secrets(
    client: &Client,
    deployed: &Deployed,
    config: &ExecutorConfig,
) -> Result<Option<Vec<String>>, modal_api::Error> {
    if config.secrets.is_empty() && config.env.is_empty() {
        return Ok(None);
    }
    let mut ids = Vec::new();
    for name in deployed.secrets.iter().chain(&config.secrets) {
        ids.push(client.secret_find(name, &deployed.environment, &[]).await?);
    }
    if !config.env.is_empty() {
        let owner = SecretOwner::Environment(&deployed.environment);
        ids.push(client.secret_unnamed(owner, config.env.clone()).await?);
    }
    Ok(Some(ids))
}

async fn volumes(
    client: &Client,
    deployed: &Deployed,
    config: &ExecutorConfig,
) -> Result<Option<Vec<VolumeMount>>, modal_api::Error> {
    if config.volumes.is_empty() {
        return Ok(None);
    }
    let mut mounts = Vec::new();
    for (path, name) in deployed.volumes.iter().chain(&config.volumes) {
        let volume = client
            .volume_get_or_create(name, &deployed.environment, Creation::Never, None)
            .await?;
        mounts.push(VolumeMount {
            volume_id: volume.volume_id,
            path: path.clone(),
            read_only: false,
        });
    }
    Ok(Some(mounts))
}
