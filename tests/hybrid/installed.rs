//! The package as a user has it: built once, installed into a fresh environment on top of a Python with Airflow.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use support::{Ran, prepared};

/// A fresh environment with the wheel in it. Gone when dropped.
pub(crate) struct Installed {
    folder: TempDir,
}

impl Installed {
    /// `python` has Airflow and Modal's client.
    pub(crate) fn on(python: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installed = Self { folder };
        run(Command::new(python)
            .args(["-m", "venv", "--without-pip"])
            .arg(installed.folder.path()));
        // What the other environment has, this one sees; what it gets stays its own.
        let script = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let theirs = run(Command::new(python).args(["-c", script]));
        let own = run(Command::new(installed.program("python")).args(["-c", script]));
        // `addsitedir` reads the .pth files that lie there, too.
        let line = format!("import site; site.addsitedir({:?})\n", theirs.trim());
        std::fs::write(Path::new(own.trim()).join("airflow.pth"), line).unwrap();
        let pip = ["-m", "pip", "--quiet", "--python"];
        run(Command::new(tools())
            .args(pip)
            .arg(installed.program("python"))
            .args(["install", "--no-deps", "--no-index"])
            .arg(wheel()));
        // Airflow's and Modal's own commands, run by this Python.
        for name in ["airflow", "modal"] {
            let module = if name == "modal" { "modal" } else { "airflow" };
            let script = format!(
                "#!{}\nimport runpy\nrunpy.run_module({module:?}, run_name='__main__', alter_sys=True)\n",
                installed.program("python").display()
            );
            write_program(&installed.program(name), &script);
        }
        installed
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.path().join("bin").join(name)
    }
}

/// The package's own cases.
pub(crate) fn cases(installed: &Installed) {
    let carried = run(Command::new(installed.program("modalflow-host")).arg("--version"));
    assert!(carried.starts_with("modalflow-host "), "{carried}");
    run(python(installed)
        .args(["-m", "unittest", "discover", "--start-directory"])
        .arg(package().join("tests")));
}

/// A real Airflow with ModalExecutor.
pub(crate) fn compat(installed: &Installed) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hybrid/compat.py");
    let told = run(python(installed).arg(script));
    println!("{told}");
}

fn python(installed: &Installed) -> Command {
    let mut command = Command::new(installed.program("python"));
    // Nobody's Airflow has a say in what passes; Modal's token is asked for by `tests/hybrid/run --live` alone.
    let is_live = std::env::var_os("MODALFLOW_TEST_LIVE").is_some();
    for (name, _) in std::env::vars() {
        let is_modals = name.starts_with("MODAL_") && !is_live;
        if is_modals || name.starts_with("AIRFLOW") || name.starts_with("PYTHON") {
            command.env_remove(name);
        }
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Built by the first test that asks.
fn wheel() -> PathBuf {
    static WHEEL: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, wheel) = WHEEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let built = run(Command::new(package().join("build-wheel"))
            .arg(folder.path())
            .arg(prepared("MODALFLOW_TEST_HOST"))
            .env("PYTHON", tools()));
        (folder, PathBuf::from(built.trim()))
    });
    wheel.clone()
}

/// A Python with pip and hatchling.
fn tools() -> String {
    prepared("MODALFLOW_TEST_HYBRID_PYTHON")
}

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/python/modalflow-package")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let ran = Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    ran.ok()
}

fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
