//! What can go wrong while an environment is made, opened or kept: each with what the user can do about it.

use std::path::PathBuf;

/// Everything this room fails with. Messages are fragments; a `hint:` line stands where the user can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No directory to keep anything in.
    #[error(
        "find a place for modalflow's files: neither MODALFLOW_HOME, XDG_DATA_HOME nor HOME is set\nhint: set MODALFLOW_HOME to a directory of yours"
    )]
    NoHome,

    /// A name that could not be a directory, a database role and a label at once.
    #[error(
        "use {name:?} as an environment's name: {problem}\nhint: 1 to 41 characters of a-z, 0-9 and -, beginning with a letter or digit, for example \"dev\""
    )]
    Name { name: String, problem: &'static str },

    /// The file system said no.
    #[error("{what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },

    /// A directory that somebody else owns, where ours should be.
    #[error(
        "use {}: it belongs to user {owner}, not to user {us}\nhint: remove it, or set MODALFLOW_HOME to a shorter path of yours",
        path.display()
    )]
    ForeignDirectory { path: PathBuf, owner: u32, us: u32 },

    /// Something in config.yaml. Path, line and key are part of `place`.
    #[error("read {place}: {problem}\nhint: {hint}")]
    Config {
        place: String,
        problem: String,
        hint: String,
    },

    /// A connection string that is not for Postgres.
    #[error(
        "use a {scheme} database: modalflow needs Postgres\nhint: database.connection_string begins with postgresql:// ; without the key an embedded Postgres is used"
    )]
    NotPostgres { scheme: String },

    /// A connection string that could not be taken apart.
    #[error(
        "read the database's connection string: {problem}\nhint: it looks like postgresql://user:password@host:5432/dbname"
    )]
    ConnectionString { problem: String },

    /// No environment of that name.
    #[error("find environment {name:?}{known}\nhint: {hint}")]
    UnknownEnvironment {
        name: String,
        known: String,
        hint: String,
    },

    /// A second `create`.
    #[error(
        "create environment {name:?}: it exists already\nhint: see it with `modalflow-host env show --env {name}`, or remove it first with `modalflow-host destroy --env {name} --yes`"
    )]
    EnvironmentExists { name: String },

    /// A `create` that was killed, found by something else than `create`.
    #[error(
        "open environment {name:?}: its creation was never finished\nhint: run `modalflow-host create --env {name}` again; it begins anew"
    )]
    Unfinished { name: String },

    /// A file of ours that says nonsense.
    #[error("read {}: {problem}\nhint: {hint}", path.display())]
    Damaged {
        path: PathBuf,
        problem: String,
        hint: &'static str,
    },

    /// Another process held the lock for longer than we wait.
    #[error(
        "get the lock {} within {seconds} s: {holder}\nhint: wait for the other modalflow process to end",
        path.display()
    )]
    Locked {
        path: PathBuf,
        seconds: u64,
        holder: String,
    },

    /// No Postgres programs on this machine and none to be had.
    #[error(
        "find Postgres programs (13 or newer): none on PATH, none under /usr/lib/postgresql, and the wheel could not be installed: {problem}\nhint: install Postgres (Debian: apt-get install postgresql), or set database.connection_string in config.yaml"
    )]
    NoPostgres { problem: String },

    /// We are root and nobody else may be asked.
    #[error(
        "find a user to run Postgres as: it refuses to run as root, and neither the user postgres nor nobody exists\nhint: run modalflow-host as an ordinary user, or set database.connection_string in config.yaml"
    )]
    NoPostgresUser,

    /// A program of Postgres failed.
    #[error("{step} Postgres in {}: {output}\nhint: {hint}", data.display())]
    Postgres {
        step: &'static str,
        data: PathBuf,
        output: String,
        hint: String,
    },

    /// The database did not answer as it should. The place never holds a password.
    #[error("{step} database {place}: {problem}\nhint: {hint}")]
    Database {
        step: &'static str,
        place: String,
        problem: String,
        hint: String,
    },

    /// The user's database holds the tables of another Airflow.
    #[error(
        "use database {place}: its tables are of another Airflow (schema revision {found}, Airflow 3.3.2 has d2f4e1b3c5a7)\nhint: {hint}"
    )]
    SchemaRevision {
        place: String,
        found: String,
        hint: String,
    },

    /// A function on Modal was not told what it belongs to.
    #[error(
        "find the environment of this container: {name} is not set\nhint: only functions that `modalflow-host create` deployed have it"
    )]
    NotInContainer { name: &'static str },

    /// It was told something else.
    #[error(
        "read the variable {name}: {problem}\nhint: deploy the functions anew with `modalflow-host create`"
    )]
    ContainerVariable { name: &'static str, problem: String },

    /// No interpreter.
    #[error(
        "find Python 3.10 to 3.13: {tried}\nhint: install one (Debian: apt-get install python3 python3-venv), or set MODALFLOW_PYTHON to its path"
    )]
    NoPython { tried: String },

    /// Making the Python environment.
    #[error("{step}: {output}\nhint: {hint}")]
    PythonSetup {
        step: &'static str,
        output: String,
        hint: String,
    },

    /// `airflow db migrate`.
    #[error("make Airflow's tables (airflow db migrate): {output}\nhint: the whole output is in {}", log.display())]
    Migrate { output: String, log: PathBuf },

    /// The real `airflow api-server`.
    #[error("start the UI (airflow api-server): {output}\nhint: the whole output is in {}", log.display())]
    Ui { output: String, log: PathBuf },

    /// No port on 127.0.0.1.
    #[error("get a port on 127.0.0.1{wanted}\nhint: {hint}")]
    Port {
        wanted: String,
        hint: &'static str,
        source: std::io::Error,
    },

    /// A program could not be started at all.
    #[error("start {program}")]
    Spawn {
        program: String,
        source: std::io::Error,
    },
}

impl Error {
    /// An `Io` error's constructor that fits `map_err`.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { what, path, source }
    }
}
