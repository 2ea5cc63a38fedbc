//! What a task's `executor_config` makes of a deployed function.

use modal_api::{Client, Creation, Resources, Retries, SecretOwner, Variant, VolumeMount};
use model::ExecutorConfig;

use super::functions::Deployed;

/// What a task's wishes make of the function. Modal replaces whole lists, so what was deployed is named again.
pub(super) async fn variant(
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
