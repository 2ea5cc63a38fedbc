//! The plugins that are shipped, and one that does what no plugin should, in the real engine.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first surprise"
)]

mod builtins;
mod dag_rules;
mod evil;
mod file_task_handler;
mod loading;
mod memory;
mod prebuilt;
mod volume_xcom;

use std::path::{Path, PathBuf};

use plugin_host::{
    Error, Grants, HostConfig, LogHandler, Plugin, PluginHost, Source, TaskKey, XcomBackend,
    XcomCoordinate,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

/// A host with everything it writes in one temporary directory.
struct House {
    host: PluginHost,
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let host = PluginHost::new(config(dir.path())).unwrap();
        House { host, dir }
    }

    /// The directory behind every store of these tests.
    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn grants(&self) -> Grants {
        Grants::default()
            .with_store("xcom", self.store())
            .with_store("logs", self.store())
            .with_store("loot", self.store())
    }

    async fn load(&self, name: &'static str, settings: Value) -> Result<Plugin, Error> {
        self.host
            .load(Source::Builtin(name), settings, self.grants())
            .await
    }

    async fn volume_xcom(&self) -> Arc<dyn XcomBackend> {
        self.load("volume-xcom", json!({}))
            .await
            .unwrap()
            .xcom_backend()
            .unwrap()
    }

    async fn file_task_handler(&self) -> Arc<dyn LogHandler> {
        self.load("file-task-handler", json!({}))
            .await
            .unwrap()
            .log_handler()
            .unwrap()
    }

    /// Every file below the store, with its length.
    fn files(&self) -> String {
        let mut lines = Vec::new();
        list(&self.store(), &self.store(), &mut lines);
        lines.sort();
        lines.join("\n")
    }
}

fn config(dir: &Path) -> HostConfig {
    HostConfig {
        cache_dir: dir.join("cache"),
        spool_dir: dir.join("spool"),
    }
}

fn list(root: &Path, folder: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            list(root, &path, lines);
        } else {
            let len = std::fs::symlink_metadata(&path).unwrap().len();
            lines.push(format!(
                "{len:>6} {}",
                path.strip_prefix(root).unwrap().display()
            ));
        }
    }
}

fn prebuilt(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/prebuilt")
        .join(format!("{name}.wasm"))
}

fn task(task_id: &str, map_index: i32) -> TaskKey {
    TaskKey {
        dag_id: "etl".to_owned(),
        run_id: "manual__2025-01-01T00:00:00+00:00".to_owned(),
        task_id: task_id.to_owned(),
        map_index,
        try_number: 1,
    }
}

fn at(key: &str) -> XcomCoordinate {
    XcomCoordinate {
        task: task("extract", -1),
        key: key.to_owned(),
    }
}

/// An error without the names of temporary directories.
fn words(house: &House, error: &Error) -> String {
    error
        .to_string()
        .replace(&house.dir.path().display().to_string(), "[dir]")
}
