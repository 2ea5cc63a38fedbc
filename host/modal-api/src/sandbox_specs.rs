//! What a sandbox is asked to be, and the message that says so.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Error, Resources, VolumeMount, message,
    wire::{self, sandbox::OpenPortsOneof},
};

/// As on Modal.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// What a sandbox runs.
#[derive(Debug, Clone, Default)]
pub struct SandboxSpec {
    /// Unique among the app's living sandboxes; may be none.
    pub name: Option<String>,
    pub command: Vec<String>,
    pub image_id: String,
    pub mount_ids: Vec<String>,
    pub secret_ids: Vec<String>,
    pub environment_variables: BTreeMap<String, String>,
    pub volumes: Vec<VolumeMount>,
    pub resources: Resources,
    /// 1 s to 24 h; none is Modal's five minutes.
    pub timeout: Option<Duration>,
    /// Ends a sandbox that nobody talks to.
    pub idle_timeout: Option<Duration>,
    pub workdir: Option<String>,
    /// Reached over TLS under an address of [`crate::Client::sandbox_tunnels`].
    pub encrypted_ports: Vec<u16>,
    pub unencrypted_ports: Vec<u16>,
    /// Ready once something listens there.
    pub ready_port: Option<u16>,
    pub regions: Vec<String>,
    pub tags: BTreeMap<String, String>,
}

pub(crate) fn definition(spec: &SandboxSpec) -> Result<wire::Sandbox, Error> {
    if spec.idle_timeout.is_some_and(|idle| idle.as_secs() == 0) {
        return Err(Error::Invalid("an idle timeout below a second".to_owned()));
    }
    let port = |port: &u16, unencrypted| wire::PortSpec {
        port: u32::from(*port),
        unencrypted,
        tunnel_type: None,
    };
    let encrypted = spec.encrypted_ports.iter().map(|one| port(one, false));
    let plain = spec.unencrypted_ports.iter().map(|one| port(one, true));
    Ok(wire::Sandbox {
        entrypoint_args: spec.command.clone(),
        mount_ids: spec.mount_ids.clone(),
        image_id: spec.image_id.clone(),
        secret_ids: spec.secret_ids.clone(),
        resources: Some(message::resources(&spec.resources)?),
        timeout_secs: message::timeout("timeout", spec.timeout.unwrap_or(DEFAULT_TIMEOUT))?,
        idle_timeout_secs: spec
            .idle_timeout
            .map(|idle| u32::try_from(idle.as_secs()).unwrap_or(u32::MAX)),
        workdir: spec.workdir.clone(),
        volume_mounts: message::mounts(&spec.volumes)?,
        scheduler_placement: message::placement(&spec.regions, false),
        open_ports_oneof: Some(OpenPortsOneof::OpenPorts(wire::PortSpecs {
            ports: encrypted.chain(plain).collect(),
        })),
        network_access: Some(wire::NetworkAccess {
            network_access_type: wire::network_access::NetworkAccessType::Open.into(),
            ..Default::default()
        }),
        name: spec.name.clone(),
        readiness_probe: spec.ready_port.map(|port| wire::Probe {
            probe_oneof: Some(wire::probe::ProbeOneof::TcpPort(u32::from(port))),
            interval_ms: None,
        }),
        environment_variables: (!spec.environment_variables.is_empty()).then(|| wire::StringMap {
            contents: spec.environment_variables.clone().into_iter().collect(),
        }),
        ..Default::default()
    })
}
