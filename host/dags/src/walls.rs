//! What the parser may touch: Landlock around the whole process, raised before it starts. It may read Python, the
//! system's libraries and the DAG folder, and write its own scratch directory; nothing else of the file system.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use tokio::process::{Child, Command};

/// Read by nearly every Python process, and no secret on any machine.
const SYSTEM: [&str; 26] = [
    "/usr",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/proc",
    "/sys/devices/system/cpu",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/timezone",
];

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// What one parser may touch beside the system.
pub(crate) struct Walls {
    pub(crate) readable: Vec<PathBuf>,
    pub(crate) writable: Vec<PathBuf>,
}

/// Starts `command` behind the walls. Answers which of them this kernel can't raise.
///
/// Landlock holds for the thread that asks for it and for all that comes from it. So a thread of its own asks, and
/// starts the program: the host itself stays free.
pub(crate) async fn start(
    mut command: Command,
    walls: Walls,
) -> std::io::Result<(Child, Vec<String>)> {
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new()
        .name("walls".to_owned())
        .spawn(move || {
            let _entered = runtime.enter();
            let missing = raise(&walls).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((command.spawn()?, missing))
        })?;
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .map_err(std::io::Error::other)?
        .map_err(|_| std::io::Error::other("the thread that starts the parser panicked"))?
}

fn raise(walls: &Walls) -> Result<Vec<String>, RulesetError> {
    let status = ruleset(walls)?.restrict_self()?;
    let mut missing = Vec::new();
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => missing.push(
            "Landlock is old on this kernel: DAG files are parsed with fewer walls (Linux 6.12 has all)"
                .to_owned(),
        ),
        RulesetStatus::NotEnforced => missing.push(
            "Landlock is not in this kernel: while they are parsed, DAG files can read whatever this user can"
                .to_owned(),
        ),
    }
    if !status.no_new_privs {
        missing.push("NO_NEW_PRIVS could not be set for the parser".to_owned());
    }
    Ok(missing)
}

fn ruleset(walls: &Walls) -> Result<RulesetCreated, RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi);
    let device = AccessFs::ReadFile | AccessFs::WriteFile;
    let readable = SYSTEM
        .iter()
        .map(Path::new)
        .chain(walls.readable.iter().map(PathBuf::as_path));
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(DEVICES, device))?
        .add_rules(path_beneath_rules(&walls.writable, AccessFs::from_all(abi)))
}

/// The directories that an interpreter needs: its environment, and the installation that this was made from.
pub(crate) fn interpreter_directories(python: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    let real = python.canonicalize().ok();
    for program in [Some(python.to_owned()), real].into_iter().flatten() {
        // <prefix>/bin/python
        if let Some(prefix) = program.parent().and_then(Path::parent)
            && prefix != Path::new("/")
        {
            directories.push(prefix.to_owned());
        }
    }
    directories
}

/// A command with nothing of our environment and our descriptors, that ends when it is dropped.
pub(crate) fn bare_command(python: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(python);
    command
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}
