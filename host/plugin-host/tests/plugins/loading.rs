//! What is loaded, what is refused, and what is kept on disk for the next time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use plugin_host::{Grants, HostConfig, Kind, Payload, PluginHost, Source, StoreGrant};
use serde_json::json;

use crate::{House, at, config, prebuilt, words};

#[tokio::test]
async fn a_manifest_says_what_a_plugin_is_and_wants() {
    let house = House::new();
    let mut seen = Vec::new();
    for name in ["volume-xcom", "file-task-handler", "dag-rules"] {
        let plugin = house.load(name, json!({})).await.unwrap();
        let manifest = plugin.manifest();
        let kinds: Vec<String> = manifest.kinds.iter().map(Kind::to_string).collect();
        let wishes: Vec<String> = manifest
            .wishes
            .iter()
            .map(|wish| format!("{} {}", wish.store, if wish.write { "rw" } else { "r" }))
            .collect();
        let schema: serde_json::Value = serde_json::from_str(&manifest.settings_schema).unwrap();
        seen.push(format!(
            "{} {} [{}] imports {} wants {wishes:?} settings {:?}",
            manifest.name,
            manifest.version,
            kinds.join(", "),
            manifest.imports.join(", "),
            schema["properties"]
                .as_object()
                .map(|names| names.keys().cloned().collect::<Vec<_>>())
                .unwrap_or_default(),
        ));
        assert_eq!(manifest.sha256.len(), 64);
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    volume-xcom 0.1.0 [xcom-backend] imports types, bytes, object-store, settings, logging wants ["xcom rw"] settings ["inline_bytes", "max_bytes"]
    file-task-handler 0.1.0 [log-handler] imports types, bytes, object-store, logging wants ["logs rw"] settings []
    dag-rules 0.1.0 [dag-validator] imports types, dags, settings, logging wants [] settings ["allowed_owners", "require_owner", "required_tags"]
    "#);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let house = House::new();
    let good = fs::read(prebuilt("volume-xcom")).unwrap();
    let renamed = replace(
        &good,
        b"modalflow:plugin/object-store@0.1.0",
        b"modalflow:plugin/object-store@0.2.0",
    );
    let foreign = replace(
        &good,
        b"modalflow:plugin/object-store@0.1.0",
        b"modalflow:plugin/objekt-store@0.1.0",
    );
    let candidates: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("module", b"\0asm\x01\0\0\0".to_vec()),
        ("nothing", b"\0asm\x0d\0\x01\0".to_vec()),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("newer", renamed),
        ("foreign", foreign),
    ];
    let mut seen = Vec::new();
    for (name, bytes) in candidates {
        let path = house.dir.path().join(format!("{name}.wasm"));
        fs::write(&path, bytes).unwrap();
        let refused = house
            .host
            .load(Source::File(path), json!({}), house.grants())
            .await;
        let text = words(&house, &refused.err().unwrap());
        seen.push(text.chars().take(400).collect::<String>());
    }
    let missing = Source::File(PathBuf::from("nowhere.wasm"));
    seen.push(
        house
            .host
            .load(missing, json!({}), Grants::default())
            .await
            .err()
            .unwrap()
            .to_string(),
    );
    let unknown = Source::Builtin("volume_xcom");
    seen.push(
        house
            .host
            .load(unknown, json!({}), Grants::default())
            .await
            .err()
            .unwrap()
            .to_string(),
    );
    insta::with_settings!({filters => vec![(r"offset 0x[0-9a-f]+", "offset [n]")]}, {
        insta::assert_snapshot!(seen.join("\n"), @r#"
        plugin [dir]/empty.wasm cannot be loaded: it is not WebAssembly
        plugin [dir]/text.wasm cannot be loaded: it is not WebAssembly
        plugin [dir]/module.wasm cannot be loaded: it is a core WebAssembly module, not a component
        hint: `wasm-tools component new` makes one of it
        plugin [dir]/nothing.wasm cannot be loaded: no exported instance named `modalflow:plugin/plugin@0.1.0`
        plugin [dir]/truncated.wasm cannot be loaded: failed to parse WebAssembly module: wasm component contains an invalid module section: section range 1337..166172 is out of bounds (bound = 87410)
        plugin [dir]/newer.wasm cannot be loaded: it needs modalflow:plugin/object-store@0.2.0, and this host has modalflow:plugin@0.1.0 only: types, bytes, settings, logging, clock, random, object-store, dags, plugin
        plugin [dir]/foreign.wasm cannot be loaded: it needs modalflow:plugin/objekt-store@0.1.0, and this host has modalflow:plugin@0.1.0 only: types, bytes, settings, logging, clock, random, object-store, dags, plugin
        cannot read the plugin "nowhere.wasm"
        no built-in plugin is named "volume_xcom"
        hint: there are dag-rules, file-task-handler, volume-xcom
        "#);
    });
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for place in places {
        changed[place..place + to.len()].copy_from_slice(to);
    }
    changed
}

#[tokio::test]
async fn wrong_settings_and_missing_grants_are_told_at_once() {
    let house = House::new();
    let mut seen = Vec::new();
    for settings in [
        json!({"inline_byte": 1}),
        json!({"max_bytes": "1 GB"}),
        json!([1]),
    ] {
        seen.push(
            house
                .load("volume-xcom", settings)
                .await
                .err()
                .unwrap()
                .to_string(),
        );
    }
    seen.push(
        house
            .load("file-task-handler", json!({"a": 1}))
            .await
            .err()
            .unwrap()
            .to_string(),
    );
    let nothing = house
        .host
        .load(Source::Builtin("volume-xcom"), json!({}), Grants::default())
        .await;
    seen.push(nothing.err().unwrap().to_string());
    let greedy = Grants {
        memory_bytes: 2 << 30,
        ..house.grants()
    };
    let greedy = house
        .host
        .load(Source::Builtin("volume-xcom"), json!({}), greedy)
        .await;
    seen.push(greedy.err().unwrap().to_string());
    let mut absent = Grants::default();
    absent.stores.insert(
        "xcom".to_owned(),
        StoreGrant {
            dir: house.dir.path().join("absent"),
            write: false,
        },
    );
    let absent = house
        .host
        .load(Source::Builtin("volume-xcom"), json!({}), absent)
        .await;
    seen.push(words(&house, &absent.err().unwrap()));
    let kind = house.load("dag-rules", json!({})).await.unwrap();
    seen.push(kind.xcom_backend().err().unwrap().to_string());
    insta::assert_snapshot!(seen.join("\n"), @r#"
    the settings of plugin volume-xcom are wrong: settings: unknown field `inline_byte`, expected `inline_bytes` or `max_bytes` at line 1 column 14
    the settings of plugin volume-xcom are wrong: settings: invalid type: string "1 GB", expected u64 at line 1 column 19
    the settings of plugin volume-xcom are wrong: settings: they are [1], not an object
    the settings of plugin file-task-handler are wrong: settings: unknown field `a`, there are no fields at line 1 column 4
    plugin volume-xcom wants the store "xcom" (it keeps values there)
    hint: grant it a directory under `stores.xcom`
    the settings of plugin volume-xcom are wrong: grant.memory: 2147483648 bytes are more than the 1073741824 that can be granted
    cannot open the store's directory "[dir]/absent"
    plugin dag-rules is no xcom-backend; it is dag-validator
    "#);
}

#[tokio::test]
async fn compiled_code_is_kept_and_mended() {
    let house = House::new();
    house.load("dag-rules", json!({})).await.unwrap();
    let cache = house.dir.path().join("cache");
    assert_eq!(
        fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let files: Vec<PathBuf> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [file] = &files[..] else {
        panic!("{files:?}")
    };
    let good = fs::read(file).unwrap();
    let kept = fs::metadata(file).unwrap().modified().unwrap();
    house.load("dag-rules", json!({})).await.unwrap();
    assert_eq!(
        fs::metadata(file).unwrap().modified().unwrap(),
        kept,
        "a good file is used as it is"
    );

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [
        Vec::new(),
        b"x".to_vec(),
        good[..good.len() - 9].to_vec(),
        flipped,
        vec![0; good.len()],
    ] {
        fs::write(file, bad).unwrap();
        house.load("dag-rules", json!({})).await.unwrap();
        assert!(
            fs::read(file).unwrap().len() == good.len(),
            "a bad file is replaced"
        );
    }
}

#[tokio::test]
async fn code_that_others_could_have_written_is_not_trusted() {
    let house = House::new();
    let cache = house.dir.path().join("cache");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    house.load("dag-rules", json!({})).await.unwrap();
    assert_eq!(
        fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[tokio::test]
async fn a_cache_that_cannot_be_used_costs_time_and_nothing_else() {
    let house = House::new();
    let blocked = house.dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let config = HostConfig {
        cache_dir: blocked.join("cache"),
        ..config(house.dir.path())
    };
    let host = PluginHost::new(config).unwrap();
    let plugin = host
        .load(Source::Builtin("volume-xcom"), json!({}), house.grants())
        .await
        .unwrap();
    plugin
        .xcom_backend()
        .unwrap()
        .put(&at("x"), Payload::from("1"))
        .await
        .unwrap();
}
