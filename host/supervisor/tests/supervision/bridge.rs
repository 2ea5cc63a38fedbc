//! The worker beside a container runtime that is not ours: this test is the other side of its socket.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::support::{self, House};

/// The other side.
struct Runtime {
    reading: Lines<BufReader<OwnedReadHalf>>,
    writing: OwnedWriteHalf,
}

impl Runtime {
    async fn say(&mut self, word: Value) {
        let line = format!("{word}\n");
        self.writing.write_all(line.as_bytes()).await.unwrap();
    }

    /// The next word of the worker's; what it wants to have committed is.
    async fn hear(&mut self) -> Value {
        loop {
            let line = self.reading.next_line().await.unwrap().unwrap();
            let word: Value = serde_json::from_str(&line).unwrap();
            if word["say"] != "commit" {
                return word;
            }
            self.say(json!({"say": "committed", "id": word["id"], "error": null}))
                .await;
        }
    }
}

/// A fork server may come out of a snapshot that is older than a Secret's values.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_have_the_environment_of_the_container_that_they_run_in() {
    let house = House::without_supervisor();
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let socket = folder.path().join("worker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let config = support::config(&house.api, house.volume.path(), |_| ());
    let worker = tokio::spawn(async move { supervisor::bridge::run(config, &socket).await });
    let (reading, writing) = listener.accept().await.unwrap().0.into_split();
    let mut runtime = Runtime {
        reading: BufReader::new(reading).lines(),
        writing,
    };
    assert_eq!(runtime.hear().await["say"], "warm");

    for (id, secret) in ["first", "second"].into_iter().enumerate() {
        let mut environment: BTreeMap<String, String> = std::env::vars().collect();
        assert!(environment.remove("CARGO_MANIFEST_DIR").is_some());
        environment.insert("TRIAL_SECRET".to_owned(), secret.to_owned());
        // More than a packet of a socket holds.
        environment.insert("TRIAL_LARGE".to_owned(), "x".repeat(300_000));
        environment.insert("MODALFLOW_KEYS".to_owned(), "hush".to_owned());
        runtime
            .say(json!({
                "say": "hello",
                "container": "ta-1",
                "execution_api_url": house.api.url(),
                "environment": environment,
            }))
            .await;
        assert_eq!(runtime.hear().await["say"], "ready");
        let task = house.queue("environment", -1, |_| ());
        runtime
            .say(json!({"say": "run", "id": id, "workload": task.workload_json()}))
            .await;
        let done = runtime.hear().await;
        assert_eq!(done["say"], "done");
        let log = task.log_text();
        let shown = format!("environment: {secret} None None");
        assert!(log.contains(&shown), "{done}\n{log}");
        runtime.say(json!({"say": "rest"})).await;
        assert_eq!(runtime.hear().await["say"], "resting");
    }
    drop(runtime);
    worker.await.unwrap().unwrap();
}
