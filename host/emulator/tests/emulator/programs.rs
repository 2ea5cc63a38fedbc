//! What this binary does when it is started as a container or as an emulator to be killed. As tests these pass at once.

use std::{path::PathBuf, time::Duration};

use ciborium::Value;
use emulator::Emulator;
use modal_api::container::{Client, Input, Inputs, Outcome};
use tokio::{runtime::Runtime, sync::watch, task::JoinSet};

use crate::support;

#[test]
fn container_program() {
    if std::env::var_os("MODAL_TASK_ID").is_some() {
        Runtime::new().unwrap().block_on(container());
    }
}

#[test]
fn emulator_program() {
    let Some(folder) = std::env::var_os("EMULATOR_FOLDER").map(PathBuf::from) else {
        return;
    };
    Runtime::new().unwrap().block_on(async {
        let emulator = Emulator::start(support::config(&folder)).await.unwrap();
        emulator.deploy(support::spec(&folder)).await.unwrap();
        std::fs::write(folder.join("ready"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

/// An emulator with a port of its own, for Modal's own programs.
#[test]
fn emulator_alone_program() {
    let Some(folder) = std::env::var_os("EMULATOR_ALONE_FOLDER").map(PathBuf::from) else {
        return;
    };
    Runtime::new().unwrap().block_on(async {
        let config = support::alone_config(&folder);
        let emulator = Emulator::start(config).await.unwrap();
        let address = emulator.tcp_address().unwrap().to_string();
        // In one step, so that nobody reads half of it.
        std::fs::write(folder.join("address.new"), address).unwrap();
        std::fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
        std::future::pending::<()>().await;
    });
}

async fn container() {
    let mode = std::env::var("CONTAINER_MODE").unwrap_or_default();
    match mode.as_str() {
        "silent" => std::future::pending().await,
        "crash" => {
            println!("no module named airplane");
            std::process::exit(3);
        }
        _ => {}
    }
    let client = Client::from_env()
        .unwrap()
        .patience(Duration::from_secs(20));
    client.hello().await.unwrap();
    if mode == "broken" {
        client
            .task_failed("ImportError('airplane')".to_owned(), "line 1".to_owned())
            .await
            .unwrap();
        return;
    }
    let (cancelled, _) = watch::channel(String::new());
    let heart = tokio::spawn(heartbeats(client.clone(), cancelled.clone()));
    let room: usize = std::env::var("CONTAINER_ROOM").map_or(1, |room| room.parse().unwrap());
    let mut work = JoinSet::new();
    loop {
        while work.len() >= room {
            work.join_next().await;
        }
        let free = u32::try_from(room - work.len()).unwrap();
        match client.get_inputs(free).await {
            Ok(Inputs::Work(inputs)) => {
                for input in inputs {
                    work.spawn(one(client.clone(), input, cancelled.subscribe()));
                }
            }
            Ok(Inputs::Leave) | Err(_) => break,
        }
        while work.try_join_next().is_some() {}
    }
    work.join_all().await;
    heart.abort();
}

async fn heartbeats(client: Client, cancelled: watch::Sender<String>) {
    while let Ok(ids) = client.heartbeat().await {
        for id in ids {
            cancelled.send_replace(id);
        }
    }
}

async fn one(client: Client, input: Input, mut cancelled: watch::Receiver<String>) {
    let (args, _) = input.arguments().unwrap();
    let [Value::Text(what), value] = <[Value; 2]>::try_from(args).unwrap() else {
        panic!("an action and a value are expected")
    };
    let number = || u64::try_from(value.as_integer().unwrap()).unwrap();
    let outcome = match what.as_str() {
        "echo" => Outcome::Returned(value),
        "pid" => Outcome::Returned(Value::from(std::process::id())),
        "environment" => Outcome::Returned(Value::from(
            std::env::var(value.as_text().unwrap()).unwrap_or("-".to_owned()),
        )),
        "sleep" => tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(number())) => Outcome::Returned(Value::from("slept")),
            _ = cancelled.wait_for(|id| *id == input.input_id) => Outcome::Cancelled,
        },
        "append" => {
            // Leaves a line for each start, to count how often a call ran.
            let (path, pause) = value.as_text().unwrap().rsplit_once(' ').unwrap();
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap();
            writeln!(file, "{}", input.input_id).unwrap();
            tokio::time::sleep(Duration::from_millis(pause.parse().unwrap())).await;
            Outcome::Returned(Value::from("appended"))
        }
        "child" => {
            let child = tokio::process::Command::new("setsid")
                .args(["sleep", "1000"])
                .spawn()
                .unwrap();
            Outcome::Returned(Value::from(child.id().unwrap()))
        }
        "stubborn" => {
            tokio::time::sleep(Duration::from_millis(number())).await;
            Outcome::Returned(Value::from("finished"))
        }
        "print" => {
            println!("{}", value.as_text().unwrap());
            Outcome::Returned(Value::Null)
        }
        "raise" => Outcome::Raised {
            exception: "ValueError('no')".to_owned(),
            traceback: "here".to_owned(),
        },
        "exit" => {
            println!("last words");
            std::process::exit(i32::try_from(number()).unwrap());
        }
        other => panic!("unknown action {other}"),
    };
    let _ = client.put_output(&input, outcome).await;
}
