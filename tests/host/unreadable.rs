//! Environments whose own files were never finished or can't be read: each can be made anew, or destroyed.

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{Ran, TestHost, modalflow};

/// What a `create` leaves that was killed right at its beginning.
fn unfinish(root: &Path) {
    let path = root.join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    state["phase"] = "creating".into();
    fs::write(&path, state.to_string()).unwrap();
    for file in ["config.yaml", "secrets.json"] {
        fs::remove_file(root.join(file)).unwrap();
    }
}

#[test]
fn what_create_has_not_finished_is_made_anew_or_destroyed() {
    let host = TestHost::new();
    let root = host.folder("root");
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!("database:\n  connection_string: {}\n", host.database.url);
    fs::write(config.path(), text).unwrap();

    unfinish(&root);
    let mut create = modalflow(["create", "--env", &host.name, "--config"]);
    create.arg(config.path());
    let _ = Ran::of(create).ok();
    assert!(root.join("config.yaml").exists());

    unfinish(&root);
    let _ = host.run(&["destroy", "--yes"]).ok();
    assert!(!root.exists());
}

#[test]
fn what_cannot_be_read_is_destroyed_when_that_is_said() {
    for file in ["state.json", "config.yaml"] {
        let host = TestHost::new();
        let root = host.folder("root");
        fs::write(root.join(file), "[").unwrap();
        let refused = host.run(&["destroy", "--yes"]);
        assert_eq!(refused.code, Some(1), "{refused}");
        for part in [file, "with --forget"] {
            assert!(refused.stderr.contains(part), "{refused}");
        }
        assert!(root.exists());
        let _ = host.run(&["destroy", "--yes", "--forget"]).ok();
        assert!(!root.exists());
    }
}

#[test]
fn lost_keys_are_no_reason_to_stay() {
    let host = TestHost::new();
    let root = host.folder("root");
    fs::write(root.join("secrets.json"), "[").unwrap();
    let _ = host.run(&["destroy", "--yes"]).ok();
    assert!(!root.exists());
}
