//! How fast it is; run with `--ignored --nocapture measurements`.

use std::time::{Duration, Instant};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use crate::support::{World, result, with_room};

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap())
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measurements_of_spawns_and_of_the_way_there_and_back() {
    let world = World::new(|spec| *spec = with_room(spec.clone(), 100)).await;
    world.run("echo", 0).await;

    let mut times: Vec<Duration> = Vec::new();
    for number in 0..300 {
        let started = Instant::now();
        assert_eq!(world.run("echo", number).await.value, Some(number.into()));
        times.push(started.elapsed());
    }
    times.sort();
    println!(
        "spawn, run, result: p50 {:?}, p95 {:?}",
        times[150], times[285]
    );

    let (started, before) = (Instant::now(), cpu());
    let mut calls = Vec::new();
    for number in 0..1000 {
        calls.push(world.spawn("echo", number).await);
    }
    let (spawned, spent) = (started.elapsed(), cpu() - before);
    println!(
        "1000 spawns one after the other: {spawned:?}; CPU of client and emulator {:?} each",
        spent / 1000
    );
    for call in &calls {
        result(&world.client, call).await;
    }
    println!(
        "all 1000 results: {:?}; CPU of client and emulator {:?} each",
        started.elapsed(),
        (cpu() - before) / 1000
    );
    world.end().await;
}
