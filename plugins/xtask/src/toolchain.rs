//! Finding a compiler for wasm32-unknown-unknown.
//!
//! Two ways are known. A rustup toolchain with the target's standard library just works. Debian ships no such library, but the
//! sources of it (`rust-web-src`) and a linker (`lld-22` or newer): there the standard library is built along.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

pub(crate) struct Toolchain {
    pub(crate) cargo: OsString,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, OsString)>,
    /// For `prebuilt.lock`.
    pub(crate) description: String,
}

pub(crate) fn find() -> Result<Toolchain, String> {
    if let Some(toolchain) = with_target() {
        return Ok(toolchain);
    }
    from_debian().ok_or_else(|| {
        format!(
            "no Rust compiler here can build for {TARGET}\n\
             hint: `rustup target add {TARGET}`, or on Debian `apt-get install rustc-web cargo-web rust-web-src lld-22`"
        )
    })
}

fn with_target() -> Option<Toolchain> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries =
        output(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let has_core = std::fs::read_dir(libraries).ok()?.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("libcore-")
    });
    has_core.then(|| Toolchain {
        cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        arguments: Vec::new(),
        variables: vec![("RUSTC", rustc.clone())],
        description: version(Path::new(&rustc)),
    })
}

fn from_debian() -> Option<Toolchain> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let cargo = PathBuf::from("/usr/bin/cargo");
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml");
    let linker = (19..=30)
        .rev()
        .map(|version| format!("/usr/bin/wasm-ld-{version}"))
        .find(|path| Path::new(path).exists())?;
    if !library.exists() || !cargo.exists() {
        return None;
    }
    let description = format!("{}, std from rust-web-src, {linker}", version(&rustc));
    Some(Toolchain {
        cargo: cargo.into(),
        arguments: vec![
            "-Zbuild-std=std,panic_abort".to_owned(),
            "-Zbuild-std-features=optimize_for_size".to_owned(),
        ],
        variables: vec![
            ("RUSTC", rustc.into()),
            // Debian's is a stable compiler; building its own standard library is what the variable is for.
            ("RUSTC_BOOTSTRAP", "1".into()),
            ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker.into()),
        ],
        description,
    })
}

fn version(rustc: &Path) -> String {
    output(Command::new(rustc).arg("--version")).unwrap_or_else(|| "rustc".to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
