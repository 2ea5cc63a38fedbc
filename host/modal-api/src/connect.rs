//! Finding the server that answers: the addresses of a list are tried side by side, each a little later than the one before it.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::{Config, Error, ServerUrl};

// modal: create_channel_with_fallbacks
const STAGGER: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(63);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// A connected channel and the address it leads to. Waits about a minute for a network that comes.
pub(crate) async fn connect(config: &Config) -> Result<(ServerUrl, Channel), Error> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let reason = match tokio::time::timeout(ATTEMPT, race(&config.servers)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => error,
            Err(_) => Error::NoServer {
                servers: config.server_list(),
                reason: format!("no answer within {ATTEMPT:?}"),
            },
        };
        // A wrong address stays wrong, and so does a certificate that nobody here vouches for.
        let distrusted =
            matches!(&reason, Error::NoServer { reason, .. } if reason.contains("certificate"));
        if distrusted || !reason.is_passing() || started.elapsed() + pause >= PATIENCE {
            return Err(reason);
        }
        tracing::warn!(reason = %reason, "cannot connect, trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// The first to connect wins. An address starts when the one before it has failed, or after its share of time.
async fn race(servers: &[ServerUrl]) -> Result<(ServerUrl, Channel), Error> {
    let failed: Vec<Notify> = servers.iter().map(|_| Notify::new()).collect();
    let failed = &failed;
    let mut attempts: FuturesUnordered<_> = servers
        .iter()
        .zip(0_u32..)
        .map(|(url, index)| async move {
            let position = index as usize;
            if position > 0 {
                let _ =
                    tokio::time::timeout(STAGGER * index, failed[position - 1].notified()).await;
            }
            let connected = url.connect().await;
            if connected.is_err() {
                failed[position].notify_one();
            }
            connected.map(|channel| (url.clone(), channel))
        })
        .collect();
    let mut first = None;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::Config("no server address is set".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::race;
    use crate::ServerUrl;

    #[tokio::test]
    async fn the_next_address_is_tried_at_once_when_one_fails() {
        let folder = std::env::temp_dir().join(format!("modal-race-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join("server.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let incoming = async_stream(listener);
            tonic::transport::Server::builder()
                .add_service(crate::wire::modal_client_server::ModalClientServer::new(
                    Nobody,
                ))
                .serve_with_incoming(incoming)
                .await
        });
        let list = format!(
            "unix://{0}/nobody.sock,unix://{0}/server.sock",
            folder.display()
        );
        let started = std::time::Instant::now();
        let (url, _) = race(&ServerUrl::list(&list).unwrap()).await.unwrap();
        assert!(url.to_string().ends_with("/server.sock"));
        assert!(started.elapsed() < super::STAGGER);
        server.abort();
        std::fs::remove_dir_all(folder).unwrap();
    }

    struct Nobody;
    impl crate::wire::modal_client_server::ModalClient for Nobody {}

    fn async_stream(
        listener: tokio::net::UnixListener,
    ) -> impl futures::Stream<Item = std::io::Result<tokio::net::UnixStream>> {
        futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        })
    }
}
