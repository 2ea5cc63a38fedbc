//! Calls that go well, and their being cancelled.

use std::time::{Duration, Instant};

use ciborium::{Value, cbor};
use emulator::{Config, Emulator, Error, Listen};
use modal_api::{
    CallStatus, GenericStatus,
    wire::{self, FunctionCallInvocationType},
};
use tonic::Code;
use uuid::Uuid;

use crate::support::{World, config, processes_in, result, spawn, summary, until, with_room};

#[tokio::test]
async fn a_call_brings_its_value_back() {
    let world = World::new(|_| ()).await;
    let value = cbor!({"a" => [1, "ü", null]}).unwrap();
    let result = world.run("echo", value.clone()).await;
    assert_eq!(
        (result.status, result.value.as_ref()),
        (GenericStatus::Success, Some(&value))
    );
    assert!(result.started_at <= result.ended_at && result.started_at.is_some());
    assert!(result.container_id.is_some());
    world.end().await;
}

#[tokio::test]
async fn an_exception_is_a_result() {
    let world = World::new(|_| ()).await;
    let result = world.run("raise", 0).await;
    assert_eq!(
        (summary(&result).as_str(), result.traceback.as_str()),
        ("Failure 0 ValueError('no')", "here")
    );
    world.end().await;
}

#[tokio::test]
async fn two_hundred_calls_run_in_parallel_in_their_containers() {
    let world = World::new(|spec| {
        spec.max_containers = 4;
        *spec = with_room(spec.clone(), 50);
    })
    .await;
    let started = Instant::now();
    let mut calls = Vec::new();
    for number in 0..200 {
        calls.push(
            world
                .spawn(if number % 2 == 0 { "echo" } else { "sleep" }, number)
                .await,
        );
    }
    let spawned = started.elapsed();
    for (number, call) in (0_u32..).zip(&calls) {
        let value = result(&world.client, call).await.value;
        let expected = if number % 2 == 0 {
            Value::from(number)
        } else {
            Value::from("slept")
        };
        assert_eq!(value, Some(expected));
    }
    assert!(processes_in(world.folder.path()).len() <= 4);
    assert!(
        spawned < Duration::from_secs(2),
        "200 calls took {spawned:?} to make"
    );
    world.end().await;
}

#[tokio::test]
async fn a_container_knows_its_place_and_no_token() {
    let world = World::new(|spec| {
        spec.env.insert("MODAL_TOKEN_ID".into(), "ak-secret".into());
        spec.env.insert("SETTING".into(), "on".into());
    })
    .await;
    let mut found = Vec::new();
    for name in [
        "MODAL_TOKEN_ID",
        "SETTING",
        "MODAL_IS_REMOTE",
        "MODAL_ENVIRONMENT",
        "CARGO_MANIFEST_DIR",
    ] {
        found.push(world.run("environment", name).await.value.unwrap());
    }
    assert_eq!(found, ["-", "on", "1", "main", "-"].map(Value::from));
    let server = world
        .run("environment", "MODAL_SERVER_URL")
        .await
        .value
        .unwrap();
    assert!(server.as_text().unwrap().starts_with(&format!(
        "unix://{}",
        world.folder.path().join("s").display()
    )));
    world.end().await;
}

#[tokio::test]
async fn the_same_key_is_the_same_call() {
    let world = World::new(|_| ()).await;
    let key = Uuid::new_v4();
    let args = || cbor!(["echo", 1]).unwrap();
    let map = || Value::Map(Vec::new());
    let one = world
        .client
        .spawn(&world.function_id, args(), map(), key)
        .await
        .unwrap();
    let again = world
        .client
        .spawn(&world.function_id, args(), map(), key)
        .await
        .unwrap();
    let other = world
        .client
        .spawn(&world.function_id, args(), map(), Uuid::new_v4())
        .await
        .unwrap();
    assert_eq!(one, again);
    assert_ne!(one.function_call_id, other.function_call_id);
    world.end().await;
}

#[tokio::test]
async fn a_large_payload_goes_through_a_blob_where_there_is_one() {
    let world = World::new(|_| ()).await;
    let long = "x".repeat(9000);
    let result = world.run("echo", long.clone()).await;
    assert_eq!(result.value, Some(Value::from(long.clone())));

    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::support::config(folder.path());
    config.listen.tcp = None;
    let emulator = emulator::Emulator::start(config).await.unwrap();
    let function_id = emulator
        .deploy(crate::support::spec(folder.path()))
        .await
        .unwrap();
    let args = Value::Array(vec![Value::from(long)]);
    let error = crate::support::client(folder.path())
        .spawn(&function_id, args, Value::Map(Vec::new()), Uuid::new_v4())
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @r#"
    the arguments take 9006 bytes, 8192 are allowed in a call
    hint: store the value and pass a reference
    "#);
    let grace = Duration::ZERO;
    emulator
        .stop(emulator::Stop::Terminate { grace })
        .await
        .unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_large_payload_inside_of_a_message_is_refused() {
    let world = World::new(|_| ()).await;
    for (kind, size, code) in [
        (FunctionCallInvocationType::Async, 8192, Code::Ok),
        (
            FunctionCallInvocationType::Async,
            8193,
            Code::InvalidArgument,
        ),
        (FunctionCallInvocationType::Sync, 2 << 20, Code::Ok),
        (
            FunctionCallInvocationType::Sync,
            (2 << 20) + 1,
            Code::InvalidArgument,
        ),
    ] {
        let request = wire::FunctionMapRequest {
            function_id: world.function_id.clone(),
            function_call_type: wire::FunctionCallType::Unary.into(),
            function_call_invocation_type: kind.into(),
            pipelined_inputs: vec![item(0, vec![0x80; size])],
            ..Default::default()
        };
        let answer = world.stub().await.function_map(request).await;
        assert_eq!(
            answer.map_or_else(|status| status.code(), |_| Code::Ok),
            code,
            "{kind:?} {size}"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let world = World::new(|_| ()).await;
    let error = world
        .client
        .function_get("app", "other", "")
        .await
        .unwrap_err();
    insta::assert_snapshot!(error, @r#"
    no function 'app.other': function 'other' of app 'app' not found in environment 'main'
    hint: the app is not deployed there, or was stopped: deploy it, or check its name with `modal app list`
    "#);
    let error = world.client.cancel("fc-none", false).await.unwrap_err();
    insta::assert_snapshot!(error, @r#"not found: function call fc-none not found"#);
    assert_eq!(
        world
            .client
            .outputs("fc-none", Duration::ZERO)
            .await
            .unwrap(),
        CallStatus::Expired
    );
    world.end().await;
}

#[tokio::test]
async fn polling_without_a_timeout_does_not_wait() {
    let world = World::new(|_| ()).await;
    let call = world.spawn("sleep", 60_000).await;
    let started = Instant::now();
    assert_eq!(
        world
            .client
            .outputs(&call.function_call_id, Duration::ZERO)
            .await
            .unwrap(),
        CallStatus::Pending
    );
    assert!(started.elapsed() < Duration::from_secs(1));
    world.end().await;
}

#[tokio::test]
async fn a_waiting_call_is_cancelled_at_once() {
    let world = World::new(|spec| *spec = with_room(spec.clone(), 1)).await;
    let running = world.spawn("sleep", 60_000).await;
    let waiting = world.spawn("echo", 1).await;
    world
        .client
        .cancel(&waiting.function_call_id, false)
        .await
        .unwrap();
    assert_eq!(
        summary(&result(&world.client, &waiting).await),
        "Terminated 0 the call was cancelled"
    );
    assert_eq!(
        world
            .client
            .outputs(&running.function_call_id, Duration::ZERO)
            .await
            .unwrap(),
        CallStatus::Pending
    );
    world.end().await;
}

#[tokio::test]
async fn a_running_call_hears_of_its_cancellation_and_its_neighbour_runs_on() {
    let world = World::new(|_| ()).await;
    let neighbour = world.spawn("sleep", 1500).await;
    let call = world.spawn("sleep", 60_000).await;
    world.run("echo", 1).await;
    world
        .client
        .cancel(&call.function_call_id, false)
        .await
        .unwrap();
    assert_eq!(
        summary(&result(&world.client, &call).await),
        "Terminated 0 InputCancellation('Input was cancelled')"
    );
    assert_eq!(
        result(&world.client, &neighbour).await.value,
        Some(Value::from("slept"))
    );
    world.end().await;
}

#[tokio::test]
async fn a_call_cancelled_with_its_container_takes_no_neighbour_along() {
    let world = World::new(|_| ()).await;
    let call = world.spawn("stubborn", 60_000).await;
    let neighbour = world.spawn("sleep", 300).await;
    let before = world.run("pid", 0).await.value;
    world
        .client
        .cancel(&call.function_call_id, true)
        .await
        .unwrap();
    assert_eq!(
        summary(&result(&world.client, &call).await),
        "Terminated 0 the call was cancelled"
    );
    assert_eq!(
        result(&world.client, &neighbour).await.value,
        Some(Value::from("slept"))
    );
    assert_ne!(world.run("pid", 0).await.value, before);
    world.end().await;
}

#[tokio::test]
async fn an_idle_container_leaves_and_the_next_call_gets_another() {
    let world = World::new(|spec| spec.scaledown_window = Duration::from_millis(200)).await;
    let before = world.run("pid", 0).await.value;
    let folder = world.folder.path().to_owned();
    until("the container leaves", || processes_in(&folder).is_empty()).await;
    assert_ne!(world.run("pid", 0).await.value, before);
    world.end().await;
}

#[tokio::test]
async fn a_warm_container_waits_for_the_first_call() {
    let world = World::new(|spec| {
        spec.min_containers = 1;
        spec.scaledown_window = Duration::from_millis(50);
    })
    .await;
    let folder = world.folder.path().to_owned();
    until("a container is up", || processes_in(&folder).len() == 1).await;
    let before = world.run("pid", 0).await.value;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.run("pid", 0).await.value, before);
    world.end().await;
}

#[tokio::test]
async fn a_new_deployment_replaces_containers_after_their_work() {
    let world = World::new(|_| ()).await;
    let call = world.spawn("sleep", 500).await;
    let before = world.run("pid", 0).await.value;
    let mut spec = crate::support::spec(world.folder.path());
    spec.env.insert("SETTING".into(), "new".into());
    let function_id = world.emulator.as_ref().unwrap().deploy(spec).await.unwrap();
    assert_eq!(function_id, world.function_id);
    assert_eq!(
        world.run("environment", "SETTING").await.value,
        Some(Value::from("new"))
    );
    assert_ne!(world.run("pid", 0).await.value, before);
    assert_eq!(
        result(&world.client, &call).await.value,
        Some(Value::from("slept"))
    );
    world.end().await;
}

#[tokio::test]
async fn output_goes_to_a_log_file() {
    let world = World::new(|_| ()).await;
    let result = world.run("print", "hello from inside").await;
    let log = world
        .folder
        .path()
        .join("logs")
        .join(format!("{}.log", result.container_id.unwrap()));
    assert!(
        std::fs::read_to_string(log)
            .unwrap()
            .contains("hello from inside")
    );
    world.end().await;
}

#[tokio::test]
async fn http_on_loopback_is_served_too() {
    let world = World::new(|_| ()).await;
    let address = world.emulator.as_ref().unwrap().tcp_address().unwrap();
    let client = modal_api::Client::connect(
        format!("http://{address}").parse().unwrap(),
        modal_api::Credentials::local(),
    )
    .unwrap();
    client.hello().await.unwrap();
    let call = spawn(&client, &world.function_id, "echo", 5).await;
    assert_eq!(result(&client, &call).await.value, Some(Value::from(5)));
    world.end().await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path());
    let first = Emulator::start(good.clone()).await.unwrap();
    let long = folder.path().join("x".repeat(100));
    let cases = [
        good.clone(),
        Config {
            listen: Listen::default(),
            ..good.clone()
        },
        Config {
            listen: Listen {
                unix: None,
                tcp: Some("0.0.0.0:0".parse().unwrap()),
                beyond_loopback: false,
            },
            ..good.clone()
        },
        Config {
            socket_dir: long,
            ..good
        },
    ];
    let mut told = Vec::new();
    for case in cases {
        let error: Error = Emulator::start(case).await.unwrap_err();
        told.push(
            error
                .to_string()
                .replace(&folder.path().display().to_string(), "FOLDER")
                .replace(&"x".repeat(100), "LONG"),
        );
    }
    drop(first);
    // The socket's own name is random.
    let told = told
        .join("\n")
        .split(' ')
        .map(|word| {
            if word.contains("/LONG/") {
                "FOLDER/LONG/SOCKET"
            } else {
                word
            }
        })
        .collect::<Vec<_>>()
        .join(" ");
    insta::assert_snapshot!(told, @r#"
    another emulator works on FOLDER/state
    hint: stop the other process, or use another state directory
    nothing to listen on
    hint: name a unix socket or a TCP address
    listening on 0.0.0.0:0 is refused: everybody could run code here
    hint: listen on 127.0.0.1
    socket path FOLDER/LONG/SOCKET has 129 bytes, 107 are allowed
    hint: set a shorter socket directory
    "#);
}

fn item(idx: i32, args: Vec<u8>) -> wire::FunctionPutInputsItem {
    let args_oneof = Some(wire::function_input::ArgsOneof::Args(args.into()));
    let input = wire::FunctionInput {
        args_oneof,
        data_format: wire::DataFormat::Cbor.into(),
        ..Default::default()
    };
    wire::FunctionPutInputsItem {
        idx,
        input: Some(input),
    }
}

#[tokio::test]
async fn a_map_call_takes_inputs_later_and_its_outputs_come_page_by_page() {
    let world = World::new(|_| ()).await;
    let mut stub = world.stub().await;
    let request = wire::FunctionMapRequest {
        function_id: world.function_id.clone(),
        function_call_type: wire::FunctionCallType::Map.into(),
        function_call_invocation_type: FunctionCallInvocationType::Async.into(),
        ..Default::default()
    };
    let call = stub.function_map(request).await.unwrap().into_inner();
    let mut ask = wire::FunctionGetOutputsRequest {
        function_call_id: call.function_call_id.clone(),
        max_values: 2,
        ..Default::default()
    };
    let empty = stub
        .function_get_outputs(ask.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (empty.outputs.len(), empty.num_unfinished_inputs),
        (0, 1),
        "it is not over before it has begun"
    );

    let payload = |number: i32| {
        modal_api::encode_arguments(cbor!(["echo", number]).unwrap(), cbor!({}).unwrap()).unwrap()
    };
    let request = wire::FunctionPutInputsRequest {
        function_id: world.function_id.clone(),
        function_call_id: call.function_call_id.clone(),
        inputs: (0..5).map(|number| item(number, payload(number))).collect(),
    };
    stub.function_put_inputs(request).await.unwrap();
    ask.timeout = 20.0;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let page = stub
            .function_get_outputs(ask.clone())
            .await
            .unwrap()
            .into_inner();
        assert!((1..=2).contains(&page.outputs.len()));
        ask.last_entry_id = page.last_entry_id;
        seen.extend(page.idxs);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    world.end().await;
}

#[tokio::test]
async fn a_fetch_tells_of_all_calls_at_once() {
    let world = World::new(|_| ()).await;
    world.run("echo", 1).await;
    world.run("raise", 1).await;
    let running = world.spawn("sleep", 60_000).await;
    world.run("pid", 1).await;
    let tail = wire::function_call_fetch_request::QueryOneof::Tail(
        wire::function_call_fetch_request::Tail { count: 3 },
    );
    let request = wire::FunctionCallFetchRequest {
        function_id: world.function_id.clone(),
        query_oneof: Some(tail),
        all_variants: true,
    };
    let found = world
        .stub()
        .await
        .function_call_fetch(request)
        .await
        .unwrap()
        .into_inner()
        .function_call_inputs;
    let statuses: Vec<_> = found
        .iter()
        .map(|info| format!("{:?}", info.status()))
        .collect();
    assert_eq!(statuses, ["Failure", "Running", "Success"]);
    assert_eq!(found[1].function_call_id, running.function_call_id);
    world.end().await;
}
