//! Whole environments with the real Airflow. The Python environment is made once, in MODALFLOW_TEST_HOME or below
//! `target`; the environments themselves come and go.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first surprise, and says how long set-ups take"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use environment::progress::Stderr;
use environment::{Environment, Error, Home, Purpose, airflow_settings, postgres, python, ui};
use sqlx::{Connection, Executor, PgConnection, Row};

fn home() -> Home {
    let root = std::env::var_os("MODALFLOW_TEST_HOME").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-home"),
        PathBuf::from,
    );
    // Not our test program, which is no modalflow-host: the tests stop what they start.
    Home::at(root).unwrap().with_host_program("/bin/true")
}

/// A name that no other test run has.
fn fresh(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

async fn destroy(home: &Home, name: &str) -> Vec<String> {
    Environment::destroy(home, name, &Stderr)
        .await
        .unwrap()
        .lines
}

async fn one(url: &str, question: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.fetch_one(question).await.unwrap().get(0)
}

fn get(port: &str, path: &str, headers: &str) -> String {
    use std::io::{Read, Write};
    let address = port.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(stream, "{path} HTTP/1.0\r\nHost: {address}\r\n{headers}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_made_shown_and_removed() {
    let home = home();
    let name = fresh("whole");
    let began = Instant::now();
    let environment = Environment::create(&home, &name, None, &Stderr)
        .await
        .unwrap();
    eprintln!("create: {:.1} s", began.elapsed().as_secs_f64());

    let url = environment.connection_string().url();
    assert_eq!(
        one(
            &url,
            "SELECT count(*) FROM alembic_version WHERE version_num = 'd2f4e1b3c5a7'"
        )
        .await,
        1
    );
    assert_eq!(one(&url, "SELECT count(*) FROM connection").await, 0);
    assert!(Environment::list(&home).unwrap().contains(&name));
    let again = Environment::create(&home, &name, None, &Stderr)
        .await
        .unwrap_err();
    assert!(matches!(again, Error::EnvironmentExists { .. }), "{again}");
    let mistyped = Environment::open(&home, &format!("{name}x"))
        .unwrap_err()
        .to_string();
    assert!(
        mistyped.contains(&format!("did you mean {name}?")),
        "{mistyped}"
    );

    // The second time nothing is set up.
    let began = Instant::now();
    python::ensure(&home, &Stderr).await.unwrap();
    postgres::ensure_running(&environment, &Stderr)
        .await
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    // The port stays, unless somebody else has it.
    let mut reopened = Environment::open(&home, &name).unwrap();
    let (listener, moved) = reopened.listen_for_execution_api().unwrap();
    assert_eq!(
        (listener.local_addr().unwrap().port(), moved),
        (environment.execution_api_port(), None)
    );
    let (_other, moved) = reopened.listen_for_execution_api().unwrap();
    assert_eq!(moved, Some(environment.execution_api_port()));
    assert_eq!(
        Environment::open(&home, &name)
            .unwrap()
            .execution_api_port(),
        reopened.execution_api_port()
    );

    let began = Instant::now();
    let shown = ui::serve(&environment, None, &Stderr).await.unwrap();
    eprintln!("ui: {:.1} s", began.elapsed().as_secs_f64());
    assert!(
        get(&shown.url, "GET /", "\r\n").contains("<title>Airflow"),
        "no page"
    );
    let login = format!(
        r#"{{"username":"{}","password":"{}"}}"#,
        shown.user, shown.password
    );
    let headers = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{login}",
        login.len()
    );
    let answer = get(&shown.url, "POST /auth/token", &headers);
    let token = answer
        .split("\"access_token\":\"")
        .nth(1)
        .unwrap_or_else(|| panic!("{answer}"));
    let token = token.split('"').next().unwrap();
    let dags = get(
        &shown.url,
        "GET /api/v2/dags",
        &format!("Authorization: Bearer {token}\r\n\r\n"),
    );
    assert!(dags.contains("\"total_entries\":0"), "{dags}");
    assert!(get(&shown.url, "GET /api/v2/dags", "\r\n").contains(" 401 "));
    let port = shown.url.clone();
    shown.stop().await;
    assert!(std::net::TcpStream::connect(port.trim_start_matches("http://")).is_err());

    let lines = destroy(&home, &name).await;
    assert_eq!(
        lines.last().unwrap(),
        &format!("removed {}", environment.root().display())
    );
    assert!(!Environment::list(&home).unwrap().contains(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_create_left_is_cleared_by_the_next() {
    let home = home();
    let name = fresh("killed");
    // The config is read first: a mistake in it leaves nothing.
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, "executor:\n  paralelism: 4\n").unwrap();
    let wrong = Environment::create(&home, &name, Some(&config), &Stderr)
        .await
        .unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("did you mean executor.parallelism?"),
        "{wrong}"
    );
    assert!(!home.environments().join(&name).exists());

    // Dropping the future is what a kill looks like from here: nothing after that point runs. Airflow's tables
    // alone take longer than this.
    python::ensure(&home, &Stderr).await.unwrap();
    std::fs::write(&config, "executor:\n  parallelism: 4\n").unwrap();
    let create = Environment::create(&home, &name, Some(&config), &Stderr);
    let cut = tokio::time::timeout(Duration::from_millis(1500), create).await;
    assert!(cut.is_err(), "it was made in 1.5 s");
    let open = Environment::open(&home, &name).unwrap_err();
    assert!(matches!(open, Error::Unfinished { .. }), "{open}");
    assert!(!Environment::list(&home).unwrap().contains(&name));
    let environment = Environment::create(&home, &name, Some(&config), &Stderr)
        .await
        .unwrap();
    assert_eq!(environment.config().parallelism, 4);
    assert_eq!(
        environment
            .root()
            .join("config.yaml")
            .metadata()
            .unwrap()
            .mode()
            & 0o777,
        0o600
    );
    destroy(&home, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_users_own_keeps_airflows_tables() {
    // One embedded environment plays the user's server.
    let home = home();
    let server = fresh("server");
    let theirs = Environment::create(&home, &server, None, &Stderr)
        .await
        .unwrap();
    let url = theirs.connection_string().url();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection
        .execute("CREATE SCHEMA modalflow CREATE TABLE kept (x int)")
        .await
        .unwrap();

    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.yaml");
    let sqlalchemy = url.replace("postgresql://", "postgresql+psycopg2://");
    std::fs::write(
        &config,
        format!("database:\n  connection_string: '{sqlalchemy}'\n"),
    )
    .unwrap();

    connection
        .execute("UPDATE alembic_version SET version_num = '9fc3fc5de720'")
        .await
        .unwrap();
    let name = fresh("external");
    let refused = Environment::create(&home, &name, Some(&config), &Stderr)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("schema revision 9fc3fc5de720"),
        "{refused}"
    );
    assert!(!home.environments().join(&name).exists());
    // A refused create is no reason to drop anything.
    assert_eq!(one(&url, "SELECT count(*) FROM modalflow.kept").await, 0);

    connection
        .execute("UPDATE alembic_version SET version_num = 'd2f4e1b3c5a7'")
        .await
        .unwrap();
    let environment = Environment::create(&home, &name, Some(&config), &Stderr)
        .await
        .unwrap();
    assert!(environment.state().postgres.is_none());
    assert_eq!(environment.connection_string().url(), url);
    let lines = destroy(&home, &name).await;
    assert!(
        lines[0].starts_with("dropped the schema modalflow in postgresql://modalflow@"),
        "{lines:?}"
    );
    assert!(!lines[0].contains(&theirs.secrets().postgres_password));
    assert_eq!(one(&url, "SELECT count(*) FROM alembic_version").await, 1);
    assert_eq!(
        one(
            &url,
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'modalflow'"
        )
        .await,
        0
    );
    connection.close().await.unwrap();
    destroy(&home, &server).await;

    let gone = Environment::create(&home, &name, Some(&config), &Stderr)
        .await
        .unwrap_err();
    assert!(
        gone.to_string().contains("hint: is Postgres running there"),
        "{gone}"
    );
    assert!(!home.environments().join(&name).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_need_a_secret_get_it() {
    let home = home();
    let name = fresh("settings");
    let environment = Environment::create(&home, &name, None, &Stderr)
        .await
        .unwrap();
    let secrets = environment.secrets();
    let known: BTreeMap<&str, &str> = [
        ("database password", secrets.postgres_password.as_str()),
        ("jwt", &secrets.jwt_secret),
        ("fernet", &secrets.fernet_key),
        ("session", &secrets.api_secret_key),
        ("ui password", &secrets.ui_password),
    ]
    .into();
    let mut lines = Vec::new();
    for purpose in [
        Purpose::Migrate,
        Purpose::ApiServer,
        Purpose::DagSync,
        Purpose::Worker,
        Purpose::DagParser,
    ] {
        let settings = airflow_settings(&environment, purpose);
        let given = |secret: &str| settings.values().any(|value| value.contains(secret));
        let held: Vec<&str> = known
            .iter()
            .filter(|(_, s)| given(s))
            .map(|(n, _)| *n)
            .collect();
        lines.push(format!("{purpose:?}: {}", held.join(", ")));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    Migrate: database password
    ApiServer: database password, fernet, jwt, session
    DagSync: database password
    Worker: 
    DagParser:
    ");

    // Airflow itself understands them, and writes no file of its own with keys in it.
    let python = python::ensure(&home, &Stderr).await.unwrap();
    assert_eq!(python.airflow_version, environment::AIRFLOW_VERSION);
    let output = std::process::Command::new(&python.python)
        .args(["-c", "from airflow.configuration import conf; from airflow.sdk.execution_time import task_runner; print(conf.get('core', 'execution_api_server_url'), conf.get('logging', 'base_log_folder'))"])
        .env_clear()
        .envs(airflow_settings(&environment, Purpose::Worker))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!(
            "{} {}",
            environment.execution_api_url(),
            environment.logs_dir().display()
        ),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let cfg = std::fs::read_to_string(environment.airflow_home().join("airflow.cfg")).unwrap();
    assert!(cfg.lines().count() == 1, "{cfg}");
    destroy(&home, &name).await;
}
