//! Our client against servers, and its requests beside those of Modal's own client.

use std::{path::Path, process::Command};

use bytes::Bytes;
use emulator::{Emulator, Stop, Tokens};
use modal_api::{
    Client, Config, Creation, Credentials, Depth, Error, ImageBuild, ImageLayer, Overwrite, Upload,
    VolumeVersion, pickle,
};
use tempfile::TempDir;

use crate::{
    operations,
    support::{alone_config, modal_python, processes_in},
};

/// An emulator with a port and a token, and our client with that token.
pub(crate) struct Served {
    pub(crate) folder: TempDir,
    emulator: Emulator,
    pub(crate) address: String,
    pub(crate) python: String,
}

impl Served {
    pub(crate) async fn start() -> Option<Self> {
        let python = modal_python()?;
        let folder = tempfile::tempdir().unwrap();
        let mut config = alone_config(folder.path());
        config.python = Some(python.clone().into());
        let emulator = Emulator::start(config).await.unwrap();
        Some(Self {
            address: emulator.tcp_address().unwrap().to_string(),
            folder,
            emulator,
            python,
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client_at(&self.address)
    }

    /// Over something that stands between.
    pub(crate) fn client_at(&self, address: &str) -> Client {
        let tokens = Tokens::kept_in(self.folder.path()).unwrap();
        let url = format!("http://{address}").parse().unwrap();
        Client::connect(url, Credentials::token(tokens.id, tokens.secret)).unwrap()
    }

    /// A program with Modal's client in it, at an address.
    pub(crate) fn official(&self, address: &str) -> Command {
        let tokens = Tokens::kept_in(self.folder.path()).unwrap();
        let mut command = Command::new(&self.python);
        command
            .env("MODAL_SERVER_URL", format!("http://{address}"))
            .env("MODAL_TOKEN_ID", tokens.id)
            .env("MODAL_TOKEN_SECRET", tokens.secret)
            .env("MODAL_CONFIG_PATH", self.folder.path().join("none.toml"))
            .env("COLUMNS", "200")
            .current_dir(self.folder.path());
        command
    }

    /// What a script prints that must not fail.
    async fn script(&self, script: &'static str) -> String {
        let mut command = self.official(&self.address);
        command.args(["-c", script]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}{talk}");
        told
    }

    pub(crate) async fn end(self) {
        let grace = std::time::Duration::ZERO;
        self.emulator.stop(Stop::Terminate { grace }).await.unwrap();
        assert_eq!(processes_in(self.folder.path()), Vec::<i32>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_operation_is_served_by_the_emulator() {
    let Some(served) = Served::start().await else {
        return;
    };
    let told = operations::tell(served.client()).await;
    insta::assert_snapshot!(told.join("\n"), @r#"
    environment id: en
    secret: st, kept its id: true
    secret without a key: Missing
    missing secret: Missing
    bad name: Name
    unnamed secret: st
    listed: true
    dict: Some("1") None of 2
    put if absent: false true
    popped Some("3"), left ["a", "b"], has b: true
    missing dict: Missing
    queue: ["x", "y", "z"], taken ["x", "y"], left 1
    V1 V1: dags/a.py File 8, empty File 0, large File 16777316
    large as sent: true, part b"\x07\x07\x07\x07", small b"print(1)"
    a second time: AlreadyExists
    missing file: NotFound
    after removal: empty File 0, large File 16777316
    V2 V2: dags/a.py File 8, empty File 0, large File 16777316
    large as sent: true, part b"\x07\x07\x07\x07", small b"print(1)"
    a second time: AlreadyExists
    missing file: NotFound
    after removal: empty File 0, large File 16777316
    missing volume: Missing
    app: None then ap
    mounts: mo mo
    image: im
    function work: fu, kept its id: true
    function tick: fu, kept its id: true
    function Server: fu, kept its id: true
    deployed: true, ["Server", "tick", "work"], versions 1
    listed: true
    takes cbor: true
    work(0, 1, 2) = 5
    10,000 numbers through a blob = 333283335000
    variant: fu, of its own: true, gives 14
    missing function: Missing
    gpu without a number: Invalid
    sandbox: Unimplemented
    a function of a stopped app: Missing
    "#);
    served.end().await;
}

const READER: &str = "
import modal, subprocess, sys

def run(*words):
    done = subprocess.run([sys.executable, '-m', 'modal', *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print('$ modal', *words, '->', done.returncode)
    return done.stdout

print(run('volume', 'get', 'shared', 'ours/a.txt', '-').strip())
print(modal.Dict.from_name('shared')['ours'])
print(modal.Queue.from_name('shared').get_many(5, block=False))
print('secret:', 'shared' in run('secret', 'list', '--json'))
with modal.Volume.from_name('shared').batch_upload() as batch:
    import io
    batch.put_file(io.BytesIO(b'of python' * 1000000), '/theirs/b.bin')
modal.Dict.from_name('shared')['theirs'] = {'list': [1, 2.5, None, 'ü', b'x'], 'big': 2**70}
modal.Dict.from_name('shared')['class'] = modal.exception.NotFoundError('no')
modal.Queue.from_name('shared').put_many(['first', ('second', 2)])
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_and_the_official_one_read_what_the_other_wrote() {
    let Some(served) = Served::start().await else {
        return;
    };
    let client = served.client();
    let volume = client
        .volume_get_or_create("shared", "", Creation::IfMissing, Some(VolumeVersion::V2))
        .await
        .unwrap();
    let upload = Upload::bytes("ours/a.txt", "of rust");
    client
        .volume_put(&volume, vec![upload], Overwrite::Refused)
        .await
        .unwrap();
    let dict = client
        .dict_get_or_create("shared", "", Creation::IfMissing)
        .await
        .unwrap();
    let bytes = |text: &str| Bytes::from(pickle::text(text).unwrap());
    client
        .dict_put(&dict, vec![(bytes("ours"), bytes("of rust"))])
        .await
        .unwrap();
    let queue = client
        .queue_get_or_create("shared", "", Creation::IfMissing)
        .await
        .unwrap();
    client
        .queue_put(&queue, "", vec![bytes("one"), bytes("two")])
        .await
        .unwrap();
    client
        .secret_put("shared", "", [("A".to_owned(), "b".to_owned())].into())
        .await
        .unwrap();

    insta::assert_snapshot!(served.script(READER).await, @"
    $ modal volume get shared ours/a.txt - -> 0
    of rust✓ Finished downloading files to local!
    of rust
    ['one', 'two']
    $ modal secret list --json -> 0
    secret: True
    ");

    let theirs = client.volume_get(&volume, "theirs/b.bin").await.unwrap();
    // Where one block ends and the next begins.
    let (start, range) = ((8 << 20) - 3, (8 << 20) - 3..(8 << 20) + 4);
    let part = client.volume_get_range(&volume, "theirs/b.bin", start, 7);
    assert_eq!(part.await.unwrap(), theirs[range]);
    let value = client.dict_get(&dict, bytes("theirs")).await.unwrap();
    let class = client.dict_get(&dict, bytes("class")).await.unwrap();
    let items = client
        .queue_get(&queue, "", 9, std::time::Duration::ZERO)
        .await
        .unwrap();
    let items: Vec<_> = items
        .iter()
        .map(|item| pickle::read(item).unwrap().to_string())
        .collect();
    let told = [
        (theirs[..] == b"of python".repeat(1_000_000)).to_string(),
        pickle::read(&value.unwrap()).unwrap().to_string(),
        items.join(" "),
        pickle::read(&class.unwrap()).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    true
    {"big": 1180591620717411303424, "list": [1, 2.5, None, "ü", b[120]]}
    "first" ("second", 2)
    value is not readable: not a pickle of plain data: opcode 0x62
    "#);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do() {
    let Some(served) = Served::start().await else {
        return;
    };
    let client = served.client();
    let url = format!("http://{}", served.address);
    let nobody = Client::connect(url.parse().unwrap(), Credentials::local()).unwrap();
    let wrong = Credentials::token("ak-wrong".to_owned(), "as-wrong".to_owned());
    let wrong = Client::connect(url.parse().unwrap(), wrong).unwrap();
    let away = Config::at(
        "https://api.example.com".parse().unwrap(),
        Credentials::local(),
    );
    let app_id = client.app_create("build", "", [].into()).await.unwrap();
    let mut heard = String::new();
    let layer = ImageLayer {
        commands: vec![
            "FROM debian:12-slim".to_owned(),
            "RUN true".to_owned(),
            "FLY away".to_owned(),
        ],
        ..Default::default()
    };
    let build = ImageBuild {
        app_id: &app_id,
        builder_version: "2025.06",
        force_build: false,
        ignore_cache: false,
    };
    let built = client
        .image_build(layer, build, &mut |piece| heard += piece)
        .await;
    let spec = modal_api::SandboxSpec {
        image_id: "im-1".to_owned(),
        ..Default::default()
    };
    let missing = Creation::Never;
    let errors = [
        Client::open(&away).await.map(|_| ()),
        nobody.hello().await.map(|_| ()),
        wrong.hello().await.map(|_| ()),
        client.environment_get("nowhere").await.map(|_| ()),
        client
            .app_create("a", "nowhere", [].into())
            .await
            .map(|_| ()),
        client
            .volume_get_or_create("a/b", "", missing, None)
            .await
            .map(|_| ()),
        client
            .volume_get_or_create("a", "nowhere", missing, None)
            .await
            .map(|_| ()),
        client
            .volume_get_or_create("a", "", missing, None)
            .await
            .map(|_| ()),
        client.function_get("a", "b", "").await.map(|_| ()),
        client.sandbox_create(&app_id, "", &spec).await.map(|_| ()),
        built.map(|_| ()),
    ];
    let text = |error: &Error| {
        error
            .to_string()
            .replace(&app_id, "ap-ID")
            .split(' ')
            .map(|word| {
                if word.starts_with("im-") {
                    "im-ID"
                } else {
                    word
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let told: Vec<_> = errors
        .iter()
        .map(|answer| text(answer.as_ref().unwrap_err()))
        .collect();
    insta::assert_snapshot!(told.join("\n---\n"), @"
    no token for https://api.example.com
    hint: run `modal token new`, which writes ~/.modal.toml, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET
    ---
    not signed in: no token; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what the emulator printed when it started
    hint: the token is wrong, expired or of another workspace; check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or the profile in ~/.modal.toml (`modal token info` shows which one counts)
    ---
    not signed in: the token is not this emulator's; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what it printed when it started
    hint: the token is wrong, expired or of another workspace; check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or the profile in ~/.modal.toml (`modal token info` shows which one counts)
    ---
    no environment 'nowhere': environment 'nowhere' not found
    hint: make it (modal environment create nowhere), or leave it out
    hint: `modal environment list` shows the environments; MODAL_ENVIRONMENT or the profile chooses one
    ---
    no app 'a' in environment 'nowhere': environment 'nowhere' not found
    hint: make it (modal environment create nowhere), or leave it out
    hint: `modal environment list` shows the environments; MODAL_ENVIRONMENT or the profile chooses one
    ---
    volume name 'a/b' cannot be used
    hint: 1 to 64 letters, digits, dashes, underscores and dots, not shaped like an app id (ap-…)
    ---
    no volume 'a' in environment 'nowhere': environment 'nowhere' not found
    hint: make it (modal environment create nowhere), or leave it out
    hint: `modal environment list` shows the environments; MODAL_ENVIRONMENT or the profile chooses one
    ---
    no volume 'a': Volume 'a' not found in environment 'main'
    hint: `modal volume list` shows the volumes, `modal volume create` makes one
    ---
    no function 'a.b': function 'b' of app 'a' not found in environment 'main'
    hint: the app is not deployed there, or was stopped: deploy it, or check its name with `modal app list`
    ---
    the server does not implement this: SandboxCreate is not there: this is modalflow's emulator, which serves a part of Modal's API
    hint: the emulator on this machine has no sandboxes and tunnels (docs/reference/emulator.md lists what it serves); Modal itself has all
    ---
    image im-ID did not build: Image build failed at 'FLY away': unknown instruction: FLY
    last lines of its log:
    => FROM debian:12-slim
       debian:12-slim is not pulled: functions run with this machine's files and the emulator's Python
    => RUN true
       not run: install what it installs into the emulator's Python
    => FLY away
    error: unknown instruction: FLY
    ");
    insta::assert_snapshot!(heard, @"
    => FROM debian:12-slim
       debian:12-slim is not pulled: functions run with this machine's files and the emulator's Python
    => RUN true
       not run: install what it installs into the emulator's Python
    => FLY away
    error: unknown instruction: FLY
    ");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_sent_without_what_python_compiled() {
    let Some(served) = Served::start().await else {
        return;
    };
    let client = served.client();
    let local = served.folder.path().join("dags");
    write(&local, "a.py", "a");
    write(&local, "inner/b.py", "b");
    write(&local, "inner/__pycache__/b.pyc", "c");
    let volume = client
        .volume_get_or_create("folder", "", Creation::IfMissing, Some(VolumeVersion::V2))
        .await
        .unwrap();
    let files = Upload::folder("dags", &local).unwrap();
    client
        .volume_put(&volume, files, Overwrite::Allowed)
        .await
        .unwrap();
    let files = client
        .volume_files(&volume, "dags", Depth::Recursive)
        .await
        .unwrap();
    let mut paths: Vec<_> = files.iter().map(|file| &*file.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["dags/a.py", "dags/inner", "dags/inner/b.py"]);
    served.end().await;
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
