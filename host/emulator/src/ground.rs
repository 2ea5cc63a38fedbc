//! The files that a container finds at absolute paths: the caller's code, and volumes.
//!
//! Where the machine lets us, a container sees them at these paths and the machine's own files everywhere else: a user and a mount
//! namespace, made by `unshare` and `mount`. Elsewhere the same files lie in a folder that `PYTHONPATH` leads to. It is about paths,
//! not about safety: code in a container may do what the emulator's user may.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::ids;

/// A file of a mount.
pub(crate) struct Content {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) mode: Option<u32>,
}

pub(crate) struct Volume {
    pub(crate) folder: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) is_read_only: bool,
}

/// Targets are relative to the root.
pub(crate) struct Ground {
    pub(crate) contents: Vec<Content>,
    pub(crate) volumes: Vec<Volume>,
    /// Where containers start; made if neither the machine nor the contents have it.
    pub(crate) workdir: PathBuf,
}

/// Can containers have paths of their own on this machine?
pub(crate) fn isolates() -> bool {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /mnt && mount --rbind /usr /mnt")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Ground {
    /// Copies the files to below a folder, once a definition. Links to volumes are for containers without paths of their own.
    pub(crate) fn lay(&self, folder: &Path) -> io::Result<()> {
        for volume in &self.volumes {
            fs::create_dir_all(&volume.folder)?;
        }
        if folder.exists() {
            return Ok(());
        }
        let fresh = folder.with_extension(ids::secret());
        fs::create_dir_all(fresh.join(&self.workdir))?;
        for content in &self.contents {
            let target = fresh.join(&content.target);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(&content.path, &target)?;
            let mode = content.mode.filter(|mode| *mode > 0).unwrap_or(0o644);
            fs::set_permissions(&target, fs::Permissions::from_mode(mode & 0o777))?;
        }
        for volume in &self.volumes {
            let link = fresh.join(&volume.target);
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent)?;
            }
            if let Err(error) = std::os::unix::fs::symlink(&volume.folder, &link)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error);
            }
        }
        match fs::rename(&fresh, folder) {
            Ok(()) => Ok(()),
            // Another container of the same definition was faster.
            Err(_) if folder.exists() => fs::remove_dir_all(fresh),
            Err(error) => Err(error),
        }
    }

    /// The script that makes the paths, and runs in them what it is given: see [`enter`]. `root` is an empty folder.
    pub(crate) fn script(&self, folder: &Path, root: &Path) -> OsString {
        let mut tree = Folder::default();
        for content in &self.contents {
            tree.add(&content.target, Leaf::File);
        }
        for volume in &self.volumes {
            let leaf = Leaf::Volume(volume.folder.clone(), volume.is_read_only);
            tree.add(&volume.target, leaf);
        }
        if !Path::new("/").join(&self.workdir).is_dir() {
            tree.folder(&self.workdir);
        }
        let mut script = Script::default();
        script.line(&[&"mount -t tmpfs -o mode=755 tmpfs", &quoted(root)]);
        open(&tree, Path::new("/"), folder, root, &mut script);
        script.line(&[
            &"exec chroot",
            &quoted(root),
            &r#"/bin/sh -c 'cd "$0"; exec "$@"'"#,
            &quoted(&Path::new("/").join(&self.workdir)),
            &r#""$@""#,
        ]);
        script.0
    }
}

/// The command that runs another one by the script in a file, in namespaces of its own.
pub(crate) fn enter(script: &Path, command: &[OsString]) -> Vec<OsString> {
    let mut whole: Vec<OsString> = ["unshare", "--user", "--map-root-user", "--mount", "sh"]
        .map(OsString::from)
        .to_vec();
    whole.push(script.into());
    whole.extend_from_slice(command);
    whole
}

enum Leaf {
    File,
    Volume(PathBuf, bool),
}

enum Node {
    Folder(Folder),
    Leaf(Leaf),
}

#[derive(Default)]
struct Folder(BTreeMap<OsString, Node>);

impl Folder {
    fn add(&mut self, path: &Path, leaf: Leaf) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        if let Some(folder) = self.folder(parent) {
            folder.0.insert(name.to_owned(), Node::Leaf(leaf));
        }
    }

    /// The folder at a path, made if it is not there; none: the path leads into a file or a volume.
    fn folder(&mut self, path: &Path) -> Option<&mut Self> {
        let mut folder = self;
        for part in path {
            let node = folder
                .0
                .entry(part.to_owned())
                .or_insert_with(|| Node::Folder(Self::default()));
            let Node::Folder(next) = node else {
                return None;
            };
            folder = next;
        }
        Some(folder)
    }

    fn holds_a_volume(&self) -> bool {
        self.0.values().any(|node| match node {
            Node::Folder(folder) => folder.holds_a_volume(),
            Node::Leaf(Leaf::Volume(..)) => true,
            Node::Leaf(Leaf::File) => false,
        })
    }
}

/// A folder of ours over the machine's: the machine's entries are bound one by one, ours go over them.
fn open(ours: &Folder, machine: &Path, laid: &Path, target: &Path, script: &mut Script) {
    if let Ok(entries) = fs::read_dir(machine) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            if ours.0.contains_key(&name) {
                continue;
            }
            let (from, to) = (quoted(&machine.join(&name)), quoted(&target.join(&name)));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    script.line(&[&"mkdir", &to]);
                    script.line(&[&"mount --rbind", &from, &to, &"2>/dev/null || true"]);
                }
                Ok(kind) if kind.is_symlink() => script.line(&[&"cp -P", &from, &to]),
                Ok(kind) if kind.is_file() => {
                    script.line(&[&":", &">", &to]);
                    script.line(&[&"mount --bind", &from, &to]);
                }
                // Sockets and their like are not what code looks for there.
                _ => {}
            }
        }
    }
    for (name, node) in &ours.0 {
        let (below, laid, to) = (machine.join(name), laid.join(name), target.join(name));
        match node {
            Node::Folder(folder) => {
                script.line(&[&"mkdir", &quoted(&to)]);
                if below.is_dir() || folder.holds_a_volume() {
                    open(folder, &below, &laid, &to, script);
                } else {
                    script.line(&[&"mount --bind", &quoted(&laid), &quoted(&to)]);
                }
            }
            Node::Leaf(Leaf::File) => {
                script.line(&[&":", &">", &quoted(&to)]);
                script.line(&[&"mount --bind", &quoted(&laid), &quoted(&to)]);
            }
            Node::Leaf(Leaf::Volume(folder, is_read_only)) => {
                script.line(&[&"mkdir", &quoted(&to)]);
                script.line(&[&"mount --bind", &quoted(folder), &quoted(&to)]);
                if *is_read_only {
                    script.line(&[&"mount -o remount,bind,ro", &quoted(&to)]);
                }
            }
        }
    }
}

/// Lines of a shell script that ends at the first failure. Paths need not be text.
struct Script(OsString);

impl Default for Script {
    fn default() -> Self {
        Self("set -e\n".into())
    }
}

impl Script {
    fn line(&mut self, words: &[&dyn AsRef<OsStr>]) {
        for word in words {
            self.0.push(word);
            self.0.push(" ");
        }
        self.0.push("\n");
    }
}

fn quoted(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        if *byte == b'\'' {
            bytes.extend_from_slice(br"'\''");
        } else {
            bytes.push(*byte);
        }
    }
    bytes.push(b'\'');
    OsString::from_vec(bytes)
}
