//! Builds the plugins into `prebuilt/`: compiles each to a core module, makes a component of it, and notes what it was made from.
//!
//! `cargo run -p xtask` builds what is not fresh, `-- --all` builds everything, `-- NAME…` builds these.

mod inputs;
mod toolchain;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use crate::toolchain::{TARGET, Toolchain};

const PLUGINS: [&str; 4] = ["dag-rules", "evil", "file-task-handler", "volume-xcom"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root
        .canonicalize()
        .map_err(|error| format!("{}: {error}", root.display()))?;
    let prebuilt = root.join("plugins/prebuilt");
    fs::create_dir_all(&prebuilt).map_err(|error| error.to_string())?;
    let mut lock = Lock::read(&prebuilt.join("prebuilt.lock"));
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked
        .iter()
        .find(|name| *name != "--all" && !PLUGINS.contains(&name.as_str()))
    {
        return Err(format!(
            "no plugin is named {unknown:?}; there are {}",
            PLUGINS.join(", ")
        ));
    }
    let mut found = None;
    for plugin in PLUGINS {
        let inputs = inputs::hash(&root, plugin).map_err(|error| format!("{plugin}: {error}"))?;
        let wasm = prebuilt.join(format!("{plugin}.wasm"));
        let wanted = asked.iter().any(|name| name == "--all" || name == plugin);
        if !wanted && (!asked.is_empty() || lock.is_fresh(plugin, &inputs, &wasm)) {
            continue;
        }
        let toolchain = match &found {
            Some(toolchain) => toolchain,
            None => found.insert(toolchain::find()?),
        };
        let component = build(&root, plugin, toolchain)?;
        fs::write(&wasm, &component).map_err(|error| format!("{}: {error}", wasm.display()))?;
        println!("{plugin}: {} bytes", component.len());
        lock.note(plugin, &inputs, &component, &toolchain.description);
        lock.write(&prebuilt.join("prebuilt.lock"))?;
    }
    Ok(())
}

/// Compiles one plugin and makes a component of the module.
fn build(root: &Path, plugin: &str, toolchain: &Toolchain) -> Result<Vec<u8>, String> {
    let plugins = root.join("plugins");
    let status = Command::new(&toolchain.cargo)
        .args([
            "build",
            "--locked",
            "--release",
            "--target",
            TARGET,
            "--package",
            plugin,
        ])
        .args(&toolchain.arguments)
        .envs(
            toolchain
                .variables
                .iter()
                .map(|(name, value)| (*name, value)),
        )
        .env("RUSTFLAGS", flags(root))
        // The cargo that runs us may be another one than the one we run.
        .env_remove("CARGO")
        .current_dir(&plugins)
        .status()
        .map_err(|error| format!("{}: {error}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err(format!("{plugin} did not compile"));
    }
    let module = plugins
        .join("target")
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", plugin.replace('-', "_")));
    let module = fs::read(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("{plugin}: {error:#}"))
}

/// Names of folders on this machine are replaced, so that the result is the same on another.
fn flags(root: &Path) -> String {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut flags = format!(
        "--remap-path-prefix={}=. --remap-path-prefix=/usr/lib/rustlib/src/rust=rust",
        root.display()
    );
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    for registry in registries.into_iter().flatten().flatten() {
        flags.push_str(&format!(
            " --remap-path-prefix={}=crates",
            registry.path().display()
        ));
    }
    flags
}

/// `prebuilt.lock`: what each component was made from.
struct Lock(BTreeMap<String, [String; 3]>);

impl Lock {
    fn read(path: &Path) -> Lock {
        let text = fs::read_to_string(path).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.splitn(4, ' ');
            let mut next = || words.next().map(str::to_owned);
            Some((next()?, [next()?, next()?, next()?]))
        };
        Lock(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(entry)
                .collect(),
        )
    }

    fn is_fresh(&self, plugin: &str, inputs: &str, wasm: &Path) -> bool {
        let Ok(wasm) = fs::read(wasm) else {
            return false;
        };
        self.0.get(plugin).is_some_and(|[known, sha256, _]| {
            known == inputs && *sha256 == hex::encode(Sha256::digest(wasm))
        })
    }

    fn note(&mut self, plugin: &str, inputs: &str, component: &[u8], toolchain: &str) {
        let sha256 = hex::encode(Sha256::digest(component));
        self.0.insert(
            plugin.to_owned(),
            [inputs.to_owned(), sha256, toolchain.to_owned()],
        );
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let mut text = "# Written by xtask: plugin, hash of its inputs, SHA-256 of the component, toolchain.\n".to_owned();
        for (plugin, [inputs, sha256, toolchain]) in &self.0 {
            text.push_str(&format!("{plugin} {inputs} {sha256} {toolchain}\n"));
        }
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}
