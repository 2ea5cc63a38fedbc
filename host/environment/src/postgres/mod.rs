//! The database of an environment: an embedded Postgres that is started when it is needed and stopped by a keeper
//! when nobody uses it, or the user's own, which is only checked. The only SQL here is about connections,
//! databases and our schema as a whole.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor, Row};

use crate::process::{self, Recorded};
use crate::progress::Progress;
use crate::secrets::Secrets;
use crate::state::Cluster;
use crate::{Environment, Error, Result, lock};

mod binaries;
mod cluster;
mod keeper;
mod url;

pub(crate) use cluster::{choose_place, initialise, stop_cluster};
pub use keeper::{IDLE, keep};
pub use url::ConnectionString;

/// The database with Airflow's tables in an embedded Postgres, and the role that owns it.
pub(crate) const DATABASE: &str = "airflow";
const ROLE: &str = "modalflow";

/// How long a connection may take before the server counts as away.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one modalflow waits for another that starts or stops the same Postgres.
const PATIENCE: Duration = Duration::from_secs(180);

/// A database that answers.
#[derive(Debug, Clone)]
pub struct Database {
    /// For libpq and sqlx. Holds the password.
    pub url: String,
    /// The same, to be written in other ways.
    pub connection: ConnectionString,
    /// Whether it is ours.
    pub embedded: bool,
}

/// Sees to it that the environment's database answers: starts the embedded one if it does not run (after a
/// `kill -9`, too), and its keeper. The user's own is asked once.
pub async fn ensure_running(
    environment: &Environment,
    progress: &dyn Progress,
) -> Result<Database> {
    let connection = environment.connection_string();
    let Some(cluster) = &environment.state().postgres else {
        let opened = connect(&connection)
            .await
            .map_err(|e| unreachable(&connection, &e))?;
        close(opened).await;
        return Ok(Database {
            url: connection.url(),
            connection,
            embedded: false,
        });
    };
    let _lock = lock::take(&lock_path(environment), PATIENCE).await?;
    // The keeper counts from the last use, so it will not stop what we are about to answer with.
    keeper::touch(environment)?;
    let maintenance = address(cluster, environment.secrets(), "postgres");
    match probe(&maintenance).await? {
        Answer::Yes => {}
        Answer::No => {
            let _step = progress.step("starting Postgres");
            cluster::start(cluster).await?;
            expect_answer(&maintenance, cluster).await?;
        }
    }
    keeper::spawn(environment)?;
    Ok(Database {
        url: connection.url(),
        connection,
        embedded: true,
    })
}

/// Stops the embedded Postgres, whoever is connected. Nothing happens for the user's own.
pub async fn stop(environment: &Environment) -> Result<()> {
    let Some(cluster) = &environment.state().postgres else {
        return Ok(());
    };
    let _lock = lock::take(&lock_path(environment), PATIENCE).await?;
    cluster::stop_cluster(cluster).await?;
    // Without a server the keeper ends by itself; ended here it leaves at once.
    if let Some(keeper) = keeper_process(environment) {
        keeper.end(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// Stops the embedded Postgres if nobody but the keeper is connected. Answers whether it is stopped now.
pub async fn stop_if_unused(environment: &Environment) -> Result<bool> {
    let Some(cluster) = &environment.state().postgres else {
        return Ok(false);
    };
    let maintenance = address(cluster, environment.secrets(), "postgres");
    let mut clients = 0;
    if let Ok(mut connection) = connect(&maintenance).await {
        // The server needs a moment to see that a client of ours has just gone.
        for _ in 0..20 {
            clients = other_clients(&mut connection)
                .await
                .map_err(|e| unreachable(&maintenance, &e))?;
            if clients == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        close(connection).await;
    }
    if clients > 0 {
        return Ok(false);
    }
    stop(environment).await?;
    Ok(true)
}

#[cfg(test)]
pub(crate) async fn choose_place_with(
    environment: &Environment,
    programs: std::path::PathBuf,
) -> Result<Cluster> {
    let user = cluster::other_user()?;
    cluster::place_for(environment, programs, user, &crate::progress::Silent).await
}

/// The keeper of this environment's Postgres, if it runs.
pub fn keeper_process(environment: &Environment) -> Option<Recorded> {
    process::running(environment, keeper::RECORD)
}

/// The address of a database in an embedded Postgres.
pub(crate) fn address(cluster: &Cluster, secrets: &Secrets, database: &str) -> ConnectionString {
    ConnectionString::socket(
        ROLE,
        &secrets.postgres_password,
        database,
        &cluster.sockets.to_string_lossy(),
    )
}

/// `CREATE DATABASE airflow` in a new embedded Postgres.
pub(crate) async fn create_database(environment: &Environment) -> Result<()> {
    let Some(cluster) = &environment.state().postgres else {
        return Ok(());
    };
    let maintenance = address(cluster, environment.secrets(), "postgres");
    let told = |error: sqlx::Error| unreachable(&maintenance, &error);
    let mut connection = connect(&maintenance).await.map_err(told)?;
    connection
        .execute("CREATE DATABASE airflow TEMPLATE template0 ENCODING 'UTF8'")
        .await
        .map_err(told)?;
    close(connection).await;
    Ok(())
}

/// Our own tables in the user's database.
pub(crate) async fn drop_our_schema(external: &ConnectionString) -> Result<()> {
    let told = |error: sqlx::Error| unreachable(external, &error);
    let mut connection = connect(external).await.map_err(told)?;
    connection
        .execute("DROP SCHEMA IF EXISTS modalflow CASCADE")
        .await
        .map_err(told)?;
    close(connection).await;
    Ok(())
}

/// The revision that `alembic_version` holds; none in an empty database.
pub(crate) async fn schema_revision(address: &ConnectionString) -> Result<Option<String>> {
    let told = |error: sqlx::Error| unreachable(address, &error);
    let mut connection = connect(address).await.map_err(told)?;
    let row = connection
        .fetch_one("SELECT to_regclass('alembic_version') IS NOT NULL AS there")
        .await
        .map_err(told)?;
    let revision = if row.get::<bool, _>("there") {
        connection
            .fetch_optional("SELECT version_num FROM alembic_version")
            .await
            .map_err(told)?
            .map(|row| row.get::<String, _>("version_num"))
    } else {
        None
    };
    close(connection).await;
    Ok(revision)
}

/// Clients other than the one that asks; the keeper's own connection is named, so that it does not count either.
async fn other_clients(connection: &mut PgConnection) -> std::result::Result<i64, sqlx::Error> {
    connection
        .fetch_one(
            "SELECT count(*) AS clients
            FROM pg_stat_activity
            WHERE backend_type = 'client backend'
            AND pid <> pg_backend_pid()
            AND application_name <> 'modalflow-keeper'",
        )
        .await
        .map(|row| row.get("clients"))
}

enum Answer {
    Yes,
    No,
}

/// Whether a server answers at the socket. A server that is just starting or stopping is waited for.
async fn probe(maintenance: &ConnectionString) -> Result<Answer> {
    for _ in 0..600 {
        match connect(maintenance).await {
            Ok(connection) => {
                close(connection).await;
                return Ok(Answer::Yes);
            }
            Err(sqlx::Error::Io(_)) => return Ok(Answer::No),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57P03") => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(unreachable(maintenance, &error)),
        }
    }
    Err(Error::Database {
        step: "reach",
        place: maintenance.place(),
        problem: "it has been starting or stopping for a minute".to_owned(),
        hint: "look at its log, postgres.log beside its data directory".to_owned(),
    })
}

async fn expect_answer(maintenance: &ConnectionString, cluster: &Cluster) -> Result<()> {
    match probe(maintenance).await? {
        Answer::Yes => Ok(()),
        Answer::No => Err(Error::Postgres {
            step: "start",
            data: cluster.data.clone(),
            output: "it ended right after its start".to_owned(),
            hint: format!("look at {}", cluster::log(cluster).display()),
        }),
    }
}

pub(crate) async fn connect(
    address: &ConnectionString,
) -> std::result::Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = address.url().parse()?;
    match tokio::time::timeout(CONNECT, PgConnection::connect_with(&options)).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Says goodbye, so that the server's log has no "connection reset"; what goes wrong then no longer matters.
async fn close(connection: PgConnection) {
    let _ = connection.close().await;
}

/// A database that did not answer as it should: what, where, and what to do.
pub(crate) fn unreachable(address: &ConnectionString, error: &sqlx::Error) -> Error {
    let (problem, hint) = match error {
        sqlx::Error::Database(error) => {
            let hint = match error.code().as_deref() {
                Some("28P01" | "28000") => {
                    "check user and password in database.connection_string, and the server's pg_hba.conf"
                }
                Some("3D000") => "make the database first: createdb",
                Some("42501") => "the role needs more rights on this database",
                Some("53300") => "the server has no connection left: raise its max_connections",
                _ => "the server said no; its log may say more",
            };
            (error.message().to_owned(), hint)
        }
        sqlx::Error::PoolTimedOut => (
            format!("no answer within {} s", CONNECT.as_secs()),
            "is the server there, and does a firewall let us through?",
        ),
        sqlx::Error::Io(error) => (
            error.to_string(),
            "is Postgres running there, and are host and port right?",
        ),
        other => (
            other.to_string(),
            "check database.connection_string in config.yaml",
        ),
    };
    Error::Database {
        step: "reach",
        place: address.place(),
        problem,
        hint: hint.to_owned(),
    }
}

/// Held while the server is started or stopped.
fn lock_path(environment: &Environment) -> std::path::PathBuf {
    environment.run_dir().join("postgres.lock")
}

#[cfg(test)]
mod tests;
