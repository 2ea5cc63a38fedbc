//! A folder, an emulator in it, a client at its socket.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ciborium::Value;
use emulator::{Config, Emulator, FunctionSpec, Listen, Stop, Tokens};
use modal_api::{
    CallResult, CallStatus, Client, Credentials, FunctionCall,
    wire::modal_client_client::ModalClientClient,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        state_dir: folder.join("state"),
        socket_dir: folder.join("s"),
        listen: Listen {
            unix: Some(folder.join("e.sock")),
            tcp: Some("127.0.0.1:0".parse().unwrap()),
            beyond_loopback: false,
        },
        tokens: None,
        python: None,
    }
}

/// With a token and a Python, at the port of the life before.
pub(crate) fn alone_config(folder: &Path) -> Config {
    let before = std::fs::read_to_string(folder.join("address"));
    let address = before.unwrap_or("127.0.0.1:0".to_owned());
    Config {
        state_dir: folder.join("state"),
        socket_dir: folder.join("s"),
        listen: Listen {
            unix: None,
            tcp: Some(address.parse().unwrap()),
            beyond_loopback: false,
        },
        tokens: Some(Tokens::kept_in(folder).unwrap()),
        python: std::env::var_os("MODALFLOW_TEST_MODAL_PYTHON").map(PathBuf::from),
    }
}

/// A Python with Modal's client, if the test run has one.
pub(crate) fn modal_python() -> Option<String> {
    let python = std::env::var("MODALFLOW_TEST_MODAL_PYTHON").unwrap_or("python3".to_owned());
    let has_modal = std::process::Command::new(&python)
        .args(["-c", "import modal"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_modal {
        println!(
            "skipped: {python} cannot import modal; set MODALFLOW_TEST_MODAL_PYTHON to a Python that can"
        );
        return None;
    }
    Some(python)
}

/// One container that takes ten inputs at once.
pub(crate) fn spec(folder: &Path) -> FunctionSpec {
    let program = std::env::current_exe().unwrap().into_os_string();
    let command = vec![
        program,
        "programs::container_program".into(),
        "--exact".into(),
        "--nocapture".into(),
    ];
    let mut spec = FunctionSpec::new(
        "app",
        "work",
        command,
        folder.to_owned(),
        folder.join("logs"),
    );
    spec.max_containers = 1;
    with_room(spec, 10)
}

pub(crate) fn with_room(mut spec: FunctionSpec, room: usize) -> FunctionSpec {
    spec.max_concurrent_inputs = room;
    spec.env
        .insert("CONTAINER_ROOM".into(), room.to_string().into());
    spec
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) emulator: Option<Emulator>,
    pub(crate) client: Client,
    pub(crate) function_id: String,
}

impl World {
    pub(crate) async fn new(change: impl FnOnce(&mut FunctionSpec)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path());
        change(&mut spec);
        let emulator = Emulator::start(config(folder.path())).await.unwrap();
        let function_id = emulator.deploy(spec).await.unwrap();
        let client = client(folder.path());
        assert_eq!(
            client
                .function_get("app", "work", "")
                .await
                .unwrap()
                .function_id,
            function_id
        );
        Self {
            folder,
            emulator: Some(emulator),
            client,
            function_id,
        }
    }

    pub(crate) async fn spawn(&self, what: &str, value: impl Into<Value>) -> FunctionCall {
        spawn(&self.client, &self.function_id, what, value).await
    }

    pub(crate) async fn run(&self, what: &str, value: impl Into<Value>) -> CallResult {
        let call = self.spawn(what, value).await;
        result(&self.client, &call).await
    }

    pub(crate) async fn stub(&self) -> ModalClientClient<Channel> {
        stub(self.folder.path()).await
    }

    pub(crate) async fn end(mut self) {
        self.emulator
            .take()
            .unwrap()
            .stop(Stop::Terminate {
                grace: Duration::ZERO,
            })
            .await
            .unwrap();
        assert_eq!(
            processes_in(self.folder.path()),
            Vec::<i32>::new(),
            "a process is left"
        );
    }
}

pub(crate) fn client(folder: &Path) -> Client {
    let url = format!("unix://{}", folder.join("e.sock").display());
    Client::connect(url.parse().unwrap(), Credentials::local()).unwrap()
}

/// The bare protocol.
pub(crate) async fn stub(folder: &Path) -> ModalClientClient<Channel> {
    let url = format!("unix://{}", folder.join("e.sock").display());
    ModalClientClient::new(Endpoint::from_shared(url).unwrap().connect().await.unwrap())
}

pub(crate) async fn spawn(
    client: &Client,
    function_id: &str,
    what: &str,
    value: impl Into<Value>,
) -> FunctionCall {
    let args = Value::Array(vec![Value::from(what), value.into()]);
    client
        .spawn(function_id, args, Value::Map(Vec::new()), Uuid::new_v4())
        .await
        .unwrap()
}

pub(crate) async fn result(client: &Client, call: &FunctionCall) -> CallResult {
    match client.outputs(&call.function_call_id, LONG).await.unwrap() {
        CallStatus::Ended(result) => result,
        other => panic!("no result: {other:?}"),
    }
}

/// Status, exit code and exception, with the ids named away.
pub(crate) fn summary(result: &CallResult) -> String {
    let mut words: Vec<_> = result.exception.split(' ').collect();
    for word in &mut words {
        if word.starts_with("ta-") || word.starts_with("in-") || word.starts_with("fc-") {
            *word = &word[..2];
        }
    }
    format!(
        "{:?} {} {}",
        result.status,
        result.exit_code,
        words.join(" ")
    )
}

/// Waits for something that is to come true soon.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "did not come true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Processes whose server is a socket in this folder.
pub(crate) fn processes_in(folder: &Path) -> Vec<i32> {
    let marker = format!("MODAL_SERVER_URL=unix://{}/", folder.display());
    let entries = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    entries
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|part| part.starts_with(marker.as_bytes()))
            })
        })
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
        })
        .collect()
}

pub(crate) fn lines(path: &PathBuf) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
