//! The state folder from outside: whose it is, and what slow files do to everybody else.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
    thread,
    time::Duration,
};

use emulator::{Emulator, Stop};
use modal_api::{Creation, wire};

use crate::support::{World, config};

#[tokio::test]
async fn what_the_state_folder_holds_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir_all(state.join("logs")).unwrap();
    fs::set_permissions(state.join("logs"), Permissions::from_mode(0o755)).unwrap();
    let emulator = Emulator::start(config(folder.path())).await.unwrap();
    let folders = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap());
    let mut open: Vec<_> = folders
        .filter(|entry| entry.metadata().unwrap().is_dir())
        .filter(|entry| entry.metadata().unwrap().permissions().mode() & 0o777 != 0o700)
        .map(|entry| entry.file_name())
        .collect();
    open.sort();
    assert_eq!(open, Vec::<std::ffi::OsString>::new());
    emulator.stop(Stop::Leave).await.unwrap();
}

/// One thread for all: whoever blocks it blocks everybody.
#[tokio::test]
async fn a_file_that_takes_its_time_stops_nobody_else() {
    let world = World::new(|_| ()).await;
    let volume = world
        .client
        .volume_get_or_create("slow", "", Creation::IfMissing, None)
        .await
        .unwrap();
    let state = world.folder.path().join("state/volumes");
    // Opening it waits for somebody who opens the other end.
    let pipe = state.join(&volume.volume_id).join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let other_end = thread::spawn(move || {
        // In the end even if the test cannot say so.
        let _ = released.recv_timeout(Duration::from_secs(5));
        fs::OpenOptions::new().write(true).open(pipe).unwrap();
    });

    let mut stub = world.stub().await;
    let mut other = stub.clone();
    let request = wire::VolumeGetFileRequest {
        volume_id: volume.volume_id,
        path: "pipe".to_owned(),
        ..Default::default()
    };
    let reading = tokio::spawn(async move { stub.volume_get_file(request).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    other.client_hello(()).await.unwrap();
    assert!(!reading.is_finished(), "who came later has waited");
    release.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap().into_inner().size, 0);
    other_end.join().unwrap();
    world.end().await;
}
