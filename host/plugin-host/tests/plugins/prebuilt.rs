//! The components in `plugins/prebuilt/` are what the sources beside them make. No wasm toolchain is needed to know that.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

#[path = "../../../../plugins/xtask/src/inputs.rs"]
mod inputs;

#[test]
fn prebuilt_plugins_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap();
    let lock = std::fs::read_to_string(root.join("plugins/prebuilt/prebuilt.lock")).unwrap();
    let noted: BTreeMap<&str, (&str, &str)> = lock
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap();
            (next(), (next(), next()))
        })
        .collect();
    assert_eq!(
        noted.keys().copied().collect::<Vec<_>>(),
        ["dag-rules", "evil", "file-task-handler", "volume-xcom"]
    );
    let hint = "rebuild with `cargo run --manifest-path plugins/Cargo.toml -p xtask`";
    for (plugin, (inputs, sha256)) in noted {
        let wasm = std::fs::read(crate::prebuilt(plugin)).unwrap();
        assert_eq!(
            hex::encode(Sha256::digest(wasm)),
            sha256,
            "{plugin}.wasm is another one; {hint}"
        );
        assert_eq!(
            inputs::hash(&root, plugin).unwrap(),
            inputs,
            "the sources of {plugin} changed; {hint}"
        );
    }
}
