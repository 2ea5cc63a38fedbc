//! Installs hash-locked wheels: with uv, which is an order of magnitude faster, or with venv and pip where uv
//! cannot be had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::home::Home;
use crate::process::{last_lines, run};
use crate::progress::Progress;
use crate::{Error, Result};

use super::interpreter::Interpreter;
use super::{COMPLETE, UV_LOCK, hash, index};

/// What installs.
pub(super) enum Installer {
    Uv {
        program: PathBuf,
        variables: BTreeMap<String, String>,
    },
    Pip,
}

/// uv from PATH, else from PyPI, else pip.
pub(super) async fn get(
    home: &Home,
    python: &Interpreter,
    progress: &dyn Progress,
) -> Result<Installer> {
    let uv = |program: PathBuf| Installer::Uv {
        program,
        variables: index::uv_variables(),
    };
    if works(Path::new("uv")).await {
        return Ok(uv(PathBuf::from("uv")));
    }
    match fetch_uv(home, python, progress).await {
        Ok(program) => Ok(uv(program)),
        Err(error) if python.has_venv => {
            progress.note(&format!(
                "uv could not be had, pip does it more slowly: {error}"
            ));
            Ok(Installer::Pip)
        }
        Err(error) => Err(error),
    }
}

impl Installer {
    /// A new virtual environment; answers with its interpreter.
    pub(super) async fn environment(
        &self,
        python: &Interpreter,
        place: &Path,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let _step = progress.step("making a Python environment");
        let command = match self {
            Installer::Uv { program, variables } => {
                let mut command = Command::new(program);
                command
                    .envs(variables)
                    .args(["venv", "--quiet", "--python"])
                    .arg(&python.path)
                    .arg(place);
                command
            }
            Installer::Pip => {
                let mut command = Command::new(&python.path);
                command.args(["-I", "-m", "venv"]).arg(place);
                command
            }
        };
        expect("make a Python environment", command).await?;
        Ok(place.join("bin/python"))
    }

    /// Installs a lock into a virtual environment, bytecode included: without it every first import is slow.
    pub(super) async fn install(
        &self,
        python: &Path,
        requirements: &str,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        let _step = progress.step(what);
        let file = lock_file(requirements)?;
        let mut command = match self {
            Installer::Uv { program, variables } => {
                let mut command = Command::new(program);
                command
                    .envs(variables)
                    .args([
                        "pip",
                        "install",
                        "--quiet",
                        "--compile-bytecode",
                        "--python",
                    ])
                    .arg(python);
                command
            }
            Installer::Pip => {
                let mut command = Command::new(python);
                command.args(["-I", "-m", "pip", "install", "--quiet"]);
                command
            }
        };
        command
            .args([
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "-r",
            ])
            .arg(file.path());
        expect("install the locked packages", command).await
    }

    /// Unpacks wheels into a directory.
    pub(super) async fn unpack(
        &self,
        python: &Interpreter,
        requirements: &str,
        place: &Path,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        let _step = progress.step(what);
        let file = lock_file(requirements)?;
        let command = match self {
            Installer::Uv { program, variables } => {
                let mut command = Command::new(program);
                command
                    .envs(variables)
                    .args(["pip", "install", "--quiet", "--python"])
                    .arg(&python.path);
                into(&mut command, place, file.path());
                command
            }
            Installer::Pip => pip_into(python, place, file.path()),
        };
        expect("install the locked packages", command).await
    }
}

/// uv in a directory of its own below MODALFLOW_HOME, fetched once.
async fn fetch_uv(home: &Home, python: &Interpreter, progress: &dyn Progress) -> Result<PathBuf> {
    let place = home.python_dir().join(format!("uv-{}", hash(&[UV_LOCK])));
    let program = place.join("bin/uv");
    if place.join(COMPLETE).exists() && works(&program).await {
        return Ok(program);
    }
    if place.exists() {
        std::fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
    }
    let _step = progress.step("fetching uv");
    let file = lock_file(UV_LOCK)?;
    if python.has_venv {
        let mut venv = Command::new(&python.path);
        venv.args(["-I", "-m", "venv"]).arg(&place);
        expect("make a Python environment for uv", venv).await?;
        let mut install = Command::new(place.join("bin/python"));
        install
            .args(["-I", "-m", "pip", "install", "--quiet", "--no-deps"])
            .args(["--require-hashes", "--only-binary", ":all:", "-r"])
            .arg(file.path());
        expect("fetch uv", install).await?;
    } else {
        // No venv, but perhaps a pip: it can unpack a wheel into a directory.
        expect("fetch uv", pip_into(python, &place, file.path()))
            .await
            .map_err(without_venv)?;
    }
    if !works(&program).await {
        return Err(Error::PythonSetup {
            step: "fetch uv",
            output: format!("{} does not run", program.display()),
            hint: "install uv yourself, so that it is on PATH".to_owned(),
        });
    }
    crate::secrets::write_private(&place.join(COMPLETE), b"{}\n")?;
    Ok(program)
}

fn pip_into(python: &Interpreter, place: &Path, file: &Path) -> Command {
    let mut command = Command::new(&python.path);
    command.args(["-I", "-m", "pip", "install", "--quiet"]);
    into(&mut command, place, file);
    command
}

fn into(command: &mut Command, place: &Path, file: &Path) {
    command
        .args(["--no-deps", "--require-hashes", "--only-binary", ":all:"])
        .arg("--target")
        .arg(place)
        .arg("-r")
        .arg(file);
}

fn without_venv(error: Error) -> Error {
    match error {
        Error::PythonSetup { step, output, .. } => Error::PythonSetup {
            step,
            output,
            hint: "this Python has neither venv nor pip: install them (Debian: apt-get install python3-venv), or install uv"
                .to_owned(),
        },
        other => other,
    }
}

async fn works(uv: &Path) -> bool {
    let mut command = Command::new(uv);
    command.arg("--version");
    run(command)
        .await
        .is_ok_and(|output| output.status.success())
}

/// pip and uv read locks from files only.
fn lock_file(requirements: &str) -> Result<tempfile::NamedTempFile> {
    let temporary = std::env::temp_dir();
    let file = tempfile::Builder::new()
        .prefix("modalflow-")
        .suffix(".txt")
        .tempfile()
        .map_err(Error::io("write a file in", &temporary))?;
    std::fs::write(file.path(), requirements).map_err(Error::io("write", file.path()))?;
    Ok(file)
}

async fn expect(step: &'static str, mut command: Command) -> Result<()> {
    crate::airflow::clean(&mut command);
    let output = run(command).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::PythonSetup {
        step,
        output: last_lines(&output, 12),
        hint: "packages come from the index that pip and uv are set up for; is it reachable? A second try goes on where this one stopped"
            .to_owned(),
    })
}
