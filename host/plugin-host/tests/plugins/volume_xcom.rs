//! `volume-xcom`: where values lie, what their rows say, and what happens when a file or a row is not what it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use plugin_host::{Payload, Stored, XcomBackend, XcomCoordinate, path_part};
use serde_json::json;

use crate::{House, at, task, words};

const FILE: &str = "etl/manual__2025-01-01T00:00:00+00:00/extract/return_value";

fn rows(count: usize) -> Payload {
    let rows: Vec<_> = (0..count)
        .map(|n| json!({"id": n, "name": "größe"}))
        .collect();
    Payload::from(json!(rows).to_string())
}

async fn put(backend: &dyn XcomBackend, at: &XcomCoordinate) -> Stored {
    backend.put(at, rows(1000)).await.unwrap()
}

#[tokio::test]
async fn a_large_value_is_a_file_and_its_row_is_readable() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let stored = put(&*backend, &at("return_value")).await;
    insta::assert_json_snapshot!(stored.to_column(), @r#"
    {
      "__modalflow_xcom__": {
        "preview": "[{\"id\":0,\"name\":\"größe\"},{\"id\":1,\"name\":\"größe\"},{\"id\":2,\"name\":\"größe\"},{\"id\":3,\"name\":\"größe\"},{\"id\":4,\"name\":\"größe\"},{\"id\":5,\"name\":\"größe\"},{\"id\":6,\"name\":\"größe\"},{\"id\":7,\"name\":\"größe\"},{\"id\":8…",
        "sha256": "5a4815b4923b2ea372c91d207c021416afee328934b0d6a709847224623c1844",
        "size": 27891,
        "uri": "xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/return_value"
      }
    }
    "#);
    insta::assert_snapshot!(house.files(), @" 27891 etl/manual__2025-01-01T00:00:00+00:00/extract/return_value");
}

#[tokio::test]
async fn small_values_and_the_schedulers_own_keys_stay_in_the_database() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let small = backend
        .put(&at("return_value"), Payload::from("[1, 2]"))
        .await
        .unwrap();
    assert_eq!(small, Stored::InDatabase(json!([1, 2])));
    let skipped = json!({"skipped": vec!["task"; 5000]});
    for key in ["skipmixin_key", "skipmixin_key_2"] {
        let stored = backend
            .put(&at(key), Payload::from(skipped.to_string()))
            .await
            .unwrap();
        assert_eq!(stored, Stored::InDatabase(skipped.clone()));
    }
    assert_eq!(house.files(), "");
}

#[tokio::test]
async fn hostile_ids_become_files_below_the_store() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    for key in [
        "../../etc/passwd",
        "a/b",
        ".",
        "map_index=0",
        &"k".repeat(512),
    ] {
        put(&*backend, &at(key)).await;
    }
    let mut hostile = at("return_value");
    hostile.task.dag_id = "../../..".to_owned();
    hostile.task.run_id = "..".to_owned();
    hostile.task.task_id = "a\nb".to_owned();
    put(&*backend, &hostile).await;
    for map_index in [0, 1] {
        put(
            &*backend,
            &XcomCoordinate {
                task: task("extract", map_index),
                key: "return_value".to_owned(),
            },
        )
        .await;
    }
    insta::assert_snapshot!(house.files(), @"
    27891 ..%2F..%2F../%2E%2E/a%0Ab/return_value
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/%2E
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/..%2F..%2Fetc%2Fpasswd
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/a%2Fb
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk%~789a49fcfe20dccddb0f9266345989ae51c3333847df3bc45400d1b04033a565
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/map_index%3D0
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/map_index=0/return_value
    27891 etl/manual__2025-01-01T00:00:00+00:00/extract/map_index=1/return_value
    ");
    assert_eq!(
        fs::read_dir(house.dir.path()).unwrap().count(),
        3,
        "cache, spool, store"
    );
}

#[tokio::test]
async fn a_damaged_file_is_an_error_that_names_the_key() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let at = at("return_value");
    let file = house.store().join(FILE);
    let mut seen = Vec::new();
    let damages: [(&str, fn(&PathBuf)); 5] = [
        ("bit flip", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[777] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("truncated", |file| {
            fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(100)
                .unwrap()
        }),
        ("empty", |file| fs::write(file, "").unwrap()),
        ("missing", |file| fs::remove_file(file).unwrap()),
        ("a directory", |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let stored = put(&*backend, &at).await;
        damage(&file);
        let error = backend.get(&at, &stored).await.unwrap_err();
        seen.push(format!("{name}: {}", words(&house, &error)));
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    bit flip: volume-xcom: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": its file etl/manual__2025-01-01T00:00:00+00:00/extract/return_value is damaged: the checksum is not the one that was written
    truncated: volume-xcom: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": its file etl/manual__2025-01-01T00:00:00+00:00/extract/return_value has 100 bytes where 27891 were written
    empty: volume-xcom: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": its file etl/manual__2025-01-01T00:00:00+00:00/extract/return_value has 0 bytes where 27891 were written
    missing: volume-xcom: not found: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": its file etl/manual__2025-01-01T00:00:00+00:00/extract/return_value is gone from the store
    a directory: volume-xcom: not found: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": its file etl/manual__2025-01-01T00:00:00+00:00/extract/return_value is gone from the store
    "#);
}

#[tokio::test]
async fn every_flipped_byte_is_noticed() {
    let house = House::new();
    let plugin = house
        .load("volume-xcom", json!({"inline_bytes": 0}))
        .await
        .unwrap();
    let backend = plugin.xcom_backend().unwrap();
    let stored = backend
        .put(&at("return_value"), Payload::from("[1, \"two\", 3.5]"))
        .await
        .unwrap();
    let file = house.store().join(FILE);
    let good = fs::read(&file).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 0x20;
        fs::write(&file, &bad).unwrap();
        assert!(
            backend.get(&at("return_value"), &stored).await.is_err(),
            "byte {index}"
        );
        fs::write(&file, &good[..index]).unwrap();
        assert!(
            backend.get(&at("return_value"), &stored).await.is_err(),
            "cut at {index}"
        );
    }
    fs::write(&file, &good).unwrap();
    backend.get(&at("return_value"), &stored).await.unwrap();
}

#[tokio::test]
async fn a_planted_link_is_never_followed() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let outside = house.dir.path().join("secret");
    fs::write(&outside, "secret").unwrap();
    let elsewhere = house.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let at = at("return_value");
    let file = house.store().join(FILE);
    let mut seen = Vec::new();

    // In place of the file: a put replaces the link itself, a get refuses it.
    let stored = put(&*backend, &at).await;
    fs::remove_file(&file).unwrap();
    symlink(&outside, &file).unwrap();
    seen.push(words(&house, &backend.get(&at, &stored).await.unwrap_err()));
    put(&*backend, &at).await;
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    backend.get(&at, &stored).await.unwrap();

    // In place of a directory, pointing out of the store and back into it.
    for target in [elsewhere.clone(), house.store().join("etl")] {
        let task = house.store().join("other");
        let _ = fs::remove_file(&task);
        symlink(&target, &task).unwrap();
        let mut at = at.clone();
        at.task.dag_id = "other".to_owned();
        seen.push(words(
            &house,
            &backend.put(&at, rows(1000)).await.unwrap_err(),
        ));
        seen.push(words(&house, &backend.get(&at, &stored).await.unwrap_err()));
        // Purging removes the link and not what it points at.
        let dag = plugin_host::Scope::Dag {
            dag_id: "other".to_owned(),
        };
        assert_eq!(backend.purge(&dag, &[]).await.unwrap(), 0);
        assert!(target.exists() && !task.exists());
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    insta::assert_snapshot!(seen.join("\n"), @r#"
    volume-xcom: denied: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": `etl/manual__2025-01-01T00:00:00+00:00/extract/return_value` is a symbolic link, which is never followed
    volume-xcom: denied: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "other": `other` is a symbolic link, which is never followed
    volume-xcom: denied: the row of XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "other" points at `xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/return_value`; its file is `xcom:other/manual__2025-01-01T00:00:00+00:00/extract/return_value`
    volume-xcom: denied: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "other": `other` is a symbolic link, which is never followed
    volume-xcom: denied: the row of XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "other" points at `xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/return_value`; its file is `xcom:other/manual__2025-01-01T00:00:00+00:00/extract/return_value`
    "#);
}

#[tokio::test]
async fn a_planted_pipe_does_not_hold_the_host() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let at = at("return_value");
    let stored = put(&*backend, &at).await;
    let file = house.store().join(FILE);
    fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&file)
        .status()
        .unwrap();
    assert!(made.success());
    let error = backend.get(&at, &stored).await.unwrap_err();
    insta::assert_snapshot!(words(&house, &error), @r#"volume-xcom: denied: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl": `etl/manual__2025-01-01T00:00:00+00:00/extract/return_value` is not a plain file"#);
}

#[tokio::test]
async fn a_forged_row_opens_nothing() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    put(&*backend, &at("theirs")).await;
    let mut seen = Vec::new();
    let mine = at("return_value");
    for uri in [
        "xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/theirs",
        "../../etc/passwd",
        "xcom:",
    ] {
        let forged = json!({"__modalflow_xcom__": {"uri": uri, "size": 1, "sha256": "00"}});
        let error = backend
            .get(&mine, &Stored::from_column(forged))
            .await
            .unwrap_err();
        seen.push(words(&house, &error));
    }
    let unsigned = json!({"__modalflow_xcom__": {"uri": format!("xcom:{FILE}")}});
    let error = backend
        .get(&mine, &Stored::from_column(unsigned))
        .await
        .unwrap_err();
    seen.push(words(&house, &error));
    insta::assert_snapshot!(seen.join("\n"), @r#"
    volume-xcom: denied: the row of XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl" points at `xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/theirs`; its file is `xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/return_value`
    volume-xcom: denied: the row of XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl" points at `../../etc/passwd`; its file is `xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/return_value`
    volume-xcom: denied: the row of XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl" points at `xcom:`; its file is `xcom:etl/manual__2025-01-01T00:00:00+00:00/extract/return_value`
    volume-xcom: invalid: the row of XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl" has no sha256
    "#);
}

#[tokio::test]
async fn a_value_over_the_limit_names_the_limit_and_the_setting() {
    let house = House::new();
    let plugin = house
        .load("volume-xcom", json!({"max_bytes": 10_000}))
        .await
        .unwrap();
    let error = plugin
        .xcom_backend()
        .unwrap()
        .put(&at("return_value"), rows(1000))
        .await
        .unwrap_err();
    insta::assert_snapshot!(words(&house, &error), @r#"
    volume-xcom: too large: XCom "return_value" of task "extract" in run "manual__2025-01-01T00:00:00+00:00" of Dag "etl" has 27891 bytes, more than the 10000 allowed
    hint: raise `max_bytes` in the settings of volume-xcom, or hand over a path instead of the data
    "#);
    assert_eq!(house.files(), "");
}

#[tokio::test]
async fn the_encoder_is_the_hosts_own() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let key = "größe/../x y";
    put(&*backend, &at(key)).await;
    assert!(house.files().ends_with(&path_part(key)));
}
