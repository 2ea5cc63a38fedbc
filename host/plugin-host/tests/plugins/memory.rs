//! A large value passes through without the host holding it.

use std::fs;
use std::process::Command;

use plugin_host::Payload;
use tokio::io::AsyncReadExt;

use crate::{House, at};

const BYTES: u64 = 64 << 20;
const CHILD: &str = "MODALFLOW_TEST_MEMORY_CHILD";

/// Alone in a process, because the peak is the whole process's.
#[test]
fn a_value_of_64_mb_is_never_in_memory() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::in_a_process_of_its_own", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let grown = text
        .lines()
        .find_map(|line| line.strip_prefix("grown by KiB: "));
    let grown: u64 = grown.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!(grown < 12 << 10, "the peak grew by {grown} KiB");
}

#[tokio::test]
async fn in_a_process_of_its_own() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let house = House::new();
    let backend = house.volume_xcom().await;
    pass_through(&house, &*backend, 1 << 20).await;
    let before = peak();
    pass_through(&house, &*backend, BYTES).await;
    println!("\ngrown by KiB: {}", peak() - before);
}

async fn pass_through(house: &House, backend: &dyn plugin_host::XcomBackend, bytes: u64) {
    let text = tokio::io::repeat(b'x').take(bytes - 2);
    let reader = (&b"\""[..]).chain(text).chain(&b"\""[..]);
    let value: Payload = house.host.spool(reader, 1 << 30).await.unwrap();
    let stored = backend.put(&at("return_value"), value).await.unwrap();
    let value = backend.get(&at("return_value"), &stored).await.unwrap();
    let mut reader = value.reader();
    let mut buffer = vec![0; 64 << 10];
    let mut read = 0;
    loop {
        match reader.read(&mut buffer).await.unwrap() {
            0 => break,
            count => read += count as u64,
        }
    }
    assert_eq!(read, bytes);
}

/// The most memory this process ever had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
