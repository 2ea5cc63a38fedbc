//! Each operation of our client, in one order, on any server that speaks Modal's API. What they answer is told in lines without ids
//! and times, so that two servers can be held against each other.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use ciborium::Value;
use modal_api::{
    CODE_FOLDER, CallStatus, Client, Code, Creation, Definition, Depth, Error, HttpServer,
    ImageBuild, ImageLayer, MountOwner, Overwrite, Publication, Readiness, Resources, Retries,
    SandboxSpec, Scaling, Schedule, SecretOwner, Upload, Variant, Volume, VolumeMount,
    VolumeVersion, pickle,
};
use uuid::Uuid;

const BLOCK: usize = 8 << 20;
const WAIT: Duration = Duration::from_secs(30);

/// A plain module, as a container imports it.
const MODULE: &str = "
def work(*numbers):
    print('working on', len(numbers))
    return sum(number ** 2 for number in numbers)

def tick():
    return None
";

/// The lines, and the client that they came from.
pub(crate) struct Told {
    client: Client,
    lines: Vec<String>,
}

impl Told {
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// What an operation that should fail says: the kind of the error and its first line.
    fn refused<T>(&mut self, what: &str, answer: Result<T, Error>) {
        match answer {
            Ok(_) => self.say(format!("{what}: accepted")),
            Err(error) => {
                let kind = format!("{error:?}");
                let kind = kind.split([' ', '(', '{']).next().unwrap_or_default();
                self.say(format!("{what}: {kind}"));
            }
        }
    }
}

pub(crate) async fn tell(client: Client) -> Vec<String> {
    let mut told = Told {
        client,
        lines: Vec::new(),
    };
    let client = told.client.clone();
    client.hello().await.unwrap();
    let environment = client.environment_get("").await.unwrap();
    told.say(format!(
        "environment id: {}",
        kind(&environment.environment_id)
    ));
    named(&mut told).await;
    files(&mut told).await;
    let app_id = deploy(&mut told, &environment.image_builder_version).await;
    calls(&mut told).await;
    sandboxes(&mut told, &app_id).await;
    client.app_stop(&app_id).await.unwrap();
    told.refused(
        "a function of a stopped app",
        client.function_get("ops", "work", "").await,
    );
    told.lines
}

/// Secrets, dicts, queues.
async fn named(told: &mut Told) {
    let client = told.client.clone();
    let values = BTreeMap::from([("TOKEN".to_owned(), "s3".to_owned())]);
    let secret = client.secret_put("ops", "", values.clone()).await.unwrap();
    let again = client.secret_put("ops", "", values.clone()).await.unwrap();
    let found = client.secret_find("ops", "", &["TOKEN"]).await.unwrap();
    told.say(format!(
        "secret: {}, kept its id: {}",
        kind(&secret),
        again == found
    ));
    told.refused(
        "secret without a key",
        client.secret_find("ops", "", &["OTHER"]).await,
    );
    told.refused("missing secret", client.secret_find("none", "", &[]).await);
    told.refused(
        "bad name",
        client.secret_put("a b", "", values.clone()).await,
    );
    let unnamed = client
        .secret_unnamed(SecretOwner::Environment(""), values)
        .await
        .unwrap();
    told.say(format!("unnamed secret: {}", kind(&unnamed)));
    let listed = client.secret_list("").await.unwrap();
    told.say(format!(
        "listed: {}",
        listed.iter().any(|one| one.name == "ops")
    ));

    let dict = client
        .dict_get_or_create("ops", "", Creation::IfMissing)
        .await
        .unwrap();
    let bytes = |text: &str| Bytes::from(pickle::text(text).unwrap());
    let entries = vec![(bytes("a"), bytes("1")), (bytes("b"), bytes("2"))];
    client.dict_put(&dict, entries).await.unwrap();
    let first = client.dict_get(&dict, bytes("a")).await.unwrap();
    let absent = client.dict_get(&dict, bytes("z")).await.unwrap();
    told.say(format!(
        "dict: {:?} {absent:?} of {}",
        first.and_then(|value| pickle::as_text(&value)),
        client.dict_len(&dict).await.unwrap()
    ));
    let put = client
        .dict_put_if_absent(&dict, bytes("a"), bytes("9"))
        .await
        .unwrap();
    let fresh = client
        .dict_put_if_absent(&dict, bytes("c"), bytes("3"))
        .await
        .unwrap();
    told.say(format!("put if absent: {put} {fresh}"));
    let popped = client.dict_pop(&dict, bytes("c")).await.unwrap();
    let popped = popped.and_then(|value| pickle::as_text(&value));
    let mut keys: Vec<_> = client
        .dict_entries(&dict)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|(key, _)| pickle::as_text(&key))
        .collect();
    keys.sort();
    told.say(format!(
        "popped {popped:?}, left {keys:?}, has b: {}",
        client.dict_contains(&dict, bytes("b")).await.unwrap()
    ));
    told.refused(
        "missing dict",
        client.dict_get_or_create("none", "", Creation::Never).await,
    );

    let queue = client
        .queue_get_or_create("ops", "", Creation::IfMissing)
        .await
        .unwrap();
    let items = ["x", "y", "z"].map(bytes);
    client.queue_put(&queue, "", items.into()).await.unwrap();
    let peeked = client.queue_peek(&queue, "").await.unwrap();
    let taken = client.queue_get(&queue, "", 2, WAIT).await.unwrap();
    let text = |values: Vec<Bytes>| -> Vec<_> {
        values
            .iter()
            .filter_map(|one| pickle::as_text(one))
            .collect()
    };
    told.say(format!(
        "queue: {:?}, taken {:?}, left {}",
        text(peeked),
        text(taken),
        client.queue_len(&queue, Some("")).await.unwrap()
    ));
}

/// Volumes of both versions.
async fn files(told: &mut Told) {
    let client = told.client.clone();
    let mut large = vec![7_u8; BLOCK + 3];
    large.resize(2 * BLOCK + 100, 0);
    for version in [VolumeVersion::V1, VolumeVersion::V2] {
        let name = format!("ops-{version:?}");
        let volume = client
            .volume_get_or_create(&name, "", Creation::IfMissing, Some(version))
            .await
            .unwrap();
        let uploads = vec![
            Upload::bytes("/dags/a.py", "print(1)"),
            Upload::bytes("large", large.clone()),
            Upload::bytes("empty", ""),
        ];
        client
            .volume_put(&volume, uploads, Overwrite::Allowed)
            .await
            .unwrap();
        told.say(format!(
            "{version:?} {:?}: {}",
            volume.version,
            listing(&client, &volume).await
        ));
        let whole = client.volume_get(&volume, "large").await.unwrap();
        let part = client
            .volume_get_range(&volume, "large", 5, 4)
            .await
            .unwrap();
        let small = client.volume_get(&volume, "dags/a.py").await.unwrap();
        told.say(format!(
            "large as sent: {}, part {part:?}, small {small:?}",
            whole == large
        ));
        told.refused(
            "a second time",
            client
                .volume_put(
                    &volume,
                    vec![Upload::bytes("empty", "x")],
                    Overwrite::Refused,
                )
                .await,
        );
        told.refused("missing file", client.volume_get(&volume, "none").await);
        client
            .volume_remove(&volume, "dags/a.py", Depth::Flat)
            .await
            .unwrap();
        told.say(format!(
            "after removal: {}",
            listing(&client, &volume).await
        ));
    }
    told.refused(
        "missing volume",
        client
            .volume_get_or_create("none", "", Creation::Never, None)
            .await,
    );
}

async fn listing(client: &Client, volume: &Volume) -> String {
    let mut entries: Vec<_> = client
        .volume_files(volume, "", Depth::Recursive)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| format!("{} {:?} {}", entry.path, entry.kind, entry.size))
        // Not every server tells of folders.
        .filter(|entry| !entry.contains(" Directory "))
        .collect();
    entries.sort();
    entries.join(", ")
}

/// An app with all that a function may have.
async fn deploy(told: &mut Told, builder: &str) -> String {
    let client = told.client.clone();
    let before = client.app_find("ops", "").await.unwrap();
    let tags = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
    let app_id = client.app_create("ops", "", tags).await.unwrap();
    let beat = client.app_heartbeats(&app_id);
    told.say(format!("app: {before:?} then {}", kind(&app_id)));

    let uploads = vec![
        Upload::bytes(format!("{CODE_FOLDER}/ops_work.py"), MODULE),
        Upload::bytes("/opt/large", vec![1; 5 << 20]).with_mode(0o755),
    ];
    let mount = client
        .mount_create(uploads, MountOwner::App(&app_id))
        .await
        .unwrap();
    let runtime = client.mount_of_client().await.unwrap();
    told.say(format!("mounts: {} {}", kind(&mount), kind(&runtime)));

    let build = ImageBuild {
        app_id: &app_id,
        builder_version: builder,
        force_build: false,
        ignore_cache: false,
    };
    let base = ImageLayer {
        commands: vec!["FROM debian:12-slim".to_owned()],
        ..Default::default()
    };
    let base = client.image_build(base, build, &mut |_| ()).await.unwrap();
    let layer = ImageLayer {
        base: Some(&base.image_id),
        commands: vec!["FROM base".to_owned(), "COPY /opt/large /large".to_owned()],
        context_mount_id: Some(&mount),
        ..Default::default()
    };
    let image = client.image_build(layer, build, &mut |_| ()).await.unwrap();
    told.say(format!("image: {}", kind(&image.image_id)));

    let secret = client.secret_find("ops", "", &[]).await.unwrap();
    let volume = client
        .volume_get_or_create("ops-V2", "", Creation::Never, None)
        .await
        .unwrap();
    let python = |name: &str| Code::Python {
        module: "ops_work".to_owned(),
        name: name.to_owned(),
    };
    let mut work = Definition::new("ops", "work", python("work"), &image.image_id);
    work.mount_ids = vec![runtime, mount];
    work.secret_ids = vec![secret];
    work.volumes = vec![VolumeMount {
        volume_id: volume.volume_id,
        path: "/vol".to_owned(),
        read_only: false,
    }];
    work.resources = Resources {
        cpu: Some(0.25),
        memory_mib: Some(256),
        ..Default::default()
    };
    work.retries = Some(Retries::default());
    work.single_use = true;
    work.timeout = Duration::from_secs(120);
    work.scaling = Scaling {
        max_containers: Some(2),
        ..Default::default()
    };
    let mut tick = work.clone();
    "tick".clone_into(&mut tick.tag);
    tick.code = python("tick");
    tick.schedule = Some(Schedule::Cron {
        expression: "0 0 1 1 *".to_owned(),
        timezone: "UTC".to_owned(),
    });
    let server = Code::Server(HttpServer {
        class: None,
        port: 8080,
        proxy_regions: vec!["us-east".to_owned()],
        startup_timeout: Duration::from_secs(30),
        exit_grace_period: None,
        unauthenticated: true,
    });
    let api = Definition::new("ops", "Server", server, &image.image_id);

    let mut published = Publication {
        app_id: &app_id,
        name: "ops",
        ..Default::default()
    };
    for definition in [work, tick, api] {
        let early = client
            .function_precreate(&app_id, &definition, None)
            .await
            .unwrap();
        let handle = client
            .function_create(&app_id, &definition, Some(&early.function_id))
            .await
            .unwrap();
        told.say(format!(
            "function {}: {}, kept its id: {}",
            definition.tag,
            kind(&handle.function_id),
            handle.function_id == early.function_id
        ));
        published
            .functions
            .insert(definition.tag, (handle.function_id, handle.definition_id));
    }
    client.app_publish(published).await.unwrap();
    drop(beat);

    let layout = client.app_layout(&app_id).await.unwrap();
    let tags: Vec<_> = layout.functions.keys().cloned().collect();
    told.say(format!(
        "deployed: {}, {tags:?}, versions {}",
        client.app_find("ops", "").await.unwrap().as_deref() == Some(&*app_id),
        client.app_history(&app_id).await.unwrap().len()
    ));
    let listed = client.app_list("").await.unwrap();
    told.say(format!(
        "listed: {}",
        listed.iter().any(|app| app.app_id == app_id)
    ));
    app_id
}

async fn calls(told: &mut Told) {
    let client = told.client.clone();
    let function = client.function_get("ops", "work", "").await.unwrap();
    told.say(format!("takes cbor: {}", function.takes_cbor));
    let small = run(&client, &function.function_id, 3).await;
    told.say(format!("work(0, 1, 2) = {small}"));
    let large = run(&client, &function.function_id, 10_000).await;
    told.say(format!("10,000 numbers through a blob = {large}"));
    let variant = Variant {
        resources: Some(Resources {
            memory_mib: Some(2048),
            gpu: Some("a100:2".to_owned()),
            ..Default::default()
        }),
        timeout: Some(Duration::from_secs(77)),
        ..Default::default()
    };
    let bound = client
        .function_bind(&function.function_id, &variant, "")
        .await
        .unwrap();
    told.say(format!(
        "variant: {}, of its own: {}, gives {}",
        kind(&bound.function_id),
        bound.function_id != function.function_id,
        run(&client, &bound.function_id, 4).await
    ));
    told.refused(
        "missing function",
        client.function_get("ops", "none", "").await,
    );
    told.refused(
        "gpu without a number",
        client
            .function_bind(
                &function.function_id,
                &Variant {
                    resources: Some(Resources {
                        gpu: Some("T4:many".to_owned()),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
                "",
            )
            .await,
    );
}

async fn run(client: &Client, function_id: &str, numbers: i64) -> String {
    let args = Value::Array((0..numbers).map(Value::from).collect());
    let call = client
        .spawn(function_id, args, Value::Map(Vec::new()), Uuid::new_v4())
        .await
        .unwrap();
    match client.outputs(&call.function_call_id, WAIT).await.unwrap() {
        CallStatus::Ended(result) => match result.value {
            Some(Value::Integer(number)) => i128::from(number).to_string(),
            other => format!("{:?} {other:?} {}", result.status, result.exception),
        },
        other => format!("{other:?}"),
    }
}

async fn sandboxes(told: &mut Told, app_id: &str) {
    let client = told.client.clone();
    let spec = SandboxSpec {
        command: vec!["sleep".to_owned(), "60".to_owned()],
        image_id: "im-1".to_owned(),
        encrypted_ports: vec![8080],
        timeout: Some(Duration::from_secs(60)),
        ..Default::default()
    };
    let sandbox = match client.sandbox_create(app_id, "", &spec).await {
        Ok(sandbox) => sandbox,
        refused => {
            told.refused("sandbox", refused);
            return;
        }
    };
    told.say(format!("sandbox: {}", kind(&sandbox)));
    let container = client
        .sandbox_container(&sandbox, Readiness::Started, WAIT)
        .await;
    told.say(format!("container: {}", kind(&container.unwrap())));
    match client.sandbox_tunnels(&sandbox).await {
        Ok(tunnels) => told.say(format!("tunnels: {tunnels:?}")),
        refused => told.refused("tunnels", refused),
    }
    let running = client.sandbox_wait(&sandbox, Duration::ZERO).await.unwrap();
    client.sandbox_terminate(&sandbox).await.unwrap();
    let ended = client.sandbox_wait(&sandbox, WAIT).await.unwrap();
    told.say(format!(
        "runs: {running:?}, ended: {:?}",
        ended.map(|end| end.status)
    ));
}

/// What an id is of.
fn kind(id: &str) -> &str {
    id.split('-').next().unwrap_or_default()
}
