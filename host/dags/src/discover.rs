//! Which files of the DAG folder are DAG files, found as Airflow finds them: `.py` files at any depth, minus what
//! `.airflowignore` names (glob syntax). What looks like a DAG file and cannot be one is found too, with the reason.
//!
//! airflow: _shared.module_loading.file_discovery.find_path_from_directory. It only reads directories and ignore files.

use std::collections::HashSet;
use std::fs::{self, FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::{Error, Result, text};

/// Airflow's column for the name of a file with an import error has 1,024.
const LONGEST_PATH: usize = 1000;

/// Something in the folder that has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Relative to the folder, as it is shown and stored.
    pub(crate) path: String,
    pub(crate) full: PathBuf,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Python(Stat),
    /// It can't be a DAG file, and this is why.
    Refused(String),
}

/// What tells without reading that a file is the one we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) size: i64,
    pub(crate) mtime_ns: i64,
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: i64::try_from(metadata.size()).unwrap_or(i64::MAX),
            mtime_ns: metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec()),
        }
    }
}

/// Everything of interest below `folder`, by path. A folder that is not there is an error: else a volume that is not
/// mounted would deactivate all DAGs.
pub(crate) fn discover(folder: &Path) -> Result<Vec<Found>> {
    let root = folder
        .canonicalize()
        .map_err(Error::io("open the DAG folder", folder))?;
    let mut walk = Walk {
        entered: HashSet::from([root.clone()]),
        found: Vec::new(),
        root,
    };
    let root = walk.root.clone();
    walk.directory(&root, "", None)?;
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.found)
}

struct Walk {
    root: PathBuf,
    /// Real paths of directories, so that links that lead back are noticed.
    entered: HashSet<PathBuf>,
    found: Vec<Found>,
}

/// The ignore files on the way down; the deepest one has the last word.
struct Ignores {
    own: Gitignore,
    above: Option<Arc<Ignores>>,
}

impl Walk {
    fn directory(
        &mut self,
        directory: &Path,
        relative: &str,
        above: Option<Arc<Ignores>>,
    ) -> Result<()> {
        let ignores = read_ignores(directory, above)?;
        let entries =
            fs::read_dir(directory).map_err(Error::io("list the DAG folder", directory))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("list the DAG folder", directory))?;
            let file_name = entry.file_name();
            if file_name == ".airflowignore" || file_name == "__pycache__" {
                continue;
            }
            // Somebody may remove files while we look: what is gone is not there.
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            self.entry(&entry.path(), kind, relative, ignores.as_ref())?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        full: &Path,
        kind: FileType,
        above: &str,
        ignores: Option<&Arc<Ignores>>,
    ) -> Result<()> {
        let Some(file_name) = full.file_name() else {
            return Ok(());
        };
        let relative = match (above, file_name.to_string_lossy()) {
            ("", name) => name.into_owned(),
            (above, name) => format!("{above}/{name}"),
        };
        let metadata = fs::metadata(full);
        let is_directory = metadata.as_ref().is_ok_and(Metadata::is_dir);
        if ignores.is_some_and(|ignores| is_ignored(ignores, full, is_directory)) {
            return Ok(());
        }
        let is_python = has_extension(full, "py");
        if relative.len() > LONGEST_PATH {
            if is_python {
                self.refuse(
                    full,
                    &relative,
                    "its path is too long for Airflow's tables\nhint: move it up, or shorten names",
                );
            }
            return Ok(());
        }
        if file_name
            .to_str()
            .is_none_or(|name| name.contains(char::is_control))
        {
            if is_python || is_directory {
                self.refuse(full, &relative, "its name has characters that cannot be shown\nhint: rename it, or list it in .airflowignore");
            }
            return Ok(());
        }
        if kind.is_symlink()
            && (is_python || is_directory || has_extension(full, "zip"))
            && let Some(problem) = self.bad_link(full)
        {
            self.refuse(full, &relative, &problem);
            return Ok(());
        }
        let Ok(metadata) = metadata else {
            return Ok(());
        };
        if is_directory && !is_python {
            return self.below(full, &relative, kind, ignores);
        }
        if has_extension(full, "zip") && metadata.is_file() {
            self.refuse(full, &relative, "DAGs in zip files are not supported\nhint: unpack it into the DAG folder, or list it in .airflowignore");
        } else if is_python && metadata.is_file() {
            self.found.push(Found {
                path: relative,
                full: full.to_owned(),
                what: What::Python(Stat::from(&metadata)),
            });
        } else if is_python {
            let problem = format!(
                "it is {}, not a file\nhint: rename or remove it, or list it in .airflowignore",
                name_kind(metadata.file_type())
            );
            self.refuse(full, &relative, &problem);
        }
        Ok(())
    }

    fn below(
        &mut self,
        full: &Path,
        relative: &str,
        kind: FileType,
        ignores: Option<&Arc<Ignores>>,
    ) -> Result<()> {
        let Ok(real) = full.canonicalize() else {
            return Ok(());
        };
        if !self.entered.insert(real) {
            if kind.is_symlink() {
                self.refuse(full, relative, "it is a link to a folder that is read already\nhint: remove the link, or list it in .airflowignore");
            }
            return Ok(());
        }
        self.directory(full, relative, ignores.cloned())
    }

    /// Why a link may not be followed: the parser may read the DAG folder and nothing else of the user's.
    fn bad_link(&self, link: &Path) -> Option<String> {
        match link.canonicalize() {
            Ok(real) if real.starts_with(&self.root) => None,
            Ok(_) => Some(
                "it is a link that leads out of the DAG folder\nhint: put a copy in its place, or list it in .airflowignore"
                    .to_owned(),
            ),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => Some(
                "it is a link that leads to itself\nhint: remove it".to_owned(),
            ),
            Err(_) => Some("it is a link to something that is not there\nhint: remove it".to_owned()),
        }
    }

    fn refuse(&mut self, full: &Path, relative: &str, problem: &str) {
        self.found.push(Found {
            path: text::name(relative),
            full: full.to_owned(),
            what: What::Refused(problem.to_owned()),
        });
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

fn name_kind(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn read_ignores(directory: &Path, above: Option<Arc<Ignores>>) -> Result<Option<Arc<Ignores>>> {
    let path = directory.join(".airflowignore");
    let lines = match fs::read_to_string(&path) {
        Ok(lines) => lines,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(above),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut builder = GitignoreBuilder::new(directory);
    for line in lines.lines() {
        // airflow: a `#` anywhere begins a comment here, other than in git.
        let pattern = line
            .split_once('#')
            .map_or(line, |(before, _)| before.trim_end());
        if let Err(error) = builder.add_line(None, pattern) {
            tracing::warn!(file = %path.display(), pattern, %error, "pattern left out");
        }
    }
    match builder.build() {
        Ok(own) => Ok(Some(Arc::new(Ignores { own, above }))),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "ignore file left out");
            Ok(above)
        }
    }
}

fn is_ignored(ignores: &Ignores, path: &Path, is_directory: bool) -> bool {
    match ignores.own.matched(path, is_directory) {
        Match::Ignore(_) => true,
        Match::Whitelist(_) => false,
        Match::None => ignores
            .above
            .as_ref()
            .is_some_and(|above| is_ignored(above, path, is_directory)),
    }
}

/// airflow: utils.file.might_contain_dag_via_default_heuristic (`[core] dag_discovery_safe_mode`). Other than there, a DAG
/// file in UTF-16 is taken for one, so that its author learns why it is not seen.
pub(crate) fn might_contain_dag(content: &[u8]) -> bool {
    let lower: Vec<u8> = content
        .iter()
        .filter(|&&byte| byte != 0)
        .map(u8::to_ascii_lowercase)
        .collect();
    let contains = |word: &[u8]| lower.windows(word.len()).any(|window| window == word);
    contains(b"airflow") && (contains(b"dag") || contains(b"asset"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn show(folder: &Path) -> String {
        let found = discover(folder).unwrap();
        let lines: Vec<String> = found
            .iter()
            .map(|found| match &found.what {
                What::Python(_) => found.path.clone(),
                What::Refused(why) => {
                    format!("{}: {}", found.path, why.lines().next().unwrap())
                }
            })
            .collect();
        lines.join("\n")
    }

    #[test]
    fn python_files_are_found_at_any_depth_and_ignored_as_told() {
        let folder = tree(&[
            ("a.py", ""),
            ("B.PY", ""),
            ("a.txt", ""),
            ("__pycache__/a.py", ""),
            ("sub/deep/b.py", ""),
            ("sub/.airflowignore", "deep/c.py\n!keep_test.py"),
            ("sub/deep/c.py", ""),
            ("sub/keep_test.py", ""),
            (
                ".airflowignore",
                "*_test.py  # tests\nskipped/\n/only_here.py\n[bad\n",
            ),
            ("x_test.py", ""),
            ("skipped/a.py", ""),
            ("only_here.py", ""),
            ("sub/only_here.py", ""),
        ]);
        insta::assert_snapshot!(show(folder.path()), @r#"
        B.PY
        a.py
        sub/deep/b.py
        sub/keep_test.py
        sub/only_here.py
        "#);
    }

    #[test]
    fn what_cannot_be_a_dag_file_is_found_with_the_reason() {
        let folder = tree(&[("a.py", ""), ("b.zip", "PK"), ("dir.py/x.py", "")]);
        let outside = tree(&[("y.py", "")]);
        let at = |name: &str| folder.path().join(name);
        symlink(outside.path().join("y.py"), at("out.py")).unwrap();
        symlink(outside.path(), at("out")).unwrap();
        symlink("a.py", at("in.py")).unwrap();
        symlink("loop.py", at("loop.py")).unwrap();
        symlink("nothing", at("dangling.py")).unwrap();
        symlink(".", at("back")).unwrap();
        nix::unistd::mkfifo(&at("pipe.py"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at("new\nline.py"), "").unwrap();
        fs::write(
            folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.py")),
            "",
        )
        .unwrap();
        insta::assert_snapshot!(show(folder.path()), @r#"
        \u{fffd}.py: its name has characters that cannot be shown
        a.py
        b.zip: DAGs in zip files are not supported
        back: it is a link to a folder that is read already
        dangling.py: it is a link to something that is not there
        dir.py: it is a directory, not a file
        in.py
        loop.py: it is a link that leads to itself
        new\nline.py: its name has characters that cannot be shown
        out: it is a link that leads out of the DAG folder
        out.py: it is a link that leads out of the DAG folder
        pipe.py: it is a named pipe, not a file
        "#);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(discover(Path::new("/nonexistent/dags")).is_err());
    }

    #[test]
    fn the_heuristic_is_airflows() {
        let cases = [
            "import airflow\nDAG(",
            "from Airflow.sdk import Asset",
            "import airflow",
            "dag",
        ];
        let answers: Vec<bool> = cases
            .iter()
            .map(|case| might_contain_dag(case.as_bytes()))
            .collect();
        assert_eq!(answers, [true, true, false, false]);
    }
}
