//! A deployed app changes: a function is left out, the number of containers is set, a version comes back, the emulator starts again.
//! Containers are real ones.

use std::time::{Duration, Instant};

use modal_api::{GenericStatus, wire};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tonic::Request;

use crate::{
    deployed_app::App,
    support::{LONG, processes_in, result},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_left_out_leaves_no_container_and_no_waiting_call() {
    let Some(app) = App::start(&["kept", "dropped"]).await else {
        return;
    };
    let running = app.hold("dropped", "flag").await;
    let waiting = app.spawn("dropped", "").await;
    app.publish(&["kept"]).await;

    let ended = result(&app.client, &waiting).await;
    assert_eq!(
        (ended.status, ended.exception.as_str()),
        (
            GenericStatus::Terminated,
            "its function is no longer part of the app"
        )
    );
    assert_eq!(app.containers().await.len(), 1, "what runs may end");
    app.release("flag");
    let ended = result(&app.client, &running).await;
    assert_eq!(ended.status, GenericStatus::Success);
    app.until_containers(&[]).await;
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_containers_is_set_without_replacing_them() {
    let Some(app) = App::start(&["kept"]).await else {
        return;
    };
    let call = app.spawn("kept", "").await;
    result(&app.client, &call).await;
    let before = app.containers().await;
    let settings = wire::AutoscalerSettings {
        max_containers: Some(1),
        scaledown_window: Some(120),
        ..Default::default()
    };
    app.scale("kept", settings).await;
    let call = app.spawn("kept", "").await;
    result(&app.client, &call).await;
    assert_eq!((before.len(), app.containers().await), (1, before));
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_fewer_containers_are_allowed_the_youngest_leave() {
    let Some(app) = App::start(&["kept"]).await else {
        return;
    };
    let most = |count| wire::AutoscalerSettings {
        max_containers: Some(count),
        scaledown_window: Some(300),
        ..Default::default()
    };
    app.scale("kept", most(2)).await;
    let first = app.hold("kept", "first").await;
    let second = app.hold("kept", "second").await;
    let both = app.containers().await;
    let old = &both[1..];
    app.scale("kept", most(1)).await;
    let third = app.spawn("kept", app.flag("third").to_str().unwrap()).await;
    app.release("third");
    app.release("second");
    // The young one ends what it has and takes nothing more.
    result(&app.client, &second).await;
    app.until_containers(old).await;
    assert!(!app.flag("third").exists());
    app.release("first");
    for call in [&first, &third] {
        let ended = result(&app.client, call).await;
        assert_eq!(ended.status, GenericStatus::Success);
    }
    assert_eq!(app.containers().await, old);

    // Idle ones need not wait for anything.
    app.scale("kept", most(2)).await;
    let calls = [
        app.hold("kept", "fourth").await,
        app.hold("kept", "fifth").await,
    ];
    app.release("fourth");
    app.release("fifth");
    for call in &calls {
        result(&app.client, call).await;
    }
    assert_eq!(app.containers().await.len(), 2);
    app.scale("kept", most(1)).await;
    app.until_containers(old).await;
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_on_its_way_is_told_that_its_function_was_left_out() {
    let module = "import time\ntime.sleep(600)\ndef work(what): ...\n";
    let Some(app) = App::start_with(&["kept", "dropped"], module).await else {
        return;
    };
    app.spawn("dropped", "").await;
    assert_eq!(app.containers().await.len(), 1);
    app.publish(&["kept"]).await;
    app.until_containers(&[]).await;
    let logs = app.logs().await;
    assert!(
        logs.contains("was killed: its function is no longer part of the app"),
        "{logs}"
    );
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_counts_on_the_containers_that_live() {
    let Some(app) = App::start(&["kept"]).await else {
        return;
    };
    let warm = wire::AutoscalerSettings {
        min_containers: Some(1),
        ..Default::default()
    };
    app.scale("kept", warm).await;
    let call = app.spawn("kept", "").await;
    result(&app.client, &call).await;
    let before = app.containers().await;
    // At work, with another call that waits. The runtime of an idle one ends when it asks while nobody is there.
    let running = app.hold("kept", "running").await;
    let waiting = app.spawn("kept", "").await;
    let app = app.restart().await;
    assert_eq!(app.containers().await, before);
    app.release("running");
    for call in [&running, &waiting] {
        let ended = result(&app.client, call).await;
        assert_eq!(ended.status, GenericStatus::Success);
    }
    assert_eq!(app.containers().await, before);
    let logs = app.logs().await;
    assert!(!logs.contains("not watched"), "{logs}");
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_died_with_the_emulator_do_not_count_as_crashes() {
    let Some(app) = App::start(&["kept"]).await else {
        return;
    };
    let three = wire::AutoscalerSettings {
        min_containers: Some(3),
        max_containers: Some(3),
        ..Default::default()
    };
    app.scale("kept", three).await;
    let call = app.spawn("kept", "").await;
    result(&app.client, &call).await;
    let app = app
        .restart_after(|folder| {
            for pid in processes_in(folder) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
        })
        .await;
    // They are started anew, which is given up after three crashes.
    let end = Instant::now() + LONG;
    while app.containers().await.len() < 3 {
        assert!(Instant::now() < end, "they are kept warm no more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let call = app.spawn("kept", "").await;
    let ended = result(&app.client, &call).await;
    assert_eq!(ended.status, GenericStatus::Success, "{}", ended.exception);
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_to_end_after_its_work_does_so_after_a_restart() {
    let Some(app) = App::start(&["kept"]).await else {
        return;
    };
    let running = app.hold("kept", "running").await;
    let before = app.containers().await;
    let request = wire::ContainerStopRequest {
        task_id: before[0].clone(),
        graceful: true,
    };
    app.stub().await.container_stop(request).await.unwrap();
    let app = app.restart().await;
    let waiting = app.spawn("kept", "").await;
    app.release("running");
    for call in [&running, &waiting] {
        let ended = result(&app.client, call).await;
        assert_eq!(ended.status, GenericStatus::Success);
    }
    let after = app.containers().await;
    assert!(!after.contains(&before[0]), "it has taken the next call");
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_rollback_goes_back_once() {
    let Some(app) = App::start(&["one"]).await else {
        return;
    };
    app.publish(&["one"]).await;
    let mut stub = app.stub().await;
    for _ in 0..2 {
        let mut back = Request::new(wire::AppRollbackRequest {
            app_id: app.app_id.clone(),
            version: -1,
        });
        let mut over = Request::new(wire::AppRolloverRequest {
            app_id: app.app_id.clone(),
        });
        let key = |text: &'static str| text.parse().unwrap();
        back.metadata_mut()
            .insert(wire::IDEMPOTENCY_KEY, key("back"));
        over.metadata_mut()
            .insert(wire::IDEMPOTENCY_KEY, key("over"));
        let told = stub.app_rollback(back).await.unwrap().into_inner();
        assert!(told.deployed_at > 0.0);
        stub.app_rollover(over).await.unwrap();
    }
    let request = wire::AppDeploymentHistoryRequest {
        app_id: app.app_id.clone(),
    };
    let history = stub.app_deployment_history(request).await.unwrap();
    let history = history.into_inner().app_deployment_histories;
    let versions: Vec<_> = history
        .iter()
        .map(|one| (one.version, one.rollback_version))
        .collect();
    assert_eq!(versions, [(4, 0), (3, 1), (2, 0), (1, 0)]);

    let staged = wire::AppPublishRequest {
        app_id: app.app_id.clone(),
        staged: true,
        ..Default::default()
    };
    let refusal = stub.app_publish(staged).await.unwrap_err();
    assert_eq!(
        refusal.message(),
        "staged deployments are not there: this is modalflow's emulator"
    );
    app.end().await;
}
