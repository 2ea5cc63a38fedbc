//! Definitions as the server reads them: the same fields that the official client sets, old ones beside the new.

use std::time::Duration;

use crate::{
    Code, Definition, Error, HttpServer, Resources, Retries, Schedule, Variant, VolumeMount,
    verbatim::Opaque,
    wire::{self, DataFormat},
};

/// As on Modal.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn function(definition: &Definition) -> Result<wire::Function, Error> {
    let scaling = definition.scaling;
    if let (Some(least), Some(most)) = (scaling.min_containers, scaling.max_containers)
        && least > most
    {
        return Err(Error::Invalid(format!(
            "function {}: {least} containers at least and {most} at most",
            definition.tag
        )));
    }
    let startup = match &definition.code {
        Code::Server(server) => Some(server.startup_timeout),
        Code::Python { .. } | Code::WebServer { .. } => definition.startup_timeout,
    };
    let timeout_secs = timeout("timeout", definition.timeout)?;
    let startup_timeout_secs = match startup {
        Some(startup) => timeout("startup timeout", startup)?,
        None => timeout_secs,
    };
    let window = scaling.scaledown_window.map(window).transpose()?;
    let (module_name, implementation_name) = place(&definition.code);
    let (supported_input_formats, supported_output_formats) = formats(&definition.code);
    let is_server = matches!(definition.code, Code::Server(_));
    Ok(wire::Function {
        module_name,
        function_name: definition.tag.clone(),
        implementation_name,
        mount_ids: definition.mount_ids.clone(),
        image_id: definition.image_id.clone(),
        definition_type: wire::function::DefinitionType::File.into(),
        function_type: wire::function::FunctionType::Function.into(),
        resources: Some(resources(&definition.resources)?),
        secret_ids: definition.secret_ids.clone(),
        webhook_config: webhook(&definition.code),
        retry_policy: definition.retries.map(retries),
        timeout_secs,
        startup_timeout_secs,
        app_name: definition.app_name.clone(),
        volume_mounts: mounts(&definition.volumes)?,
        max_concurrent_inputs: definition.max_concurrent_inputs,
        target_concurrent_inputs: definition.target_concurrent_inputs,
        object_dependencies: dependencies(definition),
        max_inputs: u32::from(definition.single_use),
        single_use_containers: definition.single_use,
        scheduler_placement: placement(&definition.regions, definition.nonpreemptible),
        cloud_provider_str: definition.cloud.clone().unwrap_or_default(),
        block_network: definition.block_network,
        checkpointing_enabled: definition.memory_snapshot,
        schedule: definition.schedule.as_ref().map(schedule),
        is_class: is_server,
        is_server,
        http_config: http(&definition.code),
        class_parameter_info: Some(if is_server {
            // `format`: pickle, which for a class without parameters is nothing.
            Opaque::number(1, 1)
        } else {
            Opaque::default()
        }),
        method_definitions_set: true,
        mount_client_dependencies: true,
        experimental_concurrent_cancellations: true,
        autoscaler_settings: Some(wire::AutoscalerSettings {
            min_containers: scaling.min_containers,
            max_containers: scaling.max_containers,
            buffer_containers: scaling.buffer_containers,
            scaledown_window: window,
        }),
        // The same for servers that know no settings.
        warm_pool_size: scaling.min_containers.unwrap_or_default(),
        concurrency_limit: scaling.max_containers.unwrap_or_default(),
        experimental_buffer_containers: scaling.buffer_containers.unwrap_or_default(),
        task_idle_timeout_secs: window.unwrap_or_default(),
        supported_input_formats,
        supported_output_formats,
        ..Default::default()
    })
}

pub(crate) fn options(variant: &Variant) -> Result<wire::FunctionOptions, Error> {
    let secret_ids = variant.secret_ids.clone();
    let volumes = variant.volumes.as_deref();
    Ok(wire::FunctionOptions {
        replace_secret_ids: secret_ids.is_some(),
        secret_ids: secret_ids.unwrap_or_default(),
        replace_volume_mounts: volumes.is_some(),
        volume_mounts: mounts(volumes.unwrap_or_default())?,
        resources: variant.resources.as_ref().map(resources).transpose()?,
        retry_policy: variant.retries.map(retries),
        concurrency_limit: variant.max_containers,
        buffer_containers: variant.buffer_containers,
        task_idle_timeout_secs: variant.scaledown_window.map(window).transpose()?,
        timeout_secs: variant
            .timeout
            .map(|one| timeout("timeout", one))
            .transpose()?,
        max_concurrent_inputs: variant.max_concurrent_inputs,
        target_concurrent_inputs: variant.target_concurrent_inputs,
        scheduler_placement: placement(&variant.regions, variant.nonpreemptible),
        cloud_provider_str: variant.cloud.clone(),
        ..Default::default()
    })
}

/// What callers send, and what they get.
pub(crate) fn formats(code: &Code) -> (Vec<i32>, Vec<i32>) {
    match code {
        // CBOR alone: pickles of a stranger are never read here.
        Code::Python { .. } => (vec![DataFormat::Cbor.into()], vec![DataFormat::Cbor.into()]),
        Code::WebServer { .. } => (
            vec![DataFormat::Asgi.into()],
            vec![DataFormat::Asgi.into(), DataFormat::GeneratorDone.into()],
        ),
        Code::Server(_) => (Vec::new(), Vec::new()),
    }
}

pub(crate) fn webhook(code: &Code) -> Option<wire::WebhookConfig> {
    let Code::WebServer {
        port,
        startup_timeout,
        label,
        requires_proxy_auth,
        ..
    } = code
    else {
        return None;
    };
    Some(wire::WebhookConfig {
        r#type: wire::WebhookType::WebServer.into(),
        requested_suffix: label.clone(),
        async_mode: wire::WebhookAsyncMode::Auto.into(),
        web_server_port: u32::from(*port),
        web_server_startup_timeout: startup_timeout.as_secs_f32(),
        requires_proxy_auth: *requires_proxy_auth,
        ..Default::default()
    })
}

pub(crate) fn resources(resources: &Resources) -> Result<wire::Resources, Error> {
    let milli_cpu = resources.cpu.map(milli).transpose()?.unwrap_or_default();
    let milli_cpu_max = resources
        .cpu_limit
        .map(milli)
        .transpose()?
        .unwrap_or_default();
    let memory_mb = resources.memory_mib.unwrap_or_default();
    let memory_mb_max = resources.memory_limit_mib.unwrap_or_default();
    for (what, least, most) in [
        ("cores", milli_cpu, milli_cpu_max),
        ("memory", memory_mb, memory_mb_max),
    ] {
        if most != 0 && most < least {
            return Err(Error::Invalid(format!(
                "the limit of {what} is below what is asked for"
            )));
        }
    }
    Ok(wire::Resources {
        memory_mb,
        memory_mb_max,
        milli_cpu,
        milli_cpu_max,
        gpu_config: Some(gpu(resources.gpu.as_deref())?),
        ephemeral_disk_mb: resources.ephemeral_disk_mib.unwrap_or_default(),
        ..Default::default()
    })
}

// modal: parse_gpu_config
fn gpu(text: Option<&str>) -> Result<wire::GpuConfig, Error> {
    let Some(text) = text else {
        return Ok(wire::GpuConfig::default());
    };
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let count = count
        .parse()
        .ok()
        .filter(|count| *count > 0 && !name.is_empty())
        .ok_or_else(|| {
            Error::Invalid(format!(
                "gpu '{text}'\nhint: write T4, or A100-80GB:2 for two"
            ))
        })?;
    Ok(wire::GpuConfig {
        count,
        gpu_type: name.to_uppercase(),
    })
}

fn milli(cores: f64) -> Result<u32, Error> {
    if !(0.001..=1024.0).contains(&cores) {
        return Err(Error::Invalid(format!("{cores} cores")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked"
    )]
    Ok((cores * 1000.0) as u32)
}

pub(crate) fn mounts(volumes: &[VolumeMount]) -> Result<Vec<wire::VolumeMount>, Error> {
    let mount = |volume: &VolumeMount| {
        if !volume.path.starts_with('/') || volume.path == "/" {
            return Err(Error::Invalid(format!(
                "mount path '{}'\nhint: an absolute path below / is expected",
                volume.path
            )));
        }
        Ok(wire::VolumeMount {
            volume_id: volume.volume_id.clone(),
            mount_path: volume.path.clone(),
            allow_background_commits: true,
            read_only: volume.read_only,
            sub_path: None,
        })
    };
    volumes.iter().map(mount).collect()
}

pub(crate) fn placement(
    regions: &[String],
    nonpreemptible: bool,
) -> Option<wire::SchedulerPlacement> {
    (nonpreemptible || !regions.is_empty()).then(|| wire::SchedulerPlacement {
        regions: regions.to_vec(),
        nonpreemptible,
    })
}

/// Whole seconds within Modal's range.
pub(crate) fn timeout(what: &str, time: Duration) -> Result<u32, Error> {
    u32::try_from(time.as_secs())
        .ok()
        .filter(|seconds| *seconds > 0 && time <= MAX_TIMEOUT)
        .ok_or_else(|| Error::Invalid(format!("{what} of {time:?}\nhint: 1 second to 24 hours")))
}

fn window(time: Duration) -> Result<u32, Error> {
    u32::try_from(time.as_secs())
        .ok()
        .filter(|seconds| (2..=3600).contains(seconds))
        .ok_or_else(|| {
            Error::Invalid(format!(
                "scaledown window of {time:?}\nhint: 2 seconds to an hour"
            ))
        })
}

fn retries(retries: Retries) -> wire::FunctionRetryPolicy {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    wire::FunctionRetryPolicy {
        backoff_coefficient: retries.backoff,
        initial_delay_ms: millis(retries.first_delay),
        max_delay_ms: millis(retries.max_delay),
        retries: retries.most,
    }
}

fn schedule(schedule: &Schedule) -> wire::Schedule {
    use wire::schedule::{Cron, Period, ScheduleOneof};
    let kind = match schedule {
        Schedule::Cron {
            expression,
            timezone,
        } => ScheduleOneof::Cron(Cron {
            cron_string: expression.clone(),
            timezone: timezone.clone(),
        }),
        Schedule::Every(period) => ScheduleOneof::Period(Period {
            seconds: period.as_secs_f32(),
            ..Default::default()
        }),
    };
    wire::Schedule {
        schedule_oneof: Some(kind),
    }
}

/// The module to import and the name to take from it.
fn place(code: &Code) -> (String, String) {
    match code {
        Code::Python { module, name } | Code::WebServer { module, name, .. } => {
            (module.clone(), name.clone())
        }
        Code::Server(HttpServer {
            class: Some(class), ..
        }) => (class.module.clone(), format!("{}.*", class.name)),
        // Names that stand for "no Python" with the official client.
        Code::Server(_) => ("modal._server".to_owned(), "_DirectServerCls.*".to_owned()),
    }
}

fn http(code: &Code) -> Option<wire::HttpConfig> {
    let Code::Server(server) = code else {
        return None;
    };
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    Some(wire::HttpConfig {
        port: u32::from(server.port),
        proxy_regions: server.proxy_regions.clone(),
        startup_timeout: seconds(server.startup_timeout),
        exit_grace_period: server.exit_grace_period.map(seconds).unwrap_or_default(),
        h2_enabled: false,
        target_concurrency: 0,
        unauthenticated: server.unauthenticated,
        lift_and_shift_config: server
            .class
            .is_none()
            .then_some(wire::LiftAndShiftConfig {}),
    })
}

// modal: _deps(only_explicit_mounts=True)
fn dependencies(definition: &Definition) -> Vec<wire::ObjectDependency> {
    let volumes = definition.volumes.iter().map(|volume| &volume.volume_id);
    definition
        .secret_ids
        .iter()
        .chain([&definition.image_id])
        .chain(volumes)
        .filter(|id| !id.is_empty())
        .map(|id| wire::ObjectDependency {
            object_id: id.clone(),
        })
        .collect()
}
