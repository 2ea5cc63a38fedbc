//! The real `airflow api-server` on the environment's database and logs, on a loopback port, for as long as
//! somebody holds the `Ui`. It shows and triggers; it runs nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::airflow::{Purpose, UI_USER};
use crate::process::tail;
use crate::progress::Progress;
use crate::tied::Tied;
use crate::{Environment, Error, Result, postgres, python};

/// How long the api-server may take until it answers.
const START: Duration = Duration::from_secs(120);
/// A running UI. Dropped, it ends.
#[derive(Debug)]
pub struct Ui {
    pub url: String,
    pub user: String,
    pub password: String,
    /// What the api-server says.
    pub log: PathBuf,
    process: Tied,
}

/// Starts the UI and waits until it answers. Without a port, a free one is taken.
pub async fn serve(
    environment: &Environment,
    port: Option<u16>,
    progress: &dyn Progress,
) -> Result<Ui> {
    let port = choose_port(port)?;
    let url = format!("http://127.0.0.1:{port}");
    serve_at(
        environment,
        (Ipv4Addr::LOCALHOST, port).into(),
        url,
        progress,
    )
    .await
}

/// The same at an address that somebody else has chosen; `url` is what browsers know it by.
pub async fn serve_at(
    environment: &Environment,
    address: SocketAddr,
    url: String,
    progress: &dyn Progress,
) -> Result<Ui> {
    let (host, port) = (address.ip().to_string(), address.port());
    let python = python::ensure(environment.home(), progress).await?;
    postgres::ensure_running(environment, progress).await?;
    let _step = progress.step("starting the UI");
    let process = Tied::start(
        environment,
        &python,
        "ui",
        Purpose::ApiServer,
        &[
            "api-server",
            "--host",
            &host,
            "--workers",
            "1",
            // The Execution API that workers use is the host's own.
            "--apps",
            "core",
            "--port",
            &port.to_string(),
        ],
        &[("AIRFLOW__API__BASE_URL", &url)],
    )?;
    let mut ui = Ui {
        url,
        user: UI_USER.to_owned(),
        password: environment.secrets().ui_password.clone(),
        log: process.log.clone(),
        process,
    };
    ui.expect_answer(port).await?;
    Ok(ui)
}

impl Ui {
    /// Ends the api-server and everything it started.
    pub async fn stop(self) {
        self.process.stop().await;
    }

    /// Returns when the api-server has ended by itself.
    pub async fn ended(&mut self) {
        // The sender only goes after it has sent.
        let _ = self.process.ended.wait_for(Option::is_some).await;
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
            let ended = *self.process.ended.borrow();
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
