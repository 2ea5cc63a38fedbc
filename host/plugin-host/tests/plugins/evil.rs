//! A plugin that means harm: each call ends, says why, and hurts nobody else.

use std::time::{Duration, Instant};

use plugin_host::{Error, Grants, Payload, Plugin, Source, Stored};
use serde_json::{Value, json};

use crate::{House, at, prebuilt, words};

async fn load(house: &House, settings: Value, grants: Grants) -> Result<Plugin, Error> {
    house
        .host
        .load(Source::File(prebuilt("evil")), settings, grants)
        .await
}

fn short(house: &House) -> Grants {
    Grants {
        deadline: Duration::from_millis(300),
        ..house.grants()
    }
}

/// Long enough for a busy machine: here something else than the clock must end the call.
fn patient(house: &House) -> Grants {
    Grants {
        deadline: Duration::from_secs(60),
        ..house.grants()
    }
}

async fn put(house: &House, settings: Value, grants: Grants) -> Result<Stored, Error> {
    let plugin = load(house, settings, grants).await?;
    plugin
        .xcom_backend()?
        .put(&at("return_value"), Payload::from("1"))
        .await
}

#[tokio::test]
async fn every_attack_ends_with_words() {
    let house = House::new();
    let modes = [
        "trap",
        "panic",
        "recurse",
        "memory",
        "handles",
        "storm",
        "long-error",
        "huge-answer",
        "not-json",
        "forged-reference",
        "many-attributes",
        "other-store",
        "unheard-of",
    ];
    let mut seen = Vec::new();
    for mode in modes {
        let answer = put(&house, json!({"mode": mode}), patient(&house)).await;
        let text = words(&house, &answer.unwrap_err());
        let shown: String = text.chars().take(300).collect();
        seen.push(format!("{mode}: {shown}"));
    }
    let spin = put(&house, json!({"mode": "spin"}), short(&house)).await;
    seen.push(format!("spin: {}", spin.unwrap_err()));
    insta::with_settings!({filters => vec![(r"(long ){9,}.*", "long long …")]}, {
        insta::assert_snapshot!(seen.join("\n"), @r#"
        trap: plugin evil crashed in xcom-backend.put: wasm trap: wasm `unreachable` instruction executed
        panic: plugin evil crashed in xcom-backend.put: panicked at evil/src/lib.rs:63:24:
        out of ideas
        recurse: plugin evil crashed in xcom-backend.put: wasm trap: call stack exhausted
        memory: plugin evil crashed in xcom-backend.put: wasm trap: wasm `unreachable` instruction executed
        hint: it asked for more memory than its grant of 64 MiB
        handles: plugin evil crashed in xcom-backend.put: resource table has no free keys
        storm: plugin evil crashed in xcom-backend.put: more than 200000 calls of host functions
        long-error: evil: long long …
        huge-answer: plugin evil crashed in xcom-backend.put: wasm trap: wasm `unreachable` instruction executed
        hint: it asked for more memory than its grant of 64 MiB
        not-json: plugin evil broke the contract in xcom-backend.put: the value for the database is not JSON: key must be a string at line 1 column 2
        forged-reference: plugin evil broke the contract in xcom-backend.put: an attribute with the reserved name "uri"
        many-attributes: plugin evil broke the contract in xcom-backend.put: 100 attributes
        other-store: evil: denied: no store "xcom" was wished for and granted
        unheard-of: evil: invalid: no mode "unheard-of"
        spin: plugin evil was stopped in xcom-backend.put: it took longer than 300ms
        hint: raise its grant `deadline` if the work is honest
        "#);
    });
}

#[tokio::test]
async fn a_runaway_guest_is_stopped_in_time_and_lets_others_run() {
    let house = House::new();
    let allowed = Duration::from_secs(1);
    let limited = Grants {
        deadline: allowed,
        ..house.grants()
    };
    let spinning = load(&house, json!({"mode": "spin"}), limited)
        .await
        .unwrap();
    let honest = house.volume_xcom().await;
    let started = Instant::now();
    let spin = async {
        let ended = spinning
            .xcom_backend()
            .unwrap()
            .put(&at("x"), Payload::from("1"))
            .await;
        assert!(matches!(ended, Err(Error::Deadline { .. })), "{ended:?}");
        started.elapsed()
    };
    // One thread: the guest must give way.
    let work = async {
        for _ in 0..5 {
            honest.put(&at("y"), Payload::from("1")).await.unwrap();
        }
        started.elapsed()
    };
    let (spun, worked) = tokio::join!(spin, work);
    assert!(worked < spun, "{worked:?} {spun:?}");
    assert!(spun >= allowed && spun < 3 * allowed, "{spun:?}");
}

#[tokio::test]
async fn host_functions_are_no_way_around_the_limits() {
    let house = House::new();
    let ended = put(&house, json!({"mode": "drip"}), short(&house))
        .await
        .unwrap_err();
    // A gibibyte of random bytes or the deadline, whichever a machine reaches first.
    assert!(
        matches!(ended, Error::Deadline { .. } | Error::Trapped { .. }),
        "{ended}"
    );
}

#[tokio::test]
async fn a_crash_and_a_global_are_forgotten_by_the_next_call() {
    let house = House::new();
    let plugin = load(&house, json!({"mode": "state"}), house.grants())
        .await
        .unwrap();
    let backend = plugin.xcom_backend().unwrap();
    for _ in 0..3 {
        let stored = backend.put(&at("x"), Payload::from("1")).await.unwrap();
        assert_eq!(stored, Stored::InDatabase(json!(1)));
    }
}

#[tokio::test]
async fn many_crashes_leave_room_for_honest_calls() {
    let house = House::new();
    let trapping = load(&house, json!({"mode": "panic"}), house.grants())
        .await
        .unwrap();
    let trapping = trapping.xcom_backend().unwrap();
    for _ in 0..100 {
        let ended = trapping.put(&at("x"), Payload::from("1")).await;
        assert!(matches!(ended, Err(Error::Trapped { .. })));
    }
    house
        .volume_xcom()
        .await
        .put(&at("y"), Payload::from("1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn more_calls_than_the_pool_has_places_wait_for_their_turn() {
    let house = House::new();
    let backend = house.volume_xcom().await;
    let calls = (0..200).map(|n| {
        let backend = backend.clone();
        tokio::spawn(async move {
            backend
                .put(&at(&format!("k{n}")), Payload::from("[1]"))
                .await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn forged_paths_are_refused_before_a_file_is_looked_at() {
    let house = House::new();
    let mut seen = Vec::new();
    for path in [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "a//b",
        "",
        ".",
        "a b",
        "a\0b",
        "größe",
        "a/%tmp-1",
        &"x".repeat(300),
    ] {
        for mode in ["read", "write"] {
            let answer = put(&house, json!({"mode": mode, "path": path}), house.grants()).await;
            let error = answer.unwrap_err();
            assert!(
                matches!(error, Error::Invalid { .. }),
                "{mode} {path:?}: {error}"
            );
            if mode == "read" {
                seen.push(words(&house, &error));
            }
        }
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    evil: invalid: the path "../secret": `.` and `..` are no parts of a path
    evil: invalid: the path "/etc/passwd": a part is empty
    evil: invalid: the path "a/../../secret": `.` and `..` are no parts of a path
    evil: invalid: the path "a//b": a part is empty
    evil: invalid: the path "": a part is empty
    evil: invalid: the path ".": `.` and `..` are no parts of a path
    evil: invalid: the path "a b": a part has characters that must be encoded (object-store.part)
    evil: invalid: the path "a\0b": a part has characters that must be encoded (object-store.part)
    evil: invalid: the path "größe": a part has characters that must be encoded (object-store.part)
    evil: invalid: the path "a/%tmp-1": a part has the mark of an unfinished file
    evil: invalid: the path "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": a part is longer than 255 bytes
    "#);
    assert_eq!(house.files(), "");
}

#[tokio::test]
async fn grants_narrow_what_a_plugin_may_do() {
    let house = House::new();
    std::fs::create_dir_all(house.store()).unwrap();
    std::fs::write(house.store().join("a"), "seen").unwrap();
    let read_only = Grants::default().with_readable_store("loot", house.store());
    let read = put(
        &house,
        json!({"mode": "read", "path": "a"}),
        read_only.clone(),
    )
    .await
    .unwrap();
    assert_eq!(read, Stored::InDatabase(json!(4)));
    let write = put(&house, json!({"mode": "write", "path": "b"}), read_only)
        .await
        .unwrap_err();
    let nothing = put(
        &house,
        json!({"mode": "read", "path": "a"}),
        Grants::default(),
    )
    .await
    .unwrap_err();
    insta::assert_snapshot!(format!("{write}\n{nothing}"), @r#"
    evil: denied: the store may only be read
    evil: denied: no store "loot" was wished for and granted
    "#);
}

#[tokio::test]
async fn a_guest_that_spins_while_it_is_set_up_is_stopped() {
    let house = House::new();
    let error = load(&house, json!({"mode": "spin-in-check"}), short(&house))
        .await
        .err()
        .unwrap();
    insta::assert_snapshot!(words(&house, &error), @"
    plugin evil was stopped in check-settings: it took longer than 300ms
    hint: raise its grant `deadline` if the work is honest
    ");
}

#[tokio::test]
async fn an_answer_of_32_mb_is_taken_or_refused_whole() {
    let house = House::new();
    let plugin = load(&house, json!({"mode": "clock"}), house.grants())
        .await
        .unwrap();
    let stored = Stored::InDatabase(json!(null));
    let value = plugin
        .xcom_backend()
        .unwrap()
        .get(&at("x"), &stored)
        .await
        .unwrap();
    assert_eq!(value.len(), 32 << 20);
    let small = Grants {
        memory_bytes: 16 << 20,
        ..house.grants()
    };
    let plugin = load(&house, json!({"mode": "clock"}), small).await.unwrap();
    let error = plugin
        .xcom_backend()
        .unwrap()
        .get(&at("x"), &stored)
        .await
        .unwrap_err();
    insta::assert_snapshot!(words(&house, &error), @"
    plugin evil crashed in xcom-backend.get: wasm trap: wasm `unreachable` instruction executed
    hint: it asked for more memory than its grant of 16 MiB
    ");
}
