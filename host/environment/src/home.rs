//! Where things lie: MODALFLOW_HOME and what is below it. Names only become paths here, and only after a check.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::python::PythonEnv;
use crate::{Error, Result};

/// The longest path a Unix socket may have, its ending NUL not counted.
const LONGEST_SOCKET_PATH: usize = 107;

/// An environment's name: `[a-z0-9][a-z0-9-]{0,40}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Checks a name that a person gave.
    pub fn new(name: &str) -> Result<Name> {
        let problem = if name.is_empty() {
            Some("it is empty")
        } else if name.len() > 41 {
            Some("it is too long")
        } else if name.starts_with('-') {
            Some("it begins with -")
        } else if !name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        {
            Some("it has other characters than a-z, 0-9 and -")
        } else {
            None
        };
        match problem {
            None => Ok(Name(name.to_owned())),
            Some(problem) => Err(Error::Name {
                name: name.to_owned(),
                problem,
            }),
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// MODALFLOW_HOME: everything modalflow keeps on this machine.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    host_program: Option<PathBuf>,
    python: Option<PythonEnv>,
}

impl Home {
    /// MODALFLOW_HOME, else the user's data directory (`$XDG_DATA_HOME` or `~/.local/share`) + `modalflow`.
    pub fn from_env() -> Result<Home> {
        let from = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| !path.as_os_str().is_empty())
        };
        let root = from("MODALFLOW_HOME")
            // The XDG specification wants relative paths ignored.
            .or_else(|| {
                from("XDG_DATA_HOME")
                    .filter(|path| path.is_absolute())
                    .map(|path| path.join("modalflow"))
            })
            .or_else(|| from("HOME").map(|home| home.join(".local/share/modalflow")))
            .ok_or(Error::NoHome)?;
        Home::at(root)
    }

    /// A home at this place; relative paths are taken from the current directory.
    pub fn at(root: impl AsRef<Path>) -> Result<Home> {
        let root = root.as_ref();
        let root = std::path::absolute(root).map_err(Error::io("use", root))?;
        Ok(Home {
            root,
            host_program: None,
            python: None,
        })
    }

    /// The program that is started again as the Postgres keeper, where it is not the running one.
    pub fn with_host_program(mut self, program: impl Into<PathBuf>) -> Home {
        self.host_program = Some(program.into());
        self
    }

    /// The interpreter that has Airflow, where somebody else has made it.
    pub(crate) fn with_python(mut self, python: PythonEnv) -> Home {
        self.python = Some(python);
        self
    }

    pub(crate) fn given_python(&self) -> Option<&PythonEnv> {
        self.python.as_ref()
    }

    /// See [`Home::with_host_program`].
    pub(crate) fn host_program(&self) -> std::io::Result<PathBuf> {
        match &self.host_program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe(),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The Python environments, one a lock and interpreter version.
    pub fn python_dir(&self) -> PathBuf {
        self.root.join("python")
    }

    /// Postgres programs from the wheel.
    pub fn postgres_binaries(&self) -> PathBuf {
        self.root.join("postgres-binaries")
    }

    /// Compiled plugins.
    pub fn plugins_cache(&self) -> PathBuf {
        self.root.join("plugins-cache")
    }

    /// The host's own Python files, one directory a version.
    pub fn python_files(&self) -> PathBuf {
        self.root.join("python-files")
    }

    /// All environments.
    pub fn environments(&self) -> PathBuf {
        self.root.join("envs")
    }

    /// One environment's directory.
    pub fn environment(&self, name: &Name) -> PathBuf {
        self.environments().join(name.as_str())
    }
}

/// Makes a directory and those above it, and leaves what is there as it is. When we are root others may pass
/// through, so that a Postgres that runs as another user can have its data below.
pub(crate) fn directory(path: &Path) -> Result<()> {
    let mode = if nix::unistd::geteuid().is_root() {
        0o711
    } else {
        0o700
    };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(Error::io("make directory", path))
}

/// Makes a directory (and those above it) that only its owner may enter, or sets an existing one to `mode`.
pub(crate) fn private_directory(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(Error::io("make directory", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(Error::io("set the permissions of", path))
}

/// Where a socket called `file_name` goes: `preferred` if the path is short enough for a socket, else a directory
/// under /tmp that belongs to us and is named after `preferred`, so that everybody finds the same one.
pub(crate) fn socket_path(preferred: &Path, file_name: &str) -> Result<PathBuf> {
    let long = preferred.join(file_name);
    if long.as_os_str().as_bytes().len() <= LONGEST_SOCKET_PATH {
        return Ok(long);
    }
    Ok(short_directory(preferred)?.join(file_name))
}

/// `/tmp/modalflow-<uid>/<hash of the long path>`, made if need be. When we are root others may pass through (not
/// look): a Postgres that runs as another user has its socket below.
pub(crate) fn short_directory(long: &Path) -> Result<PathBuf> {
    let us = nix::unistd::geteuid();
    let mode = if us.is_root() { 0o711 } else { 0o700 };
    let base = PathBuf::from(format!("/tmp/modalflow-{us}"));
    let hash = hex::encode(&Sha256::digest(long.as_os_str().as_bytes())[..6]);
    let directory = base.join(hash);
    for path in [&base, &directory] {
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make directory", path)(error));
            }
            _ => {}
        }
        // /tmp is everybody's: another user may have been first, with a directory or a link of the same name.
        let found = std::fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
        if found.uid() != us.as_raw() || !found.is_dir() {
            return Err(Error::ForeignDirectory {
                path: path.clone(),
                owner: found.uid(),
                us: us.as_raw(),
            });
        }
        std::fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(Error::io("set the permissions of", path))?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for good in [
            "a",
            "0",
            "dev",
            "a-b-",
            "a2345678901234567890123456789012345678901",
        ] {
            assert_eq!(
                Name::new(good).map(|n| n.to_string()).ok().as_deref(),
                Some(good)
            );
        }
        let bad = [
            "",
            "-a",
            "..",
            "a/b",
            "A",
            "ä",
            "a b",
            "a\nb",
            "a.b",
            "a_b",
            "a23456789012345678901234567890123456789012",
        ];
        let answers: Vec<String> = bad
            .iter()
            .map(|name| match Name::new(name) {
                Err(Error::Name { problem, .. }) => format!("{name:?}: {problem}"),
                other => format!("{name:?}: {other:?}"),
            })
            .collect();
        insta::assert_snapshot!(answers.join("\n"), @r#"
        "": it is empty
        "-a": it begins with -
        "..": it has other characters than a-z, 0-9 and -
        "a/b": it has other characters than a-z, 0-9 and -
        "A": it has other characters than a-z, 0-9 and -
        "ä": it has other characters than a-z, 0-9 and -
        "a b": it has other characters than a-z, 0-9 and -
        "a\nb": it has other characters than a-z, 0-9 and -
        "a.b": it has other characters than a-z, 0-9 and -
        "a_b": it has other characters than a-z, 0-9 and -
        "a23456789012345678901234567890123456789012": it is too long
        "#);
        insta::assert_snapshot!(Name::new("../x").unwrap_err(), @r#"
        use "../x" as an environment's name: it has other characters than a-z, 0-9 and -
        hint: 1 to 41 characters of a-z, 0-9 and -, beginning with a letter or digit, for example "dev"
        "#);
    }

    #[test]
    fn a_long_home_gets_short_sockets() {
        let short = Path::new("/x/run");
        assert_eq!(socket_path(short, "s").unwrap(), Path::new("/x/run/s"));
        let long = PathBuf::from(format!("/x/{}/run", "y".repeat(120)));
        let path = socket_path(&long, "fork-server.sock").unwrap();
        assert!(path.as_os_str().len() <= LONGEST_SOCKET_PATH, "{path:?}");
        assert_eq!(socket_path(&long, "fork-server.sock").unwrap(), path);
        let parent = path.parent().unwrap();
        let mode = std::fs::metadata(parent).unwrap().mode() & 0o777;
        assert!(mode == 0o700 || mode == 0o711, "{mode:o}");
        std::fs::remove_dir(parent).unwrap();
    }
}
