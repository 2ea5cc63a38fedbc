//! Loading a plugin: from bytes to something that may be called.
//!
//! A plugin gets what its type imports, its manifest wishes for and the operator grants: all three. It is asked to describe
//! itself and to check its settings before anything else can happen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::bindings::guest;
use crate::call::{Call, CallState, Context, MOST_TEXT, cut};
use crate::directory::Directory;
use crate::engine::{EngineRoom, MOST_MEMORY};
use crate::plugin::{Loaded, Plugin};
use crate::{Error, Grants, HostConfig, Payload, Problem, Source, builtin, cache};

/// Larger files are not looked at.
const LARGEST_PLUGIN: u64 = 32 << 20;
/// The interfaces that a plugin may import, at any 0.1 version.
const INTERFACES: [&str; 9] = [
    "types",
    "bytes",
    "settings",
    "logging",
    "clock",
    "random",
    "object-store",
    "dags",
    "plugin",
];

/// What a plugin says of itself, and what the host saw in its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    /// SHA-256 of the component.
    pub sha256: String,
    /// Read off the interfaces it exports.
    pub kinds: Vec<Kind>,
    /// Read off the interfaces it imports.
    pub imports: Vec<String>,
    pub wishes: Vec<Wish>,
    /// JSON Schema of the settings.
    pub settings_schema: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    XcomBackend,
    LogHandler,
    DagValidator,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Kind::XcomBackend => "xcom-backend",
            Kind::LogHandler => "log-handler",
            Kind::DagValidator => "dag-validator",
        })
    }
}

/// A store that a plugin wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub store: String,
    pub write: bool,
    pub required: bool,
    pub why: String,
}

/// The one engine of a process. Cheap to hold, and to load several plugins with.
pub struct PluginHost {
    room: Arc<EngineRoom>,
    config: HostConfig,
    spool_dir: Arc<Path>,
}

impl PluginHost {
    pub fn new(config: HostConfig) -> Result<Self, Error> {
        std::fs::create_dir_all(&config.spool_dir).map_err(|source| Error::File {
            what: "cannot make the directory",
            path: config.spool_dir.clone(),
            source,
        })?;
        Ok(PluginHost {
            room: Arc::new(EngineRoom::new()?),
            spool_dir: config.spool_dir.as_path().into(),
            config,
        })
    }

    /// Takes a value from a stream without holding more than a piece of it in memory.
    pub async fn spool(
        &self,
        reader: impl tokio::io::AsyncRead + Unpin + Send,
        max: u64,
    ) -> Result<Payload, Error> {
        Payload::spool(&self.spool_dir, reader, max).await
    }

    pub async fn load(
        &self,
        source: Source,
        settings: serde_json::Value,
        grants: Grants,
    ) -> Result<Plugin, Error> {
        let name = source_name(&source);
        let wasm = read(source).await?;
        refuse_other_binaries(&name, &wasm)?;
        let sha256 = hex::encode(Sha256::digest(&wasm));
        let component = self.compile(&name, wasm, &sha256).await?;
        let imports = imports(&name, &component, &self.room)?;
        let pre = self
            .room
            .linker
            .instantiate_pre(&component)
            .map_err(|error| not_a_plugin(&name, &error))?;
        let exports = Exports::of(&name, &pre)?;

        let describing = self.context(
            &name,
            serde_json::Value::Null,
            BTreeMap::new(),
            &Grants::default(),
            true,
        );
        let said = self.describe(&pre, &exports, &describing).await?;
        let manifest = manifest(&name, said, sha256, exports.kinds(), imports)?;

        let settings = match settings {
            serde_json::Value::Null => serde_json::json!({}),
            settings if settings.is_object() => settings,
            other => {
                return Err(wrong_setting(
                    &manifest,
                    "",
                    format!("they are {other}, not an object"),
                ));
            }
        };
        check_grants(&manifest, &grants)?;
        let stores = open_stores(&manifest, &grants)?;
        let context = self.context(&manifest.name, settings, stores, &grants, false);
        let loaded = Loaded {
            manifest,
            pre,
            exports,
            context,
            room: self.room.clone(),
        };
        check_settings(&loaded).await?;
        Ok(Plugin::new(loaded))
    }

    async fn compile(&self, name: &str, wasm: Wasm, sha256: &str) -> Result<Component, Error> {
        let engine = self.room.engine.clone();
        let cache_dir = self.config.cache_dir.clone();
        let sha256 = sha256.to_owned();
        tokio::task::spawn_blocking(move || cache::component(&engine, &cache_dir, &wasm, &sha256))
            .await
            .map_err(wasmtime::Error::from)
            .and_then(|compiled| compiled)
            .map_err(|error| not_a_plugin(name, &error))
    }

    fn context(
        &self,
        plugin: &str,
        settings: serde_json::Value,
        stores: BTreeMap<String, Directory>,
        grants: &Grants,
        describing: bool,
    ) -> Arc<Context> {
        Arc::new(Context {
            plugin: plugin.to_owned(),
            settings,
            stores,
            grants: grants.clone(),
            spool_dir: self.spool_dir.clone(),
            describing,
        })
    }

    async fn describe(
        &self,
        pre: &InstancePre<CallState>,
        exports: &Exports,
        context: &Arc<Context>,
    ) -> Result<guest::plugin::Manifest, Error> {
        let mut call = Call::begin(&self.room, pre, context, "describe", 0).await?;
        let plugin = exports.plugin.load(&mut call.store, &call.instance);
        let plugin = call.conclude(plugin)?;
        let said = call
            .limit
            .watch(plugin.call_describe(&mut call.store))
            .await;
        call.conclude(said)
    }
}

/// Where the functions of each exported interface stand in a component.
pub(crate) struct Exports {
    pub(crate) plugin: guest::plugin::GuestIndices,
    pub(crate) xcom_backend: Option<guest::xcom_backend::GuestIndices>,
    pub(crate) log_handler: Option<guest::log_handler::GuestIndices>,
    pub(crate) dag_validator: Option<guest::dag_validator::GuestIndices>,
}

impl Exports {
    fn of(name: &str, pre: &InstancePre<CallState>) -> Result<Exports, Error> {
        let exports = Exports {
            plugin: guest::plugin::GuestIndices::new(pre)
                .map_err(|error| not_a_plugin(name, &error))?,
            xcom_backend: guest::xcom_backend::GuestIndices::new(pre).ok(),
            log_handler: guest::log_handler::GuestIndices::new(pre).ok(),
            dag_validator: guest::dag_validator::GuestIndices::new(pre).ok(),
        };
        if exports.kinds().is_empty() {
            return Err(Error::NotAPlugin {
                plugin: name.to_owned(),
                reason: "it exports none of xcom-backend, log-handler, dag-validator".to_owned(),
            });
        }
        Ok(exports)
    }

    fn kinds(&self) -> Vec<Kind> {
        let offered = [
            (self.xcom_backend.is_some(), Kind::XcomBackend),
            (self.log_handler.is_some(), Kind::LogHandler),
            (self.dag_validator.is_some(), Kind::DagValidator),
        ];
        offered
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, kind)| kind)
            .collect()
    }
}

type Wasm = std::borrow::Cow<'static, [u8]>;

fn source_name(source: &Source) -> String {
    match source {
        Source::Builtin(name) => (*name).to_owned(),
        Source::File(path) => path.display().to_string(),
    }
}

async fn read(source: Source) -> Result<Wasm, Error> {
    let path = match source {
        Source::Builtin(name) => {
            let known = builtin::find(name).map(Wasm::Borrowed);
            return known.ok_or_else(|| Error::UnknownBuiltin {
                name: name.to_owned(),
                known: builtin::names(),
            });
        }
        Source::File(path) => path,
    };
    let read = async {
        let size = tokio::fs::metadata(&path).await?.len();
        if size > LARGEST_PLUGIN {
            let text =
                format!("{size} bytes are more than the {LARGEST_PLUGIN} of the largest plugin");
            return Err(std::io::Error::other(text));
        }
        tokio::fs::read(&path).await
    };
    let read = read.await;
    read.map(Wasm::Owned).map_err(|source| Error::File {
        what: "cannot read the plugin",
        path,
        source,
    })
}

/// The words of a parser help nobody who mixed up two files.
fn refuse_other_binaries(name: &str, wasm: &[u8]) -> Result<(), Error> {
    let reason = match wasm.get(..8) {
        Some([b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0]) => return Ok(()),
        Some([b'\0', b'a', b's', b'm', 1, 0, 0, 0]) => {
            "it is a core WebAssembly module, not a component\nhint: `wasm-tools component new` makes one of it"
        }
        _ => "it is not WebAssembly",
    };
    Err(Error::NotAPlugin {
        plugin: name.to_owned(),
        reason: reason.to_owned(),
    })
}

/// The names of imported interfaces; anything we do not link is refused by name.
fn imports(name: &str, component: &Component, room: &EngineRoom) -> Result<Vec<String>, Error> {
    let mut known = Vec::new();
    for (import, _) in component.component_type().imports(&room.engine) {
        let ours = import.strip_prefix("modalflow:plugin/").and_then(|rest| {
            let (interface, version) = rest.split_once('@')?;
            let fits = version.starts_with("0.1.") && INTERFACES.contains(&interface);
            fits.then(|| interface.to_owned())
        });
        let Some(interface) = ours else {
            return Err(Error::NotAPlugin {
                plugin: name.to_owned(),
                reason: format!(
                    "it needs {import}, and this host has modalflow:plugin@0.1.0 only: {}",
                    INTERFACES.join(", ")
                ),
            });
        };
        known.push(interface);
    }
    Ok(known)
}

fn not_a_plugin(name: &str, error: &wasmtime::Error) -> Error {
    Error::NotAPlugin {
        plugin: name.to_owned(),
        reason: cut(format!("{error:#}"), MOST_TEXT),
    }
}

fn manifest(
    source: &str,
    said: guest::plugin::Manifest,
    sha256: String,
    kinds: Vec<Kind>,
    imports: Vec<String>,
) -> Result<Manifest, Error> {
    let refuse = |reason: String| {
        Err(Error::NotAPlugin {
            plugin: source.to_owned(),
            reason,
        })
    };
    let named = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !name.is_empty() && name.len() <= 64 && name.bytes().all(plain)
    };
    if !named(&said.name) {
        let shown = cut(said.name, 80);
        return refuse(format!(
            "its name {shown:?} is not made of a-z, 0-9 and `-`, at most 64 of them"
        ));
    }
    if said.wishes.len() > 16 {
        return refuse(format!(
            "it has {} wishes; 16 are allowed",
            said.wishes.len()
        ));
    }
    let mut wishes = Vec::new();
    for wish in said.wishes {
        if wish.capability != "store" || !named(&wish.name) {
            let (capability, name) = (cut(wish.capability, 80), cut(wish.name, 80));
            return refuse(format!(
                "it wishes for {capability:?} {name:?}, which this host does not have"
            ));
        }
        wishes.push(Wish {
            store: wish.name,
            write: wish.write,
            required: wish.required,
            why: cut(wish.why, 1024),
        });
    }
    Ok(Manifest {
        name: said.name,
        version: cut(said.version, 64),
        summary: cut(said.summary, 1024),
        sha256,
        kinds,
        imports,
        wishes,
        settings_schema: cut(said.settings_schema, 64 << 10),
    })
}

fn wrong_setting(manifest: &Manifest, pointer: &str, message: String) -> Error {
    Error::Settings {
        plugin: manifest.name.clone(),
        problems: vec![Problem {
            pointer: pointer.to_owned(),
            message: cut(message, 1024),
        }],
    }
}

fn check_grants(manifest: &Manifest, grants: &Grants) -> Result<(), Error> {
    if grants.memory_bytes > MOST_MEMORY {
        let text = format!(
            "{} bytes are more than the {MOST_MEMORY} that can be granted",
            grants.memory_bytes
        );
        return Err(wrong_setting(manifest, "grant.memory", text));
    }
    for store in grants.stores.keys() {
        if !manifest.wishes.iter().any(|wish| wish.store == *store) {
            tracing::warn!(
                plugin = manifest.name,
                store,
                "a store is granted that the plugin does not want"
            );
        }
    }
    Ok(())
}

fn open_stores(manifest: &Manifest, grants: &Grants) -> Result<BTreeMap<String, Directory>, Error> {
    let mut stores = BTreeMap::new();
    for wish in &manifest.wishes {
        let Some(grant) = grants.stores.get(&wish.store) else {
            if wish.required {
                return Err(Error::NotGranted {
                    plugin: manifest.name.clone(),
                    store: wish.store.clone(),
                    why: wish.why.clone(),
                });
            }
            continue;
        };
        let directory = Directory::open(grant, wish.write).map_err(|source| Error::File {
            what: "cannot open the store's directory",
            path: grant.dir.clone(),
            source,
        })?;
        stores.insert(wish.store.clone(), directory);
    }
    Ok(stores)
}

async fn check_settings(loaded: &Loaded) -> Result<(), Error> {
    let mut call = loaded.begin("check-settings", 0).await?;
    let plugin = loaded.exports.plugin.load(&mut call.store, &call.instance);
    let plugin = call.conclude(plugin)?;
    let settings = loaded.context.settings.to_string();
    let problems = call
        .limit
        .watch(plugin.call_check_settings(&mut call.store, &settings))
        .await;
    let problems = call.conclude(problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Settings {
        plugin: loaded.manifest.name.clone(),
        problems: problems
            .into_iter()
            .take(100)
            .map(|problem| Problem {
                pointer: cut(problem.pointer, 1024),
                message: cut(problem.message, 1024),
            })
            .collect(),
    })
}
