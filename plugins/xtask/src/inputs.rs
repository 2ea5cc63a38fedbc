//! What a plugin is built from, as one hash. The host's tests include this file to prove that `prebuilt/` is fresh, so it uses
//! nothing but `std`, `hex` and `sha2`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// SHA-256 over everything that goes into `plugin`: its own files, the SDK's, the WIT, the workspace's manifest and lock.
pub(crate) fn hash(root: &Path, plugin: &str) -> io::Result<String> {
    let plugins = root.join("plugins");
    let mut files = Vec::new();
    for folder in [plugins.join(plugin), plugins.join("sdk"), root.join("wit")] {
        collect(&folder, &mut files)?;
    }
    files.push(plugins.join("Cargo.toml"));
    files.push(plugins.join("Cargo.lock"));
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let name = file
            .strip_prefix(root)
            .map_err(io::Error::other)?
            .display()
            .to_string();
        let content = fs::read(&file)?;
        hasher.update(name.as_bytes());
        hasher.update([0]);
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(&content);
    }
    Ok(hex::encode(hasher.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
            continue;
        }
        let source = path.extension().is_some_and(|extension| {
            ["rs", "toml", "wit"]
                .iter()
                .any(|known| extension == *known)
        });
        if source {
            files.push(path);
        }
    }
    Ok(())
}
