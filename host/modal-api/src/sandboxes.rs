//! Sandboxes: single containers that run a command for a while, with addresses under which the outside reaches their ports.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use uuid::Uuid;

use crate::{
    Client, Error, LogPiece,
    logs::{Follow, pieces},
    outcome::GenericStatus,
    retry::Policy,
    sandbox_specs::definition,
    wire,
};

pub use crate::sandbox_specs::SandboxSpec;

const POLL: Duration = Duration::from_secs(10);
const TUNNEL_WAIT: Duration = Duration::from_secs(50);

/// Where a port of a sandbox is reached. Whoever knows the address gets in: the server behind it has to ask who comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub container_port: u32,
    /// `https://host` or `https://host:port`.
    pub url: String,
    /// Plain TCP, if it was asked for.
    pub unencrypted: Option<(String, u32)>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxResult {
    pub status: GenericStatus,
    pub exit_code: i32,
    pub exception: String,
}

impl Client {
    /// Starts a sandbox and answers its id. It is being made then: see [`Client::sandbox_container`].
    pub async fn sandbox_create(
        &self,
        app_id: &str,
        environment: &str,
        spec: &SandboxSpec,
    ) -> Result<String, Error> {
        let request = wire::SandboxCreateRequest {
            app_id: app_id.to_owned(),
            definition: Some(definition(spec)?),
            environment_name: environment.to_owned(),
            tags: spec
                .tags
                .iter()
                .map(|(name, value)| wire::SandboxTag {
                    tag_name: name.clone(),
                    tag_value: value.clone(),
                })
                .collect(),
        };
        let answer = self
            .caller
            .long(request, async |mut stub, request| {
                stub.sandbox_create(request).await
            })
            .await?;
        Ok(answer.sandbox_id)
    }

    /// Waits until a sandbox has its container, or with `ready` until its probe succeeds; answers the container's id.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it ended before.
    pub async fn sandbox_container(
        &self,
        sandbox_id: &str,
        ready: Readiness,
        wait: Duration,
    ) -> Result<String, Error> {
        let started = Instant::now();
        loop {
            let left = wait.saturating_sub(started.elapsed()).min(POLL);
            let request = wire::SandboxGetTaskIdRequest {
                sandbox_id: sandbox_id.to_owned(),
                timeout: Some(left.as_secs_f32()),
                wait_until_ready: ready == Readiness::Probed,
            };
            let answer = self
                .caller
                .call(
                    Policy::long_poll(left),
                    Uuid::new_v4(),
                    request,
                    async |mut stub, request| stub.sandbox_get_task_id(request).await,
                )
                .await?;
            if let Some(result) = answer.task_result.filter(|result| result.status != 0) {
                let result = read(result);
                return Err(Error::Conflict(format!(
                    "sandbox {sandbox_id} ended before it was up: {:?} {}",
                    result.status, result.exception
                )));
            }
            match answer.task_id.filter(|id| !id.is_empty()) {
                Some(container_id) => return Ok(container_id),
                None if started.elapsed() >= wait => {
                    return Err(Error::Conflict(format!(
                        "sandbox {sandbox_id} is not up after {wait:?}"
                    )));
                }
                None => {}
            }
        }
    }

    /// Waits for the end of a sandbox; none if it still runs after `wait`.
    pub async fn sandbox_wait(
        &self,
        sandbox_id: &str,
        wait: Duration,
    ) -> Result<Option<SandboxResult>, Error> {
        let started = Instant::now();
        loop {
            let left = wait.saturating_sub(started.elapsed()).min(POLL);
            let request = wire::SandboxWaitRequest {
                sandbox_id: sandbox_id.to_owned(),
                timeout: left.as_secs_f32(),
            };
            let answer = self
                .caller
                .call(
                    Policy::long_poll(left),
                    Uuid::new_v4(),
                    request,
                    async |mut stub, request| stub.sandbox_wait(request).await,
                )
                .await?;
            if let Some(result) = answer.result.filter(|result| result.status != 0) {
                return Ok(Some(read(result)));
            }
            if started.elapsed() >= wait {
                return Ok(None);
            }
        }
    }

    /// Ends a sandbox. One that is over stays as it was.
    pub async fn sandbox_terminate(&self, sandbox_id: &str) -> Result<(), Error> {
        let request = wire::SandboxTerminateRequest {
            sandbox_id: sandbox_id.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.sandbox_terminate(request).await
            })
            .await
            .map(|_| ())
    }

    /// The addresses of a sandbox's ports; waits until they are there.
    pub async fn sandbox_tunnels(&self, sandbox_id: &str) -> Result<Vec<Tunnel>, Error> {
        let request = wire::SandboxGetTunnelsRequest {
            sandbox_id: sandbox_id.to_owned(),
            timeout: TUNNEL_WAIT.as_secs_f32(),
        };
        let answer = self
            .caller
            .call(
                Policy::long_poll(TUNNEL_WAIT),
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.sandbox_get_tunnels(request).await,
            )
            .await?;
        let late = answer
            .result
            .is_some_and(|result| result.status() == GenericStatus::Timeout);
        if late {
            return Err(Error::Conflict(format!(
                "sandbox {sandbox_id} has no addresses after {TUNNEL_WAIT:?}"
            )));
        }
        Ok(answer.tunnels.into_iter().map(tunnel).collect())
    }

    /// The living sandbox of a name, if there is one.
    pub async fn sandbox_find(
        &self,
        app: &str,
        name: &str,
        environment: &str,
    ) -> Result<Option<String>, Error> {
        let request = wire::SandboxGetFromNameRequest {
            sandbox_name: name.to_owned(),
            environment_name: environment.to_owned(),
            app_name: app.to_owned(),
            include_terminated: false,
        };
        let found = self
            .caller
            .short(request, async |mut stub, request| {
                stub.sandbox_get_from_name(request).await
            })
            .await;
        match found {
            Ok(answer) => Ok(Some(answer.sandbox_id)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ids of an app's living sandboxes.
    pub async fn sandbox_list(&self, app_id: &str) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        let mut before_timestamp = 0.0;
        loop {
            let request = wire::SandboxListRequest {
                app_id: app_id.to_owned(),
                before_timestamp,
                ..Default::default()
            };
            let page = self
                .caller
                .short(request, async |mut stub, request| {
                    stub.sandbox_list(request).await
                })
                .await?
                .sandboxes;
            let Some(last) = page.last() else {
                return Ok(all);
            };
            // A server that takes no notice of the moment sends the same page for ever.
            let known = all.len();
            before_timestamp = last.created_at;
            for sandbox in page {
                if !all.contains(&sandbox.id) {
                    all.push(sandbox.id);
                }
            }
            if all.len() == known {
                return Ok(all);
            }
        }
    }

    /// Authenticated access to a port without a public address: a URL and the token to show there.
    pub async fn sandbox_connect_token(
        &self,
        sandbox_id: &str,
        port: Option<u16>,
    ) -> Result<(String, String), Error> {
        let request = wire::SandboxCreateConnectTokenRequest {
            sandbox_id: sandbox_id.to_owned(),
            user_metadata: String::new(),
            port: port.map(u32::from),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.sandbox_create_connect_token(request).await
            })
            .await?;
        Ok((answer.url, answer.token))
    }

    /// Hands out what a sandbox prints on one of its two outputs, until its end or until `each` says stop.
    pub async fn sandbox_logs(
        &self,
        sandbox_id: &str,
        source: wire::FileDescriptor,
        each: &mut (dyn FnMut(LogPiece) -> Follow + Send),
    ) -> Result<(), Error> {
        let mut last_entry_id = String::new();
        loop {
            let request = wire::SandboxGetLogsRequest {
                sandbox_id: sandbox_id.to_owned(),
                file_descriptor: source.into(),
                timeout: TUNNEL_WAIT.as_secs_f32(),
                last_entry_id: last_entry_id.clone(),
            };
            let mut stream = self
                .caller
                .stream(request, async |mut stub, request| {
                    stub.sandbox_get_logs(request).await
                })
                .await?;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|status| self.caller.failure(status))?;
                if !batch.entry_id.is_empty() {
                    last_entry_id.clone_from(&batch.entry_id);
                }
                let done = batch.eof;
                for piece in pieces(batch) {
                    if each(piece) == Follow::Stop {
                        return Ok(());
                    }
                }
                if done {
                    return Ok(());
                }
            }
        }
    }
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    Started,
    /// [`SandboxSpec::ready_port`] answers.
    Probed,
}

fn tunnel(data: wire::TunnelData) -> Tunnel {
    Tunnel {
        container_port: data.container_port,
        url: if data.port == 443 {
            format!("https://{}", data.host)
        } else {
            format!("https://{}:{}", data.host, data.port)
        },
        unencrypted: data
            .unencrypted_host
            .filter(|host| !host.is_empty())
            .zip(data.unencrypted_port),
    }
}

fn read(result: wire::GenericResult) -> SandboxResult {
    SandboxResult {
        status: match result.status() {
            GenericStatus::Unspecified => GenericStatus::Failure,
            known => known,
        },
        exit_code: result.exitcode,
        exception: result.exception,
    }
}
