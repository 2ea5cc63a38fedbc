//! `emulator`.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use ::emulator::{Config, Emulator, Listen, Stop, Tokens};
use anyhow::Context;
use environment::Progress;
use environment::progress::Stderr;

use super::arguments::EmulatorArguments;
use super::serve::told_to_stop;

pub(super) async fn emulator(arguments: EmulatorArguments) -> anyhow::Result<ExitCode> {
    // A folder that is there keeps its mode: what is secret in it has its own.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&arguments.state)
        .with_context(|| format!("make the folder {}", arguments.state.display()))?;
    let state = arguments
        .state
        .canonicalize()
        .with_context(|| format!("find the folder {}", arguments.state.display()))?;
    let tokens = Tokens::kept_in(&state)?;
    let running = Emulator::start(Config {
        socket_dir: state.join("s"),
        listen: Listen {
            unix: None,
            tcp: Some(arguments.listen),
            beyond_loopback: arguments.beyond_loopback,
        },
        tokens: Some(tokens.clone()),
        python: arguments.python,
        state_dir: state.clone(),
    })
    .await?;
    let address = running
        .tcp_address()
        .context("the emulator has no address")?;
    tell(address, &tokens, &state)?;
    told_to_stop().await;
    Stderr.note("stopping; what runs in containers goes on and reports to the next emulator");
    running.stop(Stop::Leave).await?;
    Ok(ExitCode::SUCCESS)
}

/// stdout is what a shell can take in: `eval "$(… | head -3)"`, or a file that is sourced.
fn tell(address: std::net::SocketAddr, tokens: &Tokens, state: &Path) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(
        stdout,
        "export MODAL_SERVER_URL=http://{address}\nexport MODAL_TOKEN_ID={}\nexport MODAL_TOKEN_SECRET={}",
        tokens.id, tokens.secret
    )
    .and_then(|()| stdout.flush())
    .context("print the address")?;
    Stderr.note(&format!(
        "Modal on this machine at http://{address}, state in {}; Ctrl-C stops",
        state.display()
    ));
    Ok(())
}
