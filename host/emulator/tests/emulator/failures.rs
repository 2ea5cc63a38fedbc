//! Containers that die, hang, or never come up.

use std::time::Duration;

use modal_api::CallStatus;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{World, processes_in, result, summary, until, with_room};

#[tokio::test]
async fn an_exit_in_the_middle_is_told_with_its_code_and_last_lines() {
    let world = World::new(|_| ()).await;
    let result = world.run("exit", 7).await;
    assert_eq!(
        summary(&result),
        "Failure 7 container ta exited with code 7"
    );
    assert!(
        result.traceback.ends_with("last words"),
        "{}",
        result.traceback
    );
    assert_eq!(summary(&world.run("echo", 1).await), "Success 0 ");
    world.end().await;
}

#[tokio::test]
async fn a_container_killed_in_the_middle_fails_what_it_worked_on_and_nothing_else() {
    let world = World::new(|spec| *spec = with_room(spec.clone(), 2)).await;
    let calls = [
        world.spawn("sleep", 60_000).await,
        world.spawn("sleep", 60_001).await,
    ];
    let waiting = world.spawn("echo", 1).await;
    let folder = world.folder.path().to_owned();
    until("the container works", || {
        let inputs = std::fs::read_dir(folder.join("s")).unwrap().count();
        inputs == 1 && processes_in(&folder).len() == 1
    })
    .await;
    // Both run once the third is known to wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        world
            .client
            .outputs(&waiting.function_call_id, Duration::ZERO)
            .await
            .unwrap(),
        CallStatus::Pending
    );
    kill(Pid::from_raw(processes_in(&folder)[0]), Signal::SIGKILL).unwrap();
    for call in calls {
        assert_eq!(
            summary(&result(&world.client, &call).await),
            "Failure 137 container ta was killed by signal 9 (SIGKILL)"
        );
    }
    assert_eq!(
        summary(&result(&world.client, &waiting).await),
        "Success 0 "
    );
    world.end().await;
}

#[tokio::test]
async fn an_input_over_its_time_is_ended_with_its_container() {
    let world = World::new(|spec| spec.timeout = Duration::from_millis(700)).await;
    let child = world.run("child", 0).await.value.unwrap();
    let result = world.run("stubborn", 60_000).await;
    assert_eq!(
        summary(&result),
        "Timeout 0 input in ran for longer than 700ms"
    );
    let folder = world.folder.path().to_owned();
    until("all processes of the container are gone", || {
        processes_in(&folder).is_empty()
    })
    .await;
    let child = i32::try_from(child.as_integer().unwrap()).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(
        stat.is_empty() || stat.contains(") Z "),
        "a child in its own session lives on: {stat}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_neighbour_of_an_input_over_its_time_finishes() {
    let world = World::new(|spec| spec.timeout = Duration::from_millis(1200)).await;
    let late = world.spawn("sleep", 60_000).await;
    world.run("echo", 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let neighbour = world.spawn("stubborn", 1000).await;
    assert_eq!(
        summary(&result(&world.client, &late).await),
        "Timeout 0 input in ran for longer than 1.2s"
    );
    assert_eq!(
        summary(&result(&world.client, &neighbour).await),
        "Success 0 "
    );
    world.end().await;
}

#[tokio::test]
async fn containers_that_crash_at_the_start_fail_what_waits_after_three() {
    let world = World::new(|spec| {
        spec.env.insert("CONTAINER_MODE".into(), "crash".into());
    })
    .await;
    let result = world.run("echo", 1).await;
    assert_eq!(
        summary(&result),
        "InitFailure 3 container ta exited with code 3, 3 times before it asked for inputs"
    );
    assert!(
        result.traceback.ends_with("no module named airplane"),
        "{}",
        result.traceback
    );
    assert_eq!(
        std::fs::read_dir(world.folder.path().join("logs"))
            .unwrap()
            .count(),
        3
    );
    world.end().await;
}

#[tokio::test]
async fn a_container_can_say_why_it_cannot_start() {
    let world = World::new(|spec| {
        spec.env.insert("CONTAINER_MODE".into(), "broken".into());
    })
    .await;
    let result = world.run("echo", 1).await;
    assert_eq!(
        (summary(&result).as_str(), result.traceback.as_str()),
        ("InitFailure 0 ImportError('airplane')", "line 1")
    );
    world.end().await;
}

#[tokio::test]
async fn a_container_that_never_says_hello_is_given_up() {
    let world = World::new(|spec| {
        spec.env.insert("CONTAINER_MODE".into(), "silent".into());
        spec.startup_timeout = Duration::from_millis(300);
    })
    .await;
    let result = world.run("echo", 1).await;
    assert_eq!(
        summary(&result),
        "InitFailure 137 container ta was killed: it did not ask for inputs within 0.3 s, 3 times before it asked for inputs"
    );
    world.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_init_failure() {
    let world = World::new(|spec| spec.command = vec!["/nowhere/program".into()]).await;
    let result = world.run("echo", 1).await;
    assert_eq!(
        summary(&result),
        "InitFailure 127 container ta could not be started: No such file or directory (os error 2), 3 times before it asked for inputs"
    );
    world.end().await;
}
