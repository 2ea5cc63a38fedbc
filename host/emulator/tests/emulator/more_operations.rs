//! Operations of our client that not every server has: bulk answers, logs, cancellation, and the end of all that has a name.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use ciborium::Value;
use modal_api::{
    CODE_FOLDER, CallStatus, Client, Code, Creation, Definition, Depth, FetchedStatus, Follow,
    ImageBuild, ImageLayer, Latest, LogFilter, MountOwner, Overwrite, Publication, Upload,
    VolumeVersion,
};
use uuid::Uuid;

use crate::our_client::Served;

const WAIT: Duration = Duration::from_secs(60);
const MODULE: &str = "
import time

def work(what):
    print('told', what, flush=True)
    if what == 'wait':
        time.sleep(600)
    return what
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_followed_cancelled_and_answered_in_bulk() {
    let Some(served) = Served::start().await else {
        return;
    };
    let client = served.client();
    let (app_id, function_id) = deploy(&client).await;
    let spawn = async |what: &str| {
        let args = Value::Array(vec![Value::from(what)]);
        let kwargs = Value::Map(Vec::new());
        let call = client
            .spawn(&function_id, args, kwargs, Uuid::new_v4())
            .await;
        call.unwrap().function_call_id
    };
    let ends = async |call: &str| match client.outputs(call, WAIT).await.unwrap() {
        CallStatus::Ended(result) => format!("{:?}", result.status),
        other => format!("{other:?}"),
    };
    let first = spawn("first").await;
    let first_end = ends(&first).await;
    let waiting = spawn("wait").await;

    // Follows until the second call speaks, which is when it runs.
    let mut heard = Vec::new();
    client
        .logs_follow(&app_id, LogFilter::default(), &mut |piece| {
            let last = piece.text.contains("wait");
            if piece.text.starts_with("told") {
                heard.push(piece.text.trim().to_owned());
            }
            if last { Follow::Stop } else { Follow::On }
        })
        .await
        .unwrap();
    let states = async || {
        let calls = client.calls_fetch(&function_id, Latest::Count(10)).await;
        let mut states: Vec<_> = calls
            .unwrap()
            .into_iter()
            .map(|call| (call.function_call_id == first, call.status))
            .collect();
        states.sort_by_key(|(is_first, _)| !is_first);
        states
    };
    assert_eq!(
        states().await,
        [
            (true, FetchedStatus::Success),
            (false, FetchedStatus::Running)
        ]
    );
    let containers = client.container_list(&app_id, "").await.unwrap();
    assert!(!containers.is_empty() && containers.iter().all(|(id, _)| id.starts_with("ta-")));
    client.cancel(&waiting, true).await.unwrap();
    let second_end = ends(&waiting).await;
    assert_eq!(
        states().await,
        [
            (true, FetchedStatus::Success),
            (false, FetchedStatus::Terminated)
        ]
    );
    let now = Utc::now();
    let filter = LogFilter {
        function_call_id: &first,
        ..Default::default()
    };
    let past = client
        .logs_fetch(&app_id, filter, now - TimeDelta::hours(1), now, 100)
        .await
        .unwrap();
    let past: Vec<_> = past.iter().map(|piece| piece.text.trim()).collect();
    let span = Latest::Since {
        since: now - TimeDelta::hours(1),
        until: now,
        most: 1,
    };
    let newest = client.calls_fetch(&function_id, span).await.unwrap();
    insta::assert_snapshot!(
        format!("{heard:?} {first_end} {second_end} {past:?} {}", newest.len()), @r#"["told first", "told wait"] Success Terminated ["told first"] 1"#
    );
    let abandoned = client
        .app_create("given-up", "", BTreeMap::new())
        .await
        .unwrap();
    client.app_abandon(&abandoned, "no reason").await.unwrap();
    assert_eq!(client.app_find("given-up", "").await.unwrap(), None);
    client.app_stop(&app_id).await.unwrap();
    served.end().await;
}

/// An app with one function, deployed twice: its ids stay.
async fn deploy(client: &Client) -> (String, String) {
    let builder = client
        .environment_get("")
        .await
        .unwrap()
        .image_builder_version;
    let app_id = client
        .app_create("follow", "", BTreeMap::new())
        .await
        .unwrap();
    let build = ImageBuild {
        app_id: &app_id,
        builder_version: &builder,
        force_build: false,
        ignore_cache: false,
    };
    let layer = ImageLayer {
        commands: vec!["FROM debian:12-slim".to_owned()],
        ..Default::default()
    };
    let image = client
        .image_build(layer.clone(), build, &mut |_| ())
        .await
        .unwrap();
    assert!(!image.was_there);
    assert!(
        client
            .image_build(layer, build, &mut |_| ())
            .await
            .unwrap()
            .was_there
    );
    let source = vec![Upload::bytes(
        format!("{CODE_FOLDER}/follow_work.py"),
        MODULE,
    )];
    let source = client
        .mount_create(source, MountOwner::App(&app_id))
        .await
        .unwrap();
    let code = Code::Python {
        module: "follow_work".to_owned(),
        name: "work".to_owned(),
    };
    let mut definition = Definition::new("follow", "work", code, &image.image_id);
    definition.mount_ids = vec![client.mount_of_client().await.unwrap(), source];
    let mut existing: Option<String> = None;
    for _ in 0..2 {
        let early = client
            .function_precreate(&app_id, &definition, existing.as_deref())
            .await
            .unwrap();
        let handle = client
            .function_create(&app_id, &definition, Some(&early.function_id))
            .await
            .unwrap();
        assert!(existing.is_none_or(|id| id == handle.function_id));
        existing = Some(handle.function_id.clone());
        let publication = Publication {
            app_id: &app_id,
            name: "follow",
            functions: [(
                "work".to_owned(),
                (handle.function_id, handle.definition_id),
            )]
            .into(),
            ..Default::default()
        };
        client.app_publish(publication).await.unwrap();
        let layout = client.app_layout(&app_id).await.unwrap();
        assert_eq!(
            Some(&layout.functions["work"].function_id),
            existing.as_ref()
        );
    }
    (app_id, existing.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_name_is_changed_and_deleted() {
    let Some(served) = Served::start().await else {
        return;
    };
    let client = served.client();
    assert_eq!(client.environment_list().await.unwrap(), ["main"]);
    assert_eq!(client.token_info().await.unwrap().workspace, "local");

    let values = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    let secret = client
        .secret_create(
            "named",
            "",
            values(&[("A", "1"), ("B", "2")]),
            Creation::New,
        )
        .await
        .unwrap();
    let again = client
        .secret_create("named", "", values(&[]), Creation::New)
        .await;
    assert!(matches!(again, Err(modal_api::Error::AlreadyExists(_))));
    let changes = [
        ("A".to_owned(), None),
        ("C".to_owned(), Some("3".to_owned())),
    ];
    client.secret_update(&secret, changes.into()).await.unwrap();
    assert_eq!(client.secret_keys(&secret).await.unwrap(), ["B", "C"]);
    client.secret_delete(&secret).await.unwrap();
    assert!(client.secret_list("").await.unwrap().is_empty());

    let volume = client
        .volume_get_or_create("named", "", Creation::IfMissing, Some(VolumeVersion::V2))
        .await
        .unwrap();
    let upload = Upload::bytes("a/x", "x");
    client
        .volume_put(&volume, vec![upload], Overwrite::Allowed)
        .await
        .unwrap();
    client
        .volume_copy(&volume, &["a/x"], "b/", Depth::Flat)
        .await
        .unwrap();
    assert_eq!(&client.volume_get(&volume, "b/x").await.unwrap()[..], b"x");
    let below_a_file = client
        .volume_copy(&volume, &["a/x"], "b/x/y", Depth::Flat)
        .await;
    insta::assert_snapshot!(
        below_a_file.unwrap_err(),
        @"invalid request: 'b/x' is a file, no directory"
    );
    let below_a_file = vec![Upload::bytes("b/x/y/z", "z")];
    let below_a_file = client
        .volume_put(&volume, below_a_file, Overwrite::Allowed)
        .await;
    insta::assert_snapshot!(
        below_a_file.unwrap_err(),
        @"invalid request: 'b/x' is a file, no directory"
    );
    client
        .volume_rename(&volume.volume_id, "renamed")
        .await
        .unwrap();
    let listed = client.volume_list("").await.unwrap();
    assert_eq!(
        (&*listed[0].name, listed[0].version),
        ("renamed", VolumeVersion::V2)
    );
    client.volume_delete(&volume.volume_id).await.unwrap();
    assert!(client.volume_list("").await.unwrap().is_empty());

    let dict = client
        .dict_get_or_create("named", "", Creation::IfMissing)
        .await
        .unwrap();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    client
        .dict_put(&dict, vec![(bytes("k"), bytes("v"))])
        .await
        .unwrap();
    client.dict_clear(&dict).await.unwrap();
    assert_eq!(client.dict_len(&dict).await.unwrap(), 0);
    assert_eq!(client.dict_list("").await.unwrap()[0].name, "named");
    client.dict_delete(&dict).await.unwrap();
    assert!(client.dict_list("").await.unwrap().is_empty());

    let queue = client
        .queue_get_or_create("named", "", Creation::IfMissing)
        .await
        .unwrap();
    client
        .queue_put(&queue, "p", vec![bytes("v")])
        .await
        .unwrap();
    assert_eq!(client.queue_len(&queue, None).await.unwrap(), 1);
    client.queue_clear(&queue, None).await.unwrap();
    assert_eq!(client.queue_len(&queue, Some("p")).await.unwrap(), 0);
    assert_eq!(client.queue_list("").await.unwrap()[0].name, "named");
    client.queue_delete(&queue).await.unwrap();
    assert!(client.queue_list("").await.unwrap().is_empty());

    let app = client.app_get_or_create("named", "").await.unwrap();
    assert_eq!(client.app_find("named", "").await.unwrap(), Some(app));
    served.end().await;
}
