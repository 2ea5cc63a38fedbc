//! TLS: a server with a certificate that the machine trusts is spoken to, one without is not.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{path::Path, process::Command};

use modal_api::{
    Client, Config, Credentials,
    wire::{self, modal_client_server::ModalClient, modal_client_server::ModalClientServer},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

const ADDRESS: &str = "TLS_TEST_ADDRESS";

struct Greeter;

#[tonic::async_trait]
impl ModalClient for Greeter {
    async fn client_hello(
        &self,
        _: Request<()>,
    ) -> Result<Response<wire::ClientHelloResponse>, Status> {
        Ok(Response::new(wire::ClientHelloResponse {
            image_builder_version: "2025.06".to_owned(),
            ..Default::default()
        }))
    }
}

/// What this binary does when it is started again with other roots. As a test it passes at once.
#[tokio::test]
async fn program() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let credentials = Credentials::token("ak-a".to_owned(), "as-a".to_owned());
    let config = Config::at(address.parse().unwrap(), credentials);
    let client = Client::open(&config).await.unwrap();
    assert_eq!(
        client.hello().await.unwrap().image_builder_version,
        "2025.06"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_counts_when_the_machine_trusts_its_root() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let identity = Identity::from_pem(&certificate, key);
    let server = tokio::spawn(
        Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(ModalClientServer::new(Greeter))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let roots = std::env::temp_dir().join(format!("modal-roots-{}.pem", uuid::Uuid::new_v4()));
    std::fs::write(&roots, certificate).unwrap();
    let (trusts, talk) = run(&address, Some(&roots)).await;
    std::fs::remove_file(&roots).unwrap();
    assert!(trusts, "{talk}");
    let (trusts, talk) = run(&address, None).await;
    assert!(!trusts && talk.contains("UnknownIssuer"), "{talk}");
    server.abort();
}

async fn run(address: &str, roots: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["program", "--exact", "--nocapture"])
        .env(ADDRESS, address);
    match roots {
        Some(roots) => command.env("SSL_CERT_FILE", roots),
        None => command.env_remove("SSL_CERT_FILE"),
    };
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), talk)
}
