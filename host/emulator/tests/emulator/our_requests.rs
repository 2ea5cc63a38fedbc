//! What our client asks, beside what Modal's own client asks for the same things: `recorder.py` writes both down with all fields.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use ciborium::cbor;
use modal_api::{
    Client, Code, Creation, Definition, HttpServer, ImageBuild, ImageLayer, Overwrite, Publication,
    Resources, Retries, SandboxSpec, Scaling, Schedule, Upload, Variant, VolumeMount,
    VolumeVersion, pickle,
};
use uuid::Uuid;

use crate::our_client::Served;

const RECORDER: &str = include_str!("recorder.py");
const OFFICIAL: &str = include_str!("official_requests.py");
const COMPARE: &str = include_str!("compare_requests.py");

/// Why what still differs does: schemas describe Python's signatures, which our functions have none of; arguments and results are CBOR
/// alone, since we never execute a pickle; our functions bring their source in a mount of their own, as the official ones do unless told
/// otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_requests_have_the_fields_of_the_official_ones() {
    // Each has a server of its own, since what is there already is not asked for again.
    let (Some(served), Some(other)) = (Served::start().await, Served::start().await) else {
        return;
    };
    for server in [&served, &other] {
        let values = [("A".to_owned(), "b".to_owned())].into();
        let client = server.client();
        client.secret_put("requests", "", values).await.unwrap();
    }
    let folder = served.folder.path().to_owned();
    let recorder = Recorder::start(&served, &folder.join("ours"));
    ask(&served.client_at(&recorder.address)).await;
    recorder.end();

    let recorder = Recorder::start(&other, &folder.join("official"));
    let mut official = other.official(&recorder.address);
    official.args(["-W", "ignore", "-c", OFFICIAL]);
    told(official).await;
    recorder.end();

    let mut compare = Command::new(&served.python);
    compare
        .args(["-c", COMPARE])
        .args([folder.join("ours"), folder.join("official")]);
    insta::assert_snapshot!(told(compare).await, @r#"
    AppCreate: 2 and 2 requests, the same
    AppPublish: 2 and 2 requests, the same
    DictUpdate: 1 and 1 requests, the same
    FunctionBindParams: 1 and 1 requests, the same
    FunctionCallCancel: 1 and 1 requests, the same
    FunctionCreate: 3 and 3 requests
      [1].function.function_schema: ours null, official {"arguments": [{"full_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "name": "payload"}], "return_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "schema_type": "FUNCTION_SCHEMA_V1"}
      [1].function.supported_input_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
      [1].function.supported_output_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
      [2].function.function_schema: ours null, official {"return_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "schema_type": "FUNCTION_SCHEMA_V1"}
      [2].function.supported_input_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
      [2].function.supported_output_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    FunctionMap: 1 and 1 requests, the same
    FunctionPrecreate: 3 and 3 requests
      [1].function_schema: ours null, official {"arguments": [{"full_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "name": "payload"}], "return_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "schema_type": "FUNCTION_SCHEMA_V1"}
      [1].supported_input_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
      [1].supported_output_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
      [2].function_schema: ours null, official {"return_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "schema_type": "FUNCTION_SCHEMA_V1"}
      [2].supported_input_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
      [2].supported_output_formats: ours ["DATA_FORMAT_CBOR"], official ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    ImageGetOrCreate: 2 and 2 requests, the same
    QueuePut: 1 and 1 requests, the same
    SandboxCreate: 1 and 1 requests, the same
    VolumeGetOrCreate: 1 and 1 requests, the same
    VolumePutFiles2: 2 and 2 requests, the same
    "#);
    served.end().await;
    other.end().await;
}

struct Recorder {
    process: Child,
    address: String,
}

impl Recorder {
    fn start(served: &Served, file: &Path) -> Self {
        let mut process = Command::new(&served.python)
            .args(["-c", RECORDER, &served.address])
            .arg(file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        Self {
            process,
            address: format!("127.0.0.1:{}", port.trim()),
        }
    }

    fn end(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What a program prints that must not fail.
async fn told(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{talk}");
    told
}

/// The same as `official_requests.py`.
async fn ask(client: &Client) {
    let environment = client.environment_get("").await.unwrap();
    let volume = client
        .volume_get_or_create("requests", "", Creation::IfMissing, Some(VolumeVersion::V2))
        .await
        .unwrap();
    let secret = client.secret_find("requests", "", &[]).await.unwrap();
    let runtime = client.mount_of_client().await.unwrap();
    let tags = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
    let app_id = client
        .app_create("requests", "", tags.clone())
        .await
        .unwrap();
    let image = image(client, &app_id, &environment.image_builder_version).await;

    let mut run = Definition::new("requests", "run", code("run"), &image);
    run.mount_ids = vec![runtime];
    run.secret_ids = vec![secret.clone()];
    run.volumes = vec![VolumeMount {
        volume_id: volume.volume_id.clone(),
        path: "/vol".to_owned(),
        read_only: false,
    }];
    run.resources = Resources {
        cpu: Some(0.25),
        memory_mib: Some(256),
        memory_limit_mib: Some(512),
        ..Default::default()
    };
    run.timeout = Duration::from_secs(120);
    run.retries = Some(Retries::default());
    let mut tick = run.clone();
    "tick".clone_into(&mut tick.tag);
    tick.code = code("tick");
    tick.startup_timeout = Some(Duration::from_secs(90));
    tick.schedule = Some(Schedule::Cron {
        expression: "0 0 1 1 *".to_owned(),
        timezone: "UTC".to_owned(),
    });
    run.single_use = true;
    run.regions = vec!["us-east".to_owned()];
    run.scaling = Scaling {
        max_containers: Some(2),
        scaledown_window: Some(Duration::from_secs(60)),
        ..Default::default()
    };
    publish(client, "requests", &app_id, vec![run, tick], tags).await;

    let function = client.function_get("requests", "run", "").await.unwrap();
    let variant = Variant {
        resources: Some(Resources {
            memory_mib: Some(2048),
            gpu: Some("a100:2".to_owned()),
            ..Default::default()
        }),
        timeout: Some(Duration::from_secs(77)),
        max_containers: Some(3),
        scaledown_window: Some(Duration::from_secs(30)),
        ..Default::default()
    };
    let bound = client
        .function_bind(&function.function_id, &variant, "")
        .await
        .unwrap();
    let call = client
        .spawn(
            &bound.function_id,
            cbor!([{"a" => 1}]).unwrap(),
            cbor!({}).unwrap(),
            Uuid::new_v4(),
        )
        .await
        .unwrap();
    client.cancel(&call.function_call_id, true).await.unwrap();

    let content = [b"print(1)".to_vec(), vec![0; 100]].concat();
    client
        .volume_put(
            &volume,
            vec![Upload::bytes("dags/x.py", content)],
            Overwrite::Allowed,
        )
        .await
        .unwrap();
    let bytes = |text: &str| Bytes::from(pickle::text(text).unwrap());
    let dict = client
        .dict_get_or_create("requests", "", Creation::IfMissing)
        .await
        .unwrap();
    client
        .dict_put_if_absent(&dict, bytes("k"), bytes("v"))
        .await
        .unwrap();
    let queue = client
        .queue_get_or_create("requests", "", Creation::IfMissing)
        .await
        .unwrap();
    client
        .queue_put(&queue, "", vec![bytes("v")])
        .await
        .unwrap();
    let sandbox = SandboxSpec {
        command: vec!["sleep".to_owned(), "60".to_owned()],
        image_id: image,
        encrypted_ports: vec![8080],
        timeout: Some(Duration::from_secs(60)),
        secret_ids: vec![secret],
        resources: Resources {
            cpu: Some(0.5),
            memory_mib: Some(128),
            ..Default::default()
        },
        ..Default::default()
    };
    // The emulator has none.
    client
        .sandbox_create(&app_id, "", &sandbox)
        .await
        .unwrap_err();

    let app_id = client
        .app_create("direct", "", BTreeMap::new())
        .await
        .unwrap();
    let image = self::image(client, &app_id, &environment.image_builder_version).await;
    let server = Code::Server(HttpServer {
        class: None,
        port: 8080,
        proxy_regions: vec!["us-east".to_owned()],
        startup_timeout: Duration::from_secs(30),
        exit_grace_period: None,
        unauthenticated: true,
    });
    let server = Definition::new("direct", "Server", server, &image);
    publish(client, "direct", &app_id, vec![server], BTreeMap::new()).await;
}

fn code(name: &str) -> Code {
    Code::Python {
        module: "ops_work".to_owned(),
        name: name.to_owned(),
    }
}

async fn image(client: &Client, app_id: &str, builder_version: &str) -> String {
    let build = ImageBuild {
        app_id,
        builder_version,
        force_build: false,
        ignore_cache: false,
    };
    let words = |commands: &[&str]| commands.iter().map(|one| (*one).to_owned()).collect();
    let base = ImageLayer {
        commands: words(&["FROM debian:12-slim"]),
        ..Default::default()
    };
    let base = client.image_build(base, build, &mut |_| ()).await.unwrap();
    let layer = ImageLayer {
        base: Some(&base.image_id),
        commands: words(&["FROM base", "RUN true", "ENV A=b"]),
        ..Default::default()
    };
    let image = client.image_build(layer, build, &mut |_| ()).await.unwrap();
    image.image_id
}

async fn publish(
    client: &Client,
    name: &str,
    app_id: &str,
    definitions: Vec<Definition>,
    tags: BTreeMap<String, String>,
) {
    let mut publication = Publication {
        app_id,
        name,
        tags,
        ..Default::default()
    };
    for definition in definitions {
        let early = client
            .function_precreate(app_id, &definition, None)
            .await
            .unwrap();
        let handle = client
            .function_create(app_id, &definition, Some(&early.function_id))
            .await
            .unwrap();
        publication
            .functions
            .insert(definition.tag, (handle.function_id, handle.definition_id));
    }
    client.app_publish(publication).await.unwrap();
}
