//! Compiled components on disk, so that a plugin compiles once for a machine and not once for a process.
//!
//! Machine code is trusted when it is loaded, so the directory must be ours alone, each file carries its own checksum, and
//! whatever cannot be read or loaded is compiled again.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

const CHECKSUM_BYTES: usize = 32;

/// The component of `wasm`, compiled now or earlier.
pub(crate) fn component(
    engine: &Engine,
    cache_dir: &Path,
    wasm: &[u8],
    sha256: &str,
) -> wasmtime::Result<Component> {
    let path = match usable(cache_dir) {
        Ok(()) => cache_dir.join(file_name(engine, sha256)),
        Err(error) => {
            tracing::warn!(?cache_dir, "plugins are compiled anew each time: {error}");
            return Component::new(engine, wasm);
        }
    };
    if let Some(component) = load(engine, &path) {
        return Ok(component);
    }
    let compiled = engine.precompile_component(wasm)?;
    if let Err(error) = save(&path, &compiled) {
        tracing::warn!(?path, "the compiled plugin was not kept: {error}");
    }
    deserialize(engine, &compiled)
}

/// Everything that compiled code depends on is in its name: the component, wasmtime's version, the engine's settings.
fn file_name(engine: &Engine, sha256: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{sha256}-{:016x}.cwasm", hasher.finish())
}

/// Makes the directory, and refuses one that others could write to.
fn usable(cache_dir: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache_dir)?;
    let found = fs::symlink_metadata(cache_dir)?;
    // A file made by us belongs to us, which tells our own user id without asking the system for it.
    let ours = tempfile::tempfile_in(cache_dir)?.metadata()?.uid();
    if !found.is_dir() || found.uid() != ours {
        return Err(io::Error::other(
            "the cache directory belongs to somebody else",
        ));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(cache_dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let bytes = fs::read(path).ok()?;
    let (checksum, compiled) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    if Sha256::digest(compiled)[..] != *checksum {
        tracing::warn!(?path, "a compiled plugin was damaged and is compiled again");
        return None;
    }
    deserialize(engine, compiled)
        .inspect_err(|error| {
            tracing::warn!(?path, "a compiled plugin is compiled again: {error:#}")
        })
        .ok()
}

fn save(path: &Path, compiled: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&Sha256::digest(compiled))?;
    file.write_all(compiled)?;
    file.persist(path)?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "wasmtime cannot check machine code that it is handed"
)]
fn deserialize(engine: &Engine, compiled: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes were made by `precompile_component`, in this process or by this user in a directory that only this
    // user can write to, and their checksum is right. wasmtime itself refuses other versions and other settings.
    unsafe { Component::deserialize(engine, compiled) }
}
