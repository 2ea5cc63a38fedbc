//! How an environment comes to be: directories, keys, Postgres, Airflow's tables; what a failed attempt left goes first.

use std::net::Ipv4Addr;
use std::path::Path;

use super::destroy::remove_remains;
use super::given::Given;
use super::{Environment, PATIENCE, lock_path};
use crate::home::{Home, Name, directory, private_directory};
use crate::progress::Progress;
use crate::secrets::{Secrets, write_private};
use crate::state::{Phase, State};
use crate::{AIRFLOW_VERSION, Error, Result, lock, migrate, postgres, python};

impl Environment {
    /// Makes an environment: directories, keys, Postgres, Python with Airflow, Airflow's tables. What a failed or
    /// killed attempt left is removed first, so that asking again is always right.
    pub async fn create(
        home: &Home,
        name: &str,
        config: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Environment> {
        let name = Name::new(name)?;
        // A config file with a mistake must not leave anything behind.
        let given = match config {
            Some(path) => Given::read(path)?,
            None => Given::default(),
        };
        directory(&home.environments())?;
        let _lock = lock::take(&lock_path(home, &name), PATIENCE).await?;
        let root = home.environment(&name);
        if root.exists() {
            match State::read(&root.join("state.json")) {
                Ok(state) if state.phase == Phase::Ready => {
                    return Err(Error::EnvironmentExists {
                        name: name.to_string(),
                    });
                }
                _ => remove_remains(home, &name, progress).await?,
            }
        }
        // Python is first because it takes longest and belongs to no environment: a failure later keeps it.
        let python = python::ensure(home, progress).await?;
        let mut environment = lay_out(home, name, &given)?;
        match environment.furnish(&python, progress).await {
            Ok(()) => Ok(environment),
            Err(error) => {
                if let Err(second) = remove_remains(home, &environment.name, progress).await {
                    tracing::warn!(error = %second, "could not clean up after a failed create");
                }
                Err(error)
            }
        }
    }

    /// What `create` does once the directories are there.
    async fn furnish(&mut self, python: &python::PythonEnv, progress: &dyn Progress) -> Result<()> {
        if self.config.connection_string.is_none() {
            let cluster = postgres::choose_place(self, progress).await?;
            self.state.postgres = Some(cluster);
            // Written before anything is made outside, so that whoever cleans up knows of it.
            self.write_state()?;
            postgres::initialise(self, progress).await?;
        }
        postgres::ensure_running(self, progress).await?;
        postgres::create_database(self).await?;
        migrate::migrate(self, python, progress).await?;
        self.state.phase = Phase::Ready;
        self.write_state()
    }
}

#[cfg(test)]
impl Environment {
    /// An environment with its Postgres but without Airflow, which takes a tenth of the time.
    /// With `programs`, those of its Postgres.
    pub(crate) async fn without_airflow(
        home: &Home,
        name: &str,
        programs: Option<std::path::PathBuf>,
    ) -> Result<Environment> {
        let progress = crate::progress::Silent;
        let mut made = lay_out(home, Name::new(name)?, &Given::default())?;
        made.state.postgres = Some(match programs {
            Some(programs) => postgres::choose_place_with(&made, programs).await?,
            None => postgres::choose_place(&made, &progress).await?,
        });
        made.write_state()?;
        postgres::initialise(&made, &progress).await?;
        postgres::ensure_running(&made, &progress).await?;
        postgres::create_database(&made).await?;
        made.state.phase = Phase::Ready;
        made.write_state()?;
        Ok(made)
    }
}

/// The directories, keys and files of a new environment, marked unfinished.
fn lay_out(home: &Home, name: Name, given: &Given) -> Result<Environment> {
    let root = home.environment(&name);
    // A Postgres that runs as another user must pass through; all below but its own directory is closed to it.
    let passage = if nix::unistd::geteuid().is_root() {
        0o711
    } else {
        0o700
    };
    private_directory(&root, passage)?;
    let (listener, execution_api_port) = free_port()?;
    drop(listener);
    let environment = Environment {
        state: State {
            id: hex::encode(rand::random::<[u8; 6]>()),
            phase: Phase::Creating,
            created_at: chrono::DateTime::from(std::time::SystemTime::now()),
            airflow_version: AIRFLOW_VERSION.to_owned(),
            execution_api_port,
            postgres: None,
            modal_environment: None,
            modal: None,
        },
        home: home.clone(),
        name,
        config: given.config.clone(),
        secrets: Secrets::generate(),
        container: None,
        planned_requirements: None,
    };
    environment.write_state()?;
    for path in [
        environment.run_dir(),
        environment.volume(),
        environment.dags_dir(),
        environment.plugins_dir(),
        environment.logs_dir(),
        environment.xcom_dir(),
        environment.airflow_home(),
    ] {
        private_directory(&path, 0o700)?;
    }
    given.keep(&root)?;
    environment.secrets.write(&root.join("secrets.json"))?;
    // Without this file Airflow would write one of 2,000 lines, with a Fernet key of its own in it.
    write_private(
        &environment.airflow_home().join("airflow.cfg"),
        b"# Every setting comes from AIRFLOW__ variables that modalflow-host sets.\n",
    )?;
    crate::airflow::write_passwords(&environment)?;
    Ok(environment)
}

/// A port of 127.0.0.1 that nobody has, below those that the kernel hands to outgoing connections: it shall still
/// be free when the host starts again.
pub(super) fn free_port() -> Result<(std::net::TcpListener, u16)> {
    let refused = |source| Error::Port {
        wanted: String::new(),
        hint: "is the loopback interface up?",
        source,
    };
    let chosen = (0..50).find_map(|_| {
        let port = 20_000 + rand::random::<u16>() % 12_000;
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    });
    let listener = match chosen {
        Some(listener) => listener,
        None => std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(refused)?,
    };
    let port = listener.local_addr().map_err(refused)?.port();
    Ok((listener, port))
}
