//! Airflow's tables: made by the real `airflow db migrate`, and only in a database that has none yet. Tables of
//! another Airflow are refused, never changed.

use crate::airflow::{Purpose, command};
use crate::postgres::schema_revision;
use crate::process::{run, tail};
use crate::progress::Progress;
use crate::python::PythonEnv;
use crate::{Environment, Error, Result, SCHEMA_REVISION};

/// Makes the tables, or finds them to be those of Airflow 3.3.2.
pub async fn migrate(
    environment: &Environment,
    python: &PythonEnv,
    progress: &dyn Progress,
) -> Result<()> {
    if is_ours(environment).await? {
        return Ok(());
    }
    let _step = progress.step("making Airflow's tables");
    let output = run(command(
        environment,
        python,
        Purpose::Migrate,
        &["db", "migrate"],
    ))
    .await?;
    let log = environment.run_dir().join("db-migrate.log");
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    crate::secrets::write_private(&log, &text)?;
    let failed = |output: String| Error::Migrate {
        output,
        log: log.clone(),
    };
    if !output.status.success() {
        return Err(failed(tail(&String::from_utf8_lossy(&text), 8)));
    }
    if is_ours(environment).await? {
        Ok(())
    } else {
        Err(failed(
            "it ended well, but the database has no tables".to_owned(),
        ))
    }
}

/// Whether the tables are there; an error if they are another Airflow's.
async fn is_ours(environment: &Environment) -> Result<bool> {
    let address = environment.connection_string();
    match schema_revision(&address).await? {
        None => Ok(false),
        Some(revision) if revision == SCHEMA_REVISION => Ok(true),
        Some(found) => Err(Error::SchemaRevision {
            place: address.place(),
            found,
            hint: "give modalflow a database of its own, or bring this one to 3.3.2 with that Airflow's `airflow db migrate`"
                .to_owned(),
        }),
    }
}
