//! Chooses the Python that Airflow is installed for: CPython 3.10 to 3.13, what the lock has wheels for.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::process::{last_lines, run};
use crate::{Error, Result};

use super::PythonEnv;

/// Tried in this order, unless MODALFLOW_PYTHON names one.
const CANDIDATES: &[&str] = &[
    "python3.12",
    "python3.11",
    "python3.13",
    "python3.10",
    "python3",
    "python",
];

/// A usable interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// The real program, behind shims and links of version managers.
    pub(super) path: PathBuf,
    /// For example 3.11.7.
    pub(super) version: String,
    /// Whether `python -m venv` can work: Debian keeps that in a package of its own.
    pub(super) has_venv: bool,
}

/// What we ask each candidate.
const QUESTION: &str = "\
import importlib.util, os, sys
print(sys.implementation.name)
print('.'.join(map(str, sys.version_info[:3])))
print(os.path.realpath(sys.executable) if sys.prefix == sys.base_prefix else sys.executable)
print(importlib.util.find_spec('venv') is not None and importlib.util.find_spec('ensurepip') is not None)
";

/// The first candidate that will do, and of those rather one with venv.
pub(super) async fn choose(wanted: Option<&Path>) -> Result<Interpreter> {
    if let Some(wanted) = wanted {
        return ask(wanted.as_os_str())
            .await
            .map_err(|problem| Error::NoPython {
                tried: format!("MODALFLOW_PYTHON is {}, {problem}", wanted.display()),
            });
    }
    let mut tried = Vec::new();
    let mut without_venv = None;
    for candidate in CANDIDATES {
        match ask(candidate.as_ref()).await {
            Ok(interpreter) if interpreter.has_venv => return Ok(interpreter),
            Ok(interpreter) => without_venv = without_venv.or(Some(interpreter)),
            Err(problem) => tried.push(format!("{candidate} {problem}")),
        }
    }
    without_venv.ok_or_else(|| Error::NoPython {
        tried: tried.join(", "),
    })
}

/// Whether a finished environment was made from the interpreter that MODALFLOW_PYTHON names now.
pub(super) fn is_same(made_from: &Path, wanted: &Path) -> bool {
    let found = if wanted.components().count() > 1 {
        Some(wanted.to_owned())
    } else {
        std::env::var_os("PATH").and_then(|path| {
            std::env::split_paths(&path)
                .map(|directory| directory.join(wanted))
                .find(|program| program.is_file())
        })
    };
    found.is_some_and(|found| {
        found == made_from
            || matches!((found.canonicalize(), made_from.canonicalize()), (Ok(a), Ok(b)) if a == b)
    })
}

/// What the new environment says about itself.
pub(super) async fn describe(python: &Path, made_from: &Interpreter) -> Result<PythonEnv> {
    let mut command = Command::new(python);
    command.args([
        "-I",
        "-c",
        "import importlib.metadata, sysconfig\n\
        print(sysconfig.get_path('purelib'))\n\
        print(importlib.metadata.version('apache-airflow'))",
    ]);
    let output = run(command).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    match (output.status.success(), lines.next(), lines.next()) {
        (true, Some(site_packages), Some(airflow_version)) => Ok(PythonEnv {
            python: python.to_owned(),
            site_packages: PathBuf::from(site_packages),
            airflow_version: airflow_version.to_owned(),
            made_from: made_from.path.clone(),
            python_version: made_from.version.clone(),
        }),
        _ => Err(Error::PythonSetup {
            step: "look into the new Python environment",
            output: last_lines(&output, 5),
            hint: "remove the directory python below MODALFLOW_HOME and try again".to_owned(),
        }),
    }
}

/// Asks one program whether it will do; the answer is an end to a sentence that begins with its name.
async fn ask(program: &std::ffi::OsStr) -> std::result::Result<Interpreter, String> {
    let mut command = Command::new(program);
    command.args(["-I", "-c", QUESTION]);
    let output = run(command).await.map_err(|_| "is not there".to_owned())?;
    if !output.status.success() {
        return Err("does not run".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (implementation, version, path, has_venv) = (next(), next(), next(), next());
    if implementation != "cpython" {
        return Err(format!("is {implementation}"));
    }
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(3), Some(10..=13)) => Ok(Interpreter {
            path: PathBuf::from(path),
            version,
            has_venv: has_venv == "True",
        }),
        _ => Err(format!("is {version}")),
    }
}
