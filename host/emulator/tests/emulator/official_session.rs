//! Sessions of the official command line and SDK: all that they print. Deployed functions run in the official container runtime.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use emulator::{Emulator, Stop, Tokens};
use modal_api::CODE_FOLDER;
use tempfile::TempDir;

use crate::support::{alone_config, modal_python, processes_in, until};

const CLI: &str = include_str!("official_cli.py");
const APP: &str = include_str!("official_app.py");
const DEPLOY: &str = include_str!("official_deploy.py");

/// An emulator in a process of its own, to be killed, and a Python to speak with it.
struct Alone {
    folder: TempDir,
    process: Child,
    python: String,
}

impl Alone {
    async fn start() -> Option<Self> {
        let python = modal_python()?;
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            process: launch(folder.path(), &python).await,
            folder,
            python,
        })
    }

    async fn kill_and_start_again(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = launch(self.folder.path(), &self.python).await;
    }

    fn run(&self, script: &str, arguments: &[&str], tokens: Option<&Tokens>) -> Output {
        let address = std::fs::read_to_string(self.folder.path().join("address")).unwrap();
        let mut command = Command::new(&self.python);
        command
            .args(["-c", script])
            .args(arguments)
            .env("MODAL_SERVER_URL", format!("http://{address}"))
            .env("MODAL_CONFIG_PATH", self.folder.path().join("none.toml"))
            .env("TMPDIR", self.folder.path())
            // Not in a repository: the client tells of commits.
            .current_dir(self.folder.path());
        if let Some(tokens) = tokens {
            command
                .env("MODAL_TOKEN_ID", &tokens.id)
                .env("MODAL_TOKEN_SECRET", &tokens.secret);
        }
        command.output().unwrap()
    }

    /// What a script prints that must not fail.
    fn told(&self, script: &str, arguments: &[&str]) -> String {
        let tokens = Tokens::kept_in(self.folder.path()).unwrap();
        let output = self.run(script, arguments, Some(&tokens));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}{talk}");
        told
    }

    async fn end(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let emulator = Emulator::start(alone_config(self.folder.path()))
            .await
            .unwrap();
        emulator
            .stop(Stop::Terminate {
                grace: std::time::Duration::ZERO,
            })
            .await
            .unwrap();
        assert_eq!(processes_in(self.folder.path()), Vec::<i32>::new());
    }
}

async fn launch(folder: &Path, python: &str) -> Child {
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["programs::emulator_alone_program", "--exact"])
        .env("EMULATOR_ALONE_FOLDER", folder)
        .env("MODALFLOW_TEST_MODAL_PYTHON", python)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let is_up = || {
        std::fs::read_to_string(folder.join("address"))
            .is_ok_and(|address| std::net::TcpStream::connect(address).is_ok())
    };
    until("the emulator listens", is_up).await;
    process
}

#[tokio::test]
async fn the_command_line_keeps_dicts_queues_secrets_volumes_and_environments() {
    let Some(alone) = Alone::start().await else {
        return;
    };
    insta::assert_snapshot!(alone.told(CLI, &[]), @r#"
    $ modal token info
      (Using MODAL_TOKEN_ID and MODAL_TOKEN_SECRET environment variables)
      Token: ak-ID
      Workspace: local (ac-ID)
      User: local (local)
    $ modal dict create things
    $ modal dict create bad/name
      Error: Invalid Dict name: 'bad/name'.
      Names may contain only alphanumeric characters, dashes, periods, and underscores, must be shorter than 64 characters, and cannot conflict with App ID strings.
      -> 1
    $ modal dict list --json
      [
      {
      "name": "things",
      "created_at": "TIME",
      "created_by": "local"
      }
      ]
    put if absent: False True
    $ modal dict get things a
      {'b': [1, 2.5, None, 'ü']}
    $ modal dict items things 1
      Key | Value
      a | {'b': [1, 2.5, None, 'ü']}
      ... | ...
    pop: 3 len: 2 in: True False
    $ modal dict clear things --yes
    $ modal dict items things
      Key | Value
    $ modal dict delete things --yes
    $ modal dict get things a
      Error: Dict 'things' not found in environment 'main'
      -> 1
    $ modal queue create line
    $ modal queue len line
      5
    $ modal queue len line --total
      6
    $ modal queue peek line 2
      0
      1
    get: 0 [1, 2, 3, 4] None other
    $ modal queue list --json
      [
      {
      "name": "line",
      "created_at": "TIME",
      "created_by": "local",
      "partitions": 0,
      "total_size": 0,
      "total_size_truncated": false
      }
      ]
    $ modal queue delete line --yes
    $ modal secret create token KEY=value OTHER=x
      Created a new secret 'token' with the keys 'KEY', 'OTHER'
      Use it in your Modal app:
      @app.function(secrets=[modal.Secret.from_name("token")])
      def some_function():
      os.getenv("KEY")
      os.getenv("OTHER")
    $ modal secret create token KEY=value
      Error: Secret 'token' already exists in environment 'main'
      -> 1
    $ modal secret create token KEY=new --force
      Created a new secret 'token' with the key 'KEY'
      Use it in your Modal app:
      @app.function(secrets=[modal.Secret.from_name("token")])
      def some_function():
      os.getenv("KEY")
    $ modal secret list --json
      [
      {
      "name": "token",
      "created_at": "TIME",
      "created_by": "local",
      "last_used_at": "-"
      }
      ]
    $ modal secret delete token --yes
    $ modal volume create filesN --version N
      Created Volume 'filesN' in environment ''.
      Code example:
      @app.function(volumes={"/my_vol": modal.Volume.from_name("filesN")})
      def some_func():
      os.listdir("/my_vol")
    $ modal volume put filesN big.bin big.bin
      ✓ Uploaded file 'FOLDER/big.bin' to '/sub/big.bin'
    $ modal volume put filesN note.txt note.txt
      ✓ Uploaded file 'FOLDER/note.txt' to 'note.txt'
    $ modal volume put filesN note.txt note.txt
      Usage: modal volume put [OPTIONS] VOLUME_NAME LOCAL_PATH [REMOTE_PATH]
      Try 'modal volume put --help' for help.
      Error: 'note.txt' already exists
      -> 2
    $ modal volume ls filesN --json
      [
      {
      "filename": "note.txt",
      "type": "file",
      "created_modified": "TIME",
      "size": 6
      },
      {
      "filename": "sub",
      "type": "dir",
      "created_modified": "TIME",
      "size": 0
      }
      ]
    $ modal volume ls filesN sub --json
      [
      {
      "filename": "sub/big.bin",
      "type": "file",
      "created_modified": "TIME",
      "size": 20971620
      }
      ]
    $ modal volume get filesN sub/big.bin backN.bin
      ✓ Finished downloading files to local!
      same as what went up: True
    $ modal volume cp filesN note.txt sub/copy.txt
    $ modal volume get filesN sub/copy.txt -
      hello
      ✓ Finished downloading files to local!
    $ modal volume rm filesN sub/big.bin
      ✓ sub/big.bin was deleted successfully!
    $ modal volume rm filesN nothing.txt
      Error: no such file or directory: 'nothing.txt'
      -> 1
    $ modal volume rename filesN archiveN --yes
    version 2 differs in: []
    $ modal volume list --json
      [
      {
      "name": "archive2",
      "created_at": "TIME",
      "created_by": "local"
      },
      {
      "name": "archive1",
      "created_at": "TIME",
      "created_by": "local"
      }
      ]
    $ modal volume delete archive1 --yes
    $ modal volume ls archive1
      Error: Volume 'archive1' not found in environment 'main'
      -> 1
    read: b'hello\n'
    $ modal environment create staging
      ✓ Environment created: staging
    $ modal environment create en-bad
      Error: Invalid Environment name: 'en-bad'.
      Environment names must be 1-64 characters, can only start with alphanumeric characters, may contain only alphanumeric characters, dashes, and underscores, and cannot start with 'en-'.
      -> 1
    $ modal dict create things --env staging
    $ modal dict list --json --env staging
      [
      {
      "name": "things",
      "created_at": "TIME",
      "created_by": "local"
      }
      ]
    $ modal dict list --json
      []
    $ modal dict list --json --env nowhere
      Error: environment 'nowhere' not found
      hint: make it (modal environment create nowhere), or leave it out
      -> 1
    $ modal environment list --json
      [
      {
      "name": "main",
      "web_suffix": "",
      "image_builder_version": "2025.06",
      "active": "True"
      },
      {
      "name": "staging",
      "web_suffix": "",
      "image_builder_version": "2025.06",
      "active": "False"
      }
      ]
    $ modal environment delete staging --yes
      ✓ Environment deleted: staging
    $ modal app list --json
      []
    $ modal app stop nothing --yes
      Error: No App with name 'nothing' found in the 'main' environment.
      -> 1
    "#);
    alone.end().await;
}

#[tokio::test]
async fn a_deployed_app_runs_in_the_official_runtime_and_survives_a_killed_emulator() {
    let Some(mut alone) = Alone::start().await else {
        return;
    };
    let app = alone.folder.path().join("official_app.py");
    std::fs::write(&app, APP).unwrap();
    let app = app.to_str().unwrap();
    let told = alone.told(DEPLOY, &[app, "first", CODE_FOLDER]);
    let (told, calls) = told.rsplit_once("calls: ").unwrap();
    let (ended, running) = calls.trim().split_once(' ').unwrap();
    insta::assert_snapshot!(told, @r#"
    bad image: ImageBuildError: Image build for im-ID failed with the exception:
    Image build failed at 'RNU make': unknown instruction: RNU
    $ modal deploy FILE
      => FROM base
      => RUN false
      not run: install what it installs into the emulator's Python
      => FROM base
      => ENV COLOR=blue
      => FROM base
      => WORKDIR /nowhere/else
      ✓ Created objects.
      | ✓ Uploaded FILE
      | ✓ Created Function Counter.*.
      | ✓ Created Function flaky.
      | ✓ Created Function large.
      | ✓ Created Function nap.
      | ✓ Created Function once.
      | ✓ Created Function place.
      | ✓ Created Function slow.
      | ✓ Created Function squares.
      | ✓ Created Function tick.
      | ✓ Created Function together.
      | ✓ Created Function work.
      ✓ App deployed in N s! 🎉
      View Deployment: modal app logs ap-ID
    spawn, get: 10
    again by id: 10
    exception: ValueError: unlucky
    place: /nowhere/else CODE/official_app.py False
    map: [2, 4, 6]
    spawned map: [1, 2]
    generator: [0, 1, 4, 9]
    large: 3145728
    large, spawned: 20000
    large argument: 6291456
    timeout: FunctionTimeoutError: input in-ID ran for longer than 1s
    retries: 3
    single use: 2
    together: 1
    not yet: TimeoutError: 
    terminated: RemoteError: the call was cancelled
    class: 15 20 1
    ticks: b'tick'
    volume: [b'1', b'13', b'2', b'3', b'5'] 3145728
    $ modal app logs shop --tail 100 --search working on 5
      working on 5
    $ modal app logs shop --since 1h --source stderr --search colour
      colour blue word hush
      colour blue word hush
      colour blue word hush
      colour blue word hush
      colour blue word hush
      colour blue word hush
    $ modal run FILE::main
      colour blue word hush
      colour blue word hush
      map: [2]
      remote: 42
      working on 1
      working on 21
      | ✓ Created Function Counter.*.
      | ✓ Created Function flaky.
      | ✓ Created Function large.
      | ✓ Created Function nap.
      | ✓ Created Function once.
      | ✓ Created Function place.
      | ✓ Created Function slow.
      | ✓ Created Function squares.
      | ✓ Created Function tick.
      | ✓ Created Function together.
      | ✓ Created Function work.
      | ✓ Uploaded FILE
      ✓ App completed. View run at modal app logs ap-ID
      ✓ Created objects.
      ✓ Initialized. View run at modal app logs ap-ID
    $ modal app history shop
      | Version | Time deployed | Client | Deployed by | Commit |
      | v1 | TIME | 1.6.4 | local |
    $ modal deploy FILE --tag two
      ✓ Created objects.
      | ✓ Uploaded FILE
      | ✓ Created Function Counter.*.
      | ✓ Created Function flaky.
      | ✓ Created Function large.
      | ✓ Created Function nap.
      | ✓ Created Function once.
      | ✓ Created Function place.
      | ✓ Created Function slow.
      | ✓ Created Function squares.
      | ✓ Created Function tick.
      | ✓ Created Function together.
      | ✓ Created Function work.
      ✓ App deployed in N s! 🎉
      View Deployment: modal app logs ap-ID
    $ modal app rollback shop
      ✓ Deployment rollback successful!
      View Deployment: modal app logs ap-ID
    $ modal app history shop --json
      [
      {
      "version": "v3",
      "time_deployed": "TIME",
      "client": "1.6.4",
      "deployed_by": "local",
      "commit": null,
      "tag": null
      },
      {
      "version": "v2",
      "time_deployed": "TIME",
      "client": "1.6.4",
      "deployed_by": "local",
      "commit": null,
      "tag": "two"
      },
      {
      "version": "v1",
      "time_deployed": "TIME",
      "client": "1.6.4",
      "deployed_by": "local",
      "commit": null,
      "tag": null
      }
      ]
    "#);

    alone.kill_and_start_again().await;
    insta::assert_snapshot!(alone.told(DEPLOY, &[app, "second", CODE_FOLDER, ended, running]), @r#"
    result of the life before: 12
    result of what ran: slept
    starts of it: 1
    still deployed: 16
    $ modal app logs shop --search working on 6
      working on 6
    $ modal app stop shop --yes
    stopped: NotFoundError: Lookup failed for Function 'work' from the 'shop' app: function 'work' of app 'shop' not found in environment 'main'.
    $ modal app list --json
      [
      {
      "app_id": "ap-ID",
      "description": "shop",
      "state": "stopped",
      "tasks": "0",
      "created_at": "TIME",
      "stopped_at": "TIME"
      },
      {
      "app_id": "ap-ID",
      "description": "shop",
      "state": "stopped",
      "tasks": "0",
      "created_at": "TIME",
      "stopped_at": "TIME"
      },
      {
      "app_id": "ap-ID",
      "description": "broken",
      "state": "stopped",
      "tasks": "0",
      "created_at": "TIME",
      "stopped_at": "TIME"
      }
      ]
    $ modal container list --json
      []
    "#);
    alone.end().await;
}

#[tokio::test]
async fn without_its_token_the_emulator_answers_nobody() {
    let Some(alone) = Alone::start().await else {
        return;
    };
    let script =
        "import sys; from modal.__main__ import main; sys.argv = ['modal', 'dict', 'list']; main()";
    let wrong = Tokens {
        id: "ak-1".to_owned(),
        secret: "as-1".to_owned(),
    };
    let told = [None, Some(&wrong)].map(|tokens| {
        let output = alone.run(script, &[], tokens);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        format!(
            "{} {}",
            output.status.code().unwrap(),
            told.split_whitespace()
                .filter(|word| word.is_ascii())
                .collect::<Vec<_>>()
                .join(" ")
        )
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    1 Error: Token missing. Could not authenticate client. If you have token credentials, see modal.com/docs/sdk/py/latest/config for setup help. If you are a new user, register an account at modal.com, then run `modal token new`.
    1 Error: the token is not this emulator's; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what it printed when it started
    "#);
    alone.end().await;
}
