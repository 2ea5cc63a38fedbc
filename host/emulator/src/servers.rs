//! Servers: functions that answer HTTP themselves. One has an address on the loopback interface for as long as it is known, and
//! a container while it is asked, at the port that its definition names; a second one would want the same port.

use std::net::{Ipv4Addr, TcpListener};

use modal_api::wire;
use tonic::Status;

use crate::{
    core::{Core, Inner, Order},
    definitions::FunctionRow,
    rows::{Change, Row, Rows, Table},
};

/// A request brings up a container for so long; who still wants one asks again.
const WANTED: f64 = 10.0;

/// Where callers find a server: the same after a restart, if the port is still free.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ServerRow {
    #[prost(uint32, tag = "1")]
    port: u32,
}

impl Row for ServerRow {
    const TABLE: Table = Table::Servers;
}

/// A server in this life of the emulator.
#[derive(Debug)]
pub(crate) struct Server {
    /// Until somebody serves it.
    pub(crate) listener: Option<TcpListener>,
    /// Requests that are answered just now.
    pub(crate) active: usize,
    pub(crate) last_request: f64,
}

/// What to do with a request.
pub(crate) enum Answer {
    /// There is no such server any more.
    Gone,
    /// It demands Modal-Key and Modal-Secret.
    Closed,
    Starting,
    /// A container listens there.
    At(u16),
}

/// Whether it gets an address. A server that its image's own command starts does not: no image is built here.
pub(crate) fn is_served(definition: &wire::Function) -> bool {
    definition
        .http_config
        .as_ref()
        .is_some_and(|config| config.lift_and_shift_config.is_none())
}

/// Refuses what this emulator can't run.
pub(crate) fn check(definition: &wire::Function) -> Result<(), Status> {
    match &definition.http_config {
        Some(config) if config.port == 0 || config.port > u32::from(u16::MAX) => {
            Err(Status::invalid_argument(format!(
                "a server's port is 1 to 65535, not {}",
                config.port
            )))
        }
        _ => Ok(()),
    }
}

/// The addresses that a function's handle tells.
pub(crate) fn urls(rows: &Rows, function_id: &str) -> Vec<String> {
    let row = rows.get::<ServerRow>(function_id);
    row.map(|row| format!("http://127.0.0.1:{}", row.port))
        .into_iter()
        .collect()
}

impl Core {
    /// Gives a function that is a server its address.
    pub(crate) fn open_server(&self, inner: &mut Inner, function_id: &str) -> Result<(), Status> {
        if inner.servers.contains_key(function_id) {
            return Ok(());
        }
        let known = inner.state.rows.get::<ServerRow>(function_id);
        let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = known
            .as_ref()
            .and_then(|row| bind(u16::try_from(row.port).ok()?).ok())
            .map_or_else(|| bind(0), Ok);
        let failed = |error: std::io::Error| Status::internal(format!("no port is free: {error}"));
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = u32::from(listener.local_addr().map_err(failed)?.port());
        if known.is_none_or(|row| row.port != port) {
            let mut change = Change::default();
            change.put(function_id, &ServerRow { port });
            inner
                .commit(change.into_event())
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        let server = Server {
            listener: Some(listener),
            active: 0,
            last_request: 0.0,
        };
        inner.servers.insert(function_id.to_owned(), server);
        self.servers_bell.notify_one();
        Ok(())
    }

    /// Those of earlier lives.
    pub(crate) fn open_servers(&self) {
        let mut inner = self.lock();
        let known: Vec<String> = inner
            .state
            .rows
            .scan::<ServerRow>(b"")
            .map(|(id, _)| String::from_utf8_lossy(id).into_owned())
            .collect();
        for function_id in known {
            if !inner.state.rows.has::<FunctionRow>(&function_id) {
                let mut change = Change::default();
                change.delete::<ServerRow>(&function_id);
                inner.note(change.into_event());
            } else if let Err(error) = self.open_server(&mut inner, &function_id) {
                tracing::error!(%error, function_id, "a server has no address");
            }
        }
    }

    /// A request has come; `key` is whether it showed this emulator's token.
    pub(crate) fn server_asked(&self, function_id: &str, has_key: bool) -> Answer {
        let now = self.clock.now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let config = inner
            .functions
            .get(function_id)
            .and_then(|function| function.deployed.as_ref())
            .and_then(|deployed| deployed.definition.http_config.clone());
        let (Some(config), Some(server)) = (config, inner.servers.get_mut(function_id)) else {
            return Answer::Gone;
        };
        if !config.unauthenticated && !has_key {
            return Answer::Closed;
        }
        server.last_request = now;
        let is_up = inner.state.containers.iter().any(|(task_id, container)| {
            container.function_id == function_id
                && inner
                    .live
                    .get(task_id)
                    .is_some_and(|live| live.has_asked && !live.is_leaving())
        });
        if is_up {
            server.active += 1;
            // Checked when it was defined.
            return Answer::At(u16::try_from(config.port).unwrap_or_default());
        }
        self.dispatch(inner, function_id);
        Answer::Starting
    }

    /// The answer to a request that was let through has gone out.
    pub(crate) fn server_answered(&self, function_id: &str) {
        let now = self.clock.now();
        if let Some(server) = self.lock().servers.get_mut(function_id) {
            server.active = server.active.saturating_sub(1);
            server.last_request = now;
        }
    }

    /// A container says that its server is started.
    pub(crate) fn server_is_ready(&self, task_id: &str) {
        let now = self.clock.now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(live) = inner.live.get_mut(task_id) else {
            return;
        };
        live.has_asked = true;
        live.idle_since = now;
        let function_id = inner
            .state
            .containers
            .get(task_id)
            .map(|container| container.function_id.clone());
        if let Some(function) = function_id.and_then(|id| inner.functions.get_mut(&id)) {
            function.crashes = 0;
            function.keeps_warm = true;
        }
    }

    /// Lets containers of servers go that nobody has asked for a while, or whose deployment is not the last.
    pub(crate) fn rest_servers(&self, inner: &mut Inner, now: f64) {
        let mut leaving = Vec::new();
        for (task_id, container) in &inner.state.containers {
            let (Some(function), Some(server), Some(live)) = (
                inner.functions.get(&container.function_id),
                inner.servers.get(&container.function_id),
                inner.live.get(task_id),
            ) else {
                continue;
            };
            let window = function.spec.scaledown_window.as_secs_f64();
            let is_idle = live.has_asked
                && server.active == 0
                && server.last_request.max(live.idle_since) + window <= now
                && function.spec.min_containers == 0;
            let is_outdated = function.spec_hash != container.spec_hash;
            if (is_idle || is_outdated || inner.stopping) && !live.is_leaving() {
                leaving.push(task_id.clone());
            }
        }
        for task_id in leaving {
            if let Some(live) = inner.live.get_mut(&task_id) {
                live.leaving_since = Some(now);
            }
            self.order(Order::Terminate(task_id));
        }
    }
}

/// Whether somebody waits for a container of this server.
pub(crate) fn is_wanted(server: &Server, now: f64) -> bool {
    server.last_request > 0.0 && server.last_request + WANTED > now
}
