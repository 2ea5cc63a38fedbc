//! An environment's whole life: create, open, list, destroy, and the paths and addresses everybody asks it for.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::container::Container;
use crate::home::{Home, Name, directory, private_directory, socket_path};
use crate::postgres::{self, ConnectionString};
use crate::progress::Progress;
use crate::secrets::{Secrets, write_private};
use crate::state::{OnModal, Phase, State};
use crate::{AIRFLOW_VERSION, Error, Result, lock, migrate, process, python};

/// How long one modalflow waits for another that creates or destroys the same environment.
const PATIENCE: Duration = Duration::from_secs(600);
/// The environment's copy of what `modal.requirements` names.
const REQUIREMENTS: &str = "requirements.txt";

/// One environment, opened.
#[derive(Debug, Clone)]
pub struct Environment {
    pub(crate) home: Home,
    pub(crate) name: Name,
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) secrets: Secrets,
    /// Set in a function on Modal.
    pub(crate) container: Option<Container>,
    /// Of a config file that was only looked at.
    pub(crate) planned_requirements: Option<Option<String>>,
}

/// What `destroy` did, one line each, for the person who asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    pub lines: Vec<String>,
}

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

    /// Opens an environment that `create` finished.
    pub fn open(home: &Home, name: &str) -> Result<Environment> {
        // First of all: what `create` has not finished may lack any of its files.
        if Environment::state_of(home, name)?.phase != Phase::Ready {
            return Err(Error::Unfinished {
                name: name.to_owned(),
            });
        }
        Environment::open_unfinished(home, name)
    }

    /// The same while `create` is at it: its Postgres has a keeper already.
    pub(crate) fn open_unfinished(home: &Home, name: &str) -> Result<Environment> {
        let name = Name::new(name)?;
        let root = home.environment(&name);
        if !root.join("state.json").exists() {
            return Err(unknown(home, &name));
        }
        Ok(Environment {
            home: home.clone(),
            state: State::read(&root.join("state.json"))?,
            config: Config::read(&root.join("config.yaml"))?,
            secrets: Secrets::read(&root.join("secrets.json"))?,
            name,
            container: None,
            planned_requirements: None,
        })
    }

    /// The names of all finished environments, in order.
    pub fn list(home: &Home) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(home.environments()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", home.environments())(error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| Name::new(entry.ok()?.file_name().to_str()?).ok())
            .filter(|name| {
                State::read(&home.environment(name).join("state.json"))
                    .is_ok_and(|state| state.phase == Phase::Ready)
            })
            .map(|name| name.to_string())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Ends the environment's processes and removes its data. In the user's own database only the schema
    /// `modalflow` goes. Works on what a killed `create` left, too.
    pub async fn destroy(home: &Home, name: &str, progress: &dyn Progress) -> Result<Destroyed> {
        let name = Name::new(name)?;
        if !home.environment(&name).exists() {
            return Err(unknown(home, &name));
        }
        let _lock = lock::take(&lock_path(home, &name), PATIENCE).await?;
        let destroyed = demolish(home, &name, progress).await?;
        let _ = std::fs::remove_file(lock_path(home, &name));
        Ok(destroyed)
    }

    /// As it would be with other settings; nothing is kept.
    pub fn with_config(mut self, config: Option<&Path>) -> Result<Environment> {
        if let Some(path) = config {
            let given = Given::read(path)?;
            self.config = given.config;
            self.planned_requirements = Some(
                given
                    .requirements
                    .map(|text| String::from_utf8_lossy(&text).into_owned()),
            );
        }
        Ok(self)
    }

    /// Takes new settings of an environment that exists.
    pub fn reconfigure(&mut self, config: &Path) -> Result<()> {
        let given = Given::read(config)?;
        given.keep(&self.root())?;
        self.config = given.config;
        Ok(())
    }

    /// What tasks need beside Airflow: the text of `modal.requirements`.
    pub fn requirements(&self) -> Result<Option<String>> {
        if let Some(planned) = &self.planned_requirements {
            return Ok(planned.clone());
        }
        let path = self.root().join(REQUIREMENTS);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// What is kept of an environment whose other files may be unreadable.
    pub fn state_of(home: &Home, name: &str) -> Result<State> {
        let name = Name::new(name)?;
        let path = home.environment(&name).join("state.json");
        if !path.exists() {
            return Err(unknown(home, &name));
        }
        State::read(&path)
    }

    /// Remembers Modal's environment; from now on there may be something in it.
    pub fn remember_modal_environment(&mut self, name: &str) -> Result<()> {
        if self.state.modal_environment.as_deref() != Some(name) {
            self.state.modal_environment = Some(name.to_owned());
            self.write_state()?;
        }
        Ok(())
    }

    /// Remembers what was deployed on Modal; none: it was taken away.
    pub fn remember_deployment(&mut self, deployment: Option<OnModal>) -> Result<()> {
        if self.state.modal != deployment {
            self.state.modal = deployment;
            self.write_state()?;
        }
        Ok(())
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

    fn write_state(&self) -> Result<()> {
        self.state.write(&self.root().join("state.json"))
    }

    /// Keeps the Execution API's port if it is free, else chooses another and remembers it. Answers with the
    /// listener and, when the port changed, the old one: workers that still run then have lost their host.
    pub fn listen_for_execution_api(&mut self) -> Result<(std::net::TcpListener, Option<u16>)> {
        let wanted = self.state.execution_api_port;
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
            Ok(listener) => Ok((listener, None)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let (listener, port) = free_port()?;
                self.state.execution_api_port = port;
                self.write_state()?;
                Ok((listener, Some(wanted)))
            }
            Err(source) => Err(Error::Port {
                wanted: format!(":{wanted}"),
                hint: "see what the system says; the port stands in the environment's state.json",
                source,
            }),
        }
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The environment's directory.
    pub fn root(&self) -> PathBuf {
        self.home.environment(&self.name)
    }

    /// Process ids, sockets and logs of what runs now.
    pub fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }

    /// The volume: what every worker sees.
    pub fn volume(&self) -> PathBuf {
        match &self.container {
            Some(container) => container.volume.clone(),
            None => self.root().join("volume"),
        }
    }

    pub fn dags_dir(&self) -> PathBuf {
        self.volume().join("dags")
    }

    pub fn logs_dir(&self) -> PathBuf {
        self.volume().join("logs")
    }

    pub fn xcom_dir(&self) -> PathBuf {
        self.volume().join("xcom")
    }

    /// Airflow's plugins folder: users' own timetables, weight rules and whatever else an `AirflowPlugin` brings.
    pub fn plugins_dir(&self) -> PathBuf {
        self.volume().join("plugins")
    }

    /// AIRFLOW_HOME of every Airflow process.
    pub fn airflow_home(&self) -> PathBuf {
        self.root().join("airflow")
    }

    /// The path of a Unix socket of this environment, always short enough to be one.
    pub fn socket(&self, file_name: &str) -> Result<PathBuf> {
        socket_path(&self.run_dir(), file_name)
    }

    pub fn execution_api_port(&self) -> u16 {
        self.state.execution_api_port
    }

    /// What workers call; ends with `/execution/`.
    pub fn execution_api_url(&self) -> String {
        if let Some(modal) = &self.state.modal {
            return format!(
                "{}/execution/",
                modal.execution_api_url.trim_end_matches('/')
            );
        }
        format!(
            "http://127.0.0.1:{}/execution/",
            self.state.execution_api_port
        )
    }

    /// The database's address, whether it runs just now or not. Holds the password.
    pub fn connection_string(&self) -> ConnectionString {
        match (&self.config.connection_string, &self.state.postgres) {
            (Some(external), _) => external.clone(),
            (None, Some(cluster)) => postgres::address(cluster, &self.secrets, postgres::DATABASE),
            (None, None) => unreachable_cluster(),
        }
    }
}

#[cfg(test)]
impl Environment {
    /// An environment with its Postgres but without Airflow, which takes a tenth of the time.
    /// With `programs`, those of its Postgres.
    pub(crate) async fn without_airflow(
        home: &Home,
        name: &str,
        programs: Option<PathBuf>,
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

/// A config file with all that it brings.
#[derive(Default)]
struct Given {
    config: Config,
    text: Vec<u8>,
    /// The file that `modal.requirements` names, seen from the config file.
    requirements: Option<Vec<u8>>,
}

impl Given {
    fn read(path: &Path) -> Result<Given> {
        let config = Config::read(path)?;
        let requirements = match &config.modal.requirements {
            Some(named) => {
                let named = path.parent().unwrap_or(Path::new("")).join(named);
                Some(std::fs::read(&named).map_err(Error::io("read modal.requirements,", named))?)
            }
            None => None,
        };
        Ok(Given {
            text: std::fs::read(path).map_err(Error::io("read", path))?,
            config,
            requirements,
        })
    }

    /// Puts the files into an environment's directory.
    fn keep(&self, root: &Path) -> Result<()> {
        // The connection string in it may hold a password.
        write_private(&root.join("config.yaml"), &self.text)?;
        let kept = root.join(REQUIREMENTS);
        match &self.requirements {
            Some(text) => write_private(&kept, text),
            None => match std::fs::remove_file(&kept) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", kept)(error))
                }
                _ => Ok(()),
            },
        }
    }
}

/// `furnish` sets the cluster before anybody else sees the environment, and `open` refuses unfinished ones.
fn unreachable_cluster() -> ConnectionString {
    unreachable!("an environment without a connection string has an embedded Postgres")
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
fn free_port() -> Result<(std::net::TcpListener, u16)> {
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

/// The lock lies beside the environment, as the environment itself comes and goes.
fn lock_path(home: &Home, name: &Name) -> PathBuf {
    home.environments().join(format!(".{name}.lock"))
}

fn unknown(home: &Home, name: &Name) -> Error {
    let known = Environment::list(home).unwrap_or_default();
    let nearest = known
        .iter()
        .map(|other| (strsim::jaro_winkler(name.as_str(), other), other))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    Error::UnknownEnvironment {
        name: name.to_string(),
        known: if known.is_empty() {
            ": there is none yet".to_owned()
        } else {
            format!(": there is {}", known.join(", "))
        },
        hint: match nearest {
            Some((_, other)) => format!("did you mean {other}?"),
            None => format!("make it with `modalflow-host create --env {name}`"),
        },
    }
}

/// Cleans up after a `create` that failed or was killed.
async fn remove_remains(home: &Home, name: &Name, progress: &dyn Progress) -> Result<()> {
    demolish(home, name, progress).await.map(drop)
}

/// Ends what runs, then removes what lies: the reverse of `create`, whatever of it happened.
async fn demolish(home: &Home, name: &Name, progress: &dyn Progress) -> Result<Destroyed> {
    let root = home.environment(name);
    let mut destroyed = Destroyed::default();
    let mut say = |line: String| destroyed.lines.push(line);
    let state = State::read(&root.join("state.json"));
    let config = Config::read(&root.join("config.yaml"));
    {
        let _step = progress.step("stopping the environment's processes");
        for (what, recorded) in process::all_running(&root.join("run")) {
            recorded.end(Duration::from_secs(10)).await;
            say(format!("stopped {what} (process {})", recorded.pid));
        }
    }
    if let Ok(state) = &state
        && let Some(cluster) = &state.postgres
    {
        let _step = progress.step("stopping Postgres and removing its data");
        postgres::stop_cluster(cluster).await?;
        if let Some(outside) = &cluster.outside {
            remove_tree(outside)?;
            say(format!("removed {}", outside.display()));
        }
        // Sockets of long paths lie under /tmp.
        if cluster.sockets.starts_with("/tmp") && !cluster.sockets.starts_with(&root) {
            remove_tree(&cluster.sockets)?;
        }
    }
    if let (Ok(config), Ok(state)) = (&config, &state)
        && let Some(external) = &config.connection_string
        && state.phase == Phase::Ready
    {
        postgres::drop_our_schema(external).await?;
        say(format!(
            "dropped the schema modalflow in {}; Airflow's own tables there were left as they are",
            external.place()
        ));
    } else if let (Err(error), Ok(state)) = (&config, &state)
        && state.phase == Phase::Ready
        && state.postgres.is_none()
    {
        say(format!(
            "left the schema modalflow in the database as it is: which one is not known ({error})"
        ));
    }
    remove_tree(&root)?;
    say(format!("removed {}", root.display()));
    Ok(destroyed)
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
