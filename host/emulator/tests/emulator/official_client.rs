//! Modal's own Python client against the emulator.
use crate::support::{World, modal_python};

const SCRIPT: &str = include_str!("official_client.py");

#[tokio::test]
async fn the_official_client_spawns_gets_and_cancels() {
    let Some(python) = modal_python() else {
        return;
    };
    let world = World::new(|_| ()).await;
    let address = world.emulator.as_ref().unwrap().tcp_address().unwrap();
    let mut command = tokio::process::Command::new(python);
    command
        .args(["-W", "error::DeprecationWarning", "-c", SCRIPT])
        .env("MODAL_SERVER_URL", format!("http://{address}"))
        .env("MODAL_TOKEN_ID", "ak-test")
        .env("MODAL_TOKEN_SECRET", "as-test")
        .env("MODAL_CONFIG_PATH", world.folder.path().join("none.toml"))
        .env("MODAL_PAYLOAD_FORMAT", "cbor");
    let output = command.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    insta::assert_snapshot!(told, @r#"
    get: {'a': [1, 'ü', None]}
    again: {'a': [1, 'ü', None]}
    remote: 2
    not yet: TimeoutError
    cancelled: RemoteError InputCancellation('Input was cancelled')
    exit: RemoteError exited with code 7
    missing: NotFoundError Lookup failed for Function 'other' from the 'app' app: function 'other' of app 'app' not found in environment 'main'.
    "#);
    world.end().await;
}
