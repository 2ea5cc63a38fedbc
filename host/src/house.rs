//! An environment opened for work: its database, its executor, its keys.

use std::sync::Arc;

use environment::{Environment, Progress, postgres};
use execution_api::{Lifetimes, Tokens};
use metadata::serialized::SerializedDags;
use modal_api::{Client, Credentials, ServerUrl};
use sqlx::PgPool;

use crate::executor::{Deployed, Executor};
use crate::timetables;

/// Database sessions of one process: the tick's two, and what the Execution API's requests share.
const CONNECTIONS: u32 = 12;

/// Why an environment can't be worked with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    #[error(transparent)]
    Modal(#[from] modal_api::Error),
    #[error(
        "work on this database: a real Airflow scheduler on {hostname} is alive, last heard of at {heartbeat}\n\
         hint: stop it first; two schedulers of different kinds on one database would start tasks twice"
    )]
    AirflowScheduler {
        hostname: String,
        heartbeat: chrono::DateTime<chrono::Utc>,
    },
}

/// Everything that a tick works with.
pub struct House {
    pub environment: Environment,
    pub pool: PgPool,
    pub executor: Arc<Executor>,
    pub serialized: Arc<SerializedDags>,
    pub tokens: Tokens,
    /// Asks timetables of users' own classes.
    pub timetables: Arc<timetables::Helper>,
}

impl House {
    /// Starts the database if it sleeps, and connects.
    ///
    /// # Errors
    /// When the database is away, or of another Airflow, or a real scheduler works on it.
    pub async fn open(environment: Environment, progress: &dyn Progress) -> Result<Self, Error> {
        let pool = connect(&environment, progress).await?;
        let mut db = pool.acquire().await.map_err(metadata::Error::from)?;
        let now = crate::clock::now();
        if let Some((hostname, heartbeat)) = metadata::jobs::living_scheduler(&mut db, now).await? {
            return Err(Error::AirflowScheduler {
                hostname,
                heartbeat,
            });
        }
        drop(db);
        let executor = executor(&environment)?;
        let tokens = Tokens::new(
            environment.secrets().jwt_secret.as_bytes(),
            Lifetimes::default(),
        );
        Ok(Self {
            timetables: Arc::new(timetables::Helper::new(&environment)),
            environment,
            pool,
            executor: Arc::new(executor),
            serialized: Arc::default(),
            tokens,
        })
    }
}

/// Where calls go: the emulator on this machine; in a container on Modal its runtime's own socket, which needs no token.
fn executor(environment: &Environment) -> Result<Executor, Error> {
    Ok(match environment.container() {
        None => {
            let socket = environment.socket(MODAL_SOCKET)?;
            let client = Client::connect(ServerUrl::Unix(socket), Credentials::local())?;
            Executor::new(client, Deployed::here(&app_name(environment.name())))
        }
        Some(settings) => {
            let client = crate::modal::container::client()?;
            Executor::new(
                client,
                crate::modal::container::deployed(environment, settings),
            )
        }
    })
}

/// The database alone, for commands that only read or write rows.
///
/// # Errors
/// When the database is away or of another Airflow.
pub async fn connect(environment: &Environment, progress: &dyn Progress) -> Result<PgPool, Error> {
    let database = postgres::ensure_running(environment, progress).await?;
    let pool = metadata::connect(&database.url, CONNECTIONS).await?;
    metadata::schema::ensure(&pool).await?;
    Ok(pool)
}

/// The socket of Modal's API, on one machine.
pub(crate) const MODAL_SOCKET: &str = "modal.sock";

/// The environment's app.
#[must_use]
pub fn app_name(environment: &str) -> String {
    format!("modalflow-{environment}")
}
