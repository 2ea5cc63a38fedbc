//! The real `airflow api-server` on the environment's database and logs, on a loopback port, for as long as
//! somebody holds the `Ui`. It shows and triggers; it runs nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::airflow::{Purpose, UI_USER, command};
use crate::process::{self, Record, Recorded, tail};
use crate::progress::Progress;
use crate::{Environment, Error, Result, postgres, python};

/// How long the api-server may take until it answers.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end after it was asked.
const END: Duration = Duration::from_secs(5);

/// A running UI. Dropped, it ends.
#[derive(Debug)]
pub struct Ui {
    pub url: String,
    pub user: String,
    pub password: String,
    /// What the api-server says.
    pub log: PathBuf,
    process: Recorded,
    _record: Record,
    ended: tokio::sync::watch::Receiver<Option<ExitStatus>>,
}

/// Starts the UI and waits until it answers. Without a port, a free one is taken.
pub async fn serve(
    environment: &Environment,
    port: Option<u16>,
    progress: &dyn Progress,
) -> Result<Ui> {
    let python = python::ensure(environment.home(), progress).await?;
    postgres::ensure_running(environment, progress).await?;
    let port = choose_port(port)?;
    let _step = progress.step("starting the UI");
    let url = format!("http://127.0.0.1:{port}");
    let log = environment.run_dir().join("ui.log");
    crate::secrets::write_private(&log, b"")?;
    let said = std::fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .map_err(Error::io("open", &log))?;
    let again = said.try_clone().map_err(Error::io("open", &log))?;

    let mut server = command(environment, &python, Purpose::ApiServer, &[]);
    server.env("AIRFLOW__API__BASE_URL", &url);
    let server = tied_to_us(server.as_std(), port, said, again);
    let (pid, ended) = start(server)?;
    let record = process::record(environment, "ui", pid, true)?;
    let mut ui = Ui {
        url,
        user: UI_USER.to_owned(),
        password: environment.secrets().ui_password.clone(),
        log,
        process: Recorded {
            pid: i32::try_from(pid).unwrap_or(-1),
            started: process::start_time(i32::try_from(pid).unwrap_or(-1)).unwrap_or(0),
            group: true,
        },
        _record: record,
        ended,
    };
    ui.expect_answer(port).await?;
    Ok(ui)
}

impl Ui {
    /// Ends the api-server and everything it started.
    pub async fn stop(self) {
        self.process.end(END).await;
    }

    /// Returns when the api-server has ended by itself.
    pub async fn ended(&mut self) {
        // The sender only goes after it has sent.
        let _ = self.ended.wait_for(Option::is_some).await;
    }

    async fn expect_answer(&mut self, port: u16) -> Result<()> {
        let began = Instant::now();
        loop {
            let answers = tokio::task::spawn_blocking(move || answers(port))
                .await
                .unwrap_or(false);
            if answers {
                return Ok(());
            }
            let ended = *self.ended.borrow();
            if ended.is_some() || began.elapsed() > START {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let why = match ended {
                    Some(status) => format!("it ended with {status}\n{}", tail(&said, 8)),
                    None => format!("no answer within {} s\n{}", START.as_secs(), tail(&said, 8)),
                };
                return Err(Error::Ui {
                    output: why,
                    log: self.log.clone(),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        // After `stop` there is nothing left to signal.
        self.process.end_now(END);
    }
}

/// A free port, or the wanted one if it is free.
fn choose_port(wanted: Option<u16>) -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.unwrap_or(0)));
    bound
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Error::Port {
            wanted: wanted.map_or_else(String::new, |port| format!(":{port}")),
            hint: "without --port a free one is taken",
            source,
        })
}

/// Python asks the kernel to end it together with us, then becomes `airflow api-server`; a `kill -9` of the host
/// must not leave a UI behind that nobody knows of.
const TIED: &str = "\
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit('its host has gone')
sys.argv[0] = 'airflow'
runpy.run_module('airflow', run_name='__main__', alter_sys=True)
";

fn tied_to_us(
    server: &std::process::Command,
    port: u16,
    stdout: std::fs::File,
    stderr: std::fs::File,
) -> std::process::Command {
    let mut tied = std::process::Command::new(server.get_program());
    tied.args(["-c", TIED, &std::process::id().to_string()])
        .args(["api-server", "--host", "127.0.0.1", "--workers", "1"])
        // The Execution API that workers use is the host's own.
        .args(["--apps", "core", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0);
    if let Some(directory) = server.get_current_dir() {
        tied.current_dir(directory);
    }
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    tied
}

/// Starts it from a thread that stays until it ends: the kernel takes the end of the starting *thread* for ours,
/// and a runtime's threads come and go.
fn start(
    mut server: std::process::Command,
) -> Result<(u32, tokio::sync::watch::Receiver<Option<ExitStatus>>)> {
    let (tell_end, ended) = tokio::sync::watch::channel(None);
    let (tell_pid, pid) = mpsc::channel();
    let program = server.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Spawn {
        program: program.clone(),
        source,
    };
    std::thread::Builder::new()
        .name("ui".to_owned())
        .spawn(move || match server.spawn() {
            Ok(mut child) => {
                let _ = tell_pid.send(Ok(child.id()));
                let _ = tell_end.send(child.wait().ok());
            }
            Err(error) => {
                let _ = tell_pid.send(Err(error));
            }
        })
        .map_err(failed)?;
    match pid.recv() {
        Ok(Ok(pid)) => Ok((pid, ended)),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(std::io::Error::other("its thread ended"))),
    }
}

/// Whether the api-server says that it is there.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /api/v2/version HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    ask().is_ok_and(|line| line.contains(" 200 "))
}
