//! The test plays the container: an input is given out once, but a request that is repeated gets its answer again.

use std::{path::Path, time::Duration};

use emulator::{Emulator, Stop};
use modal_api::wire::{self, modal_client_client::ModalClientClient};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::support::{World, config, result, spec, summary, until};

type Stub = ModalClientClient<Channel>;

/// A world whose one container is a process that does nothing, so that its socket is ours.
async fn world() -> (World, Stub) {
    let world = World::new(|spec| {
        spec.env.insert("CONTAINER_MODE".into(), "silent".into());
        spec.min_containers = 1;
    })
    .await;
    let stub = stub(world.folder.path()).await;
    (world, stub)
}

async fn stub(folder: &Path) -> Stub {
    let sockets = || {
        std::fs::read_dir(folder.join("s"))
            .unwrap()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
    };
    until("the container's socket is there", || sockets().count() == 1).await;
    let socket = sockets().next().unwrap();
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    // After a restart the file is there before anybody listens.
    loop {
        match endpoint.connect().await {
            Ok(channel) => return ModalClientClient::new(channel),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn get_inputs(stub: &mut Stub, key: &str, batch: u32) -> Vec<String> {
    let mut request = Request::new(wire::FunctionGetInputsRequest {
        batch_max_size: batch,
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert(wire::IDEMPOTENCY_KEY, key.parse().unwrap());
    let answer = tokio::time::timeout(
        Duration::from_millis(500),
        stub.function_get_inputs(request),
    )
    .await;
    answer.map_or(Vec::new(), |answer| {
        answer
            .unwrap()
            .into_inner()
            .inputs
            .into_iter()
            .map(|item| item.input_id)
            .collect()
    })
}

async fn cancellations(stub: &mut Stub, key: &str) -> Vec<String> {
    let mut request = Request::new(wire::ContainerHeartbeatRequest::default());
    request
        .metadata_mut()
        .insert(wire::IDEMPOTENCY_KEY, key.parse().unwrap());
    let answer = tokio::time::timeout(
        Duration::from_millis(500),
        stub.container_heartbeat(request),
    )
    .await;
    answer.map_or(Vec::new(), |answer| {
        answer
            .unwrap()
            .into_inner()
            .cancel_input_event
            .unwrap_or_default()
            .input_ids
    })
}

async fn put_output(stub: &mut Stub, input_id: &str) {
    let result = wire::GenericResult {
        status: wire::generic_result::GenericStatus::Success.into(),
        ..Default::default()
    };
    let item = wire::FunctionPutOutputsItem {
        input_id: input_id.to_owned(),
        result: Some(result),
        ..Default::default()
    };
    stub.function_put_outputs(wire::FunctionPutOutputsRequest {
        outputs: vec![item],
        requested_at: 0.0,
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_inputs_and_a_new_one_gets_others() {
    let (world, mut stub) = world().await;
    let calls = [
        world.spawn("echo", 1).await,
        world.spawn("echo", 2).await,
        world.spawn("echo", 3).await,
    ];
    let ids = calls.each_ref().map(|call| call.input_id.clone());
    assert_eq!(get_inputs(&mut stub, "a", 1).await, ids[..1]);
    assert_eq!(get_inputs(&mut stub, "a", 1).await, ids[..1]);
    assert_eq!(get_inputs(&mut stub, "b", 9).await, ids[1..]);
    assert_eq!(get_inputs(&mut stub, "c", 9).await, Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn what_runs_is_delivered_again_once_after_a_restart() {
    let (mut world, mut stub) = world().await;
    let call = world.spawn("echo", 1).await;
    assert_eq!(
        get_inputs(&mut stub, "a", 1).await,
        std::slice::from_ref(&call.input_id)
    );
    drop(stub);
    world
        .emulator
        .take()
        .unwrap()
        .stop(Stop::Leave)
        .await
        .unwrap();
    world.emulator = Some(Emulator::start(config(world.folder.path())).await.unwrap());
    let mut stub = self::stub(world.folder.path()).await;
    assert_eq!(
        get_inputs(&mut stub, "b", 1).await,
        std::slice::from_ref(&call.input_id)
    );
    assert_eq!(get_inputs(&mut stub, "c", 1).await, Vec::<String>::new());
    put_output(&mut stub, &call.input_id).await;
    assert_eq!(summary(&result(&world.client, &call).await), "Success 0 ");
    world.end().await;
}

#[tokio::test]
async fn an_output_given_twice_or_for_another_container_changes_nothing() {
    let (world, mut stub) = world().await;
    let calls = [world.spawn("echo", 1).await, world.spawn("echo", 2).await];
    let ids = get_inputs(&mut stub, "a", 1).await;
    put_output(&mut stub, &ids[0]).await;
    let first = result(&world.client, &calls[0]).await;
    put_output(&mut stub, &ids[0]).await;
    put_output(&mut stub, &calls[1].input_id).await;
    put_output(&mut stub, "in-none").await;
    assert_eq!(result(&world.client, &calls[0]).await, first);
    let now = world
        .client
        .outputs(&calls[1].function_call_id, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(now, modal_api::CallStatus::Pending);
    world.end().await;
}

#[tokio::test]
async fn a_cancellation_is_told_once_and_again_to_a_repeated_heartbeat() {
    let (world, mut stub) = world().await;
    let call = world.spawn("echo", 1).await;
    let ids = get_inputs(&mut stub, "a", 1).await;
    world
        .client
        .cancel(&call.function_call_id, false)
        .await
        .unwrap();
    assert_eq!(cancellations(&mut stub, "h1").await, ids);
    assert_eq!(cancellations(&mut stub, "h1").await, ids);
    assert_eq!(cancellations(&mut stub, "h2").await, Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn a_dropped_emulator_can_be_started_again_in_the_same_process() {
    let (mut world, mut stub) = world().await;
    let poll = tokio::spawn(async move { get_inputs(&mut stub, "a", 1).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(world.emulator.take());
    until("the state is free", || {
        let lock = std::fs::File::open(world.folder.path().join("state/lock")).unwrap();
        lock.try_lock().is_ok()
    })
    .await;
    let emulator = Emulator::start(config(world.folder.path())).await.unwrap();
    emulator.deploy(spec(world.folder.path())).await.unwrap();
    world.emulator = Some(emulator);
    poll.await.unwrap();
    world.end().await;
}
