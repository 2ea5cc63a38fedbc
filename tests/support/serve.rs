//! A `serve` of one test.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::modalflow;

/// Stopped with Ctrl-C when the test ends.
pub struct Serving {
    child: Child,
    said: PathBuf,
    _folder: tempfile::TempDir,
}

impl Serving {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When it ends at once or says nothing for a minute.
    #[must_use]
    pub fn start(env: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("serve.log");
        let log = File::create(&said).unwrap();
        let child = modalflow(["serve", "--env", env])
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("serve starts");
        let mut serving = Self {
            child,
            said,
            _folder: folder,
        };
        let began = Instant::now();
        while !serving.said().contains("serving environment") {
            if let Some(status) = serving.child.try_wait().unwrap() {
                panic!("serve ended with {status}:\n{}", serving.said());
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "serve is silent:\n{}",
                serving.said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    /// Everything it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        let mut text = String::new();
        let _ = File::open(&self.said).and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, which it can't notice.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let _ = self.child.wait();
    }

    /// Ctrl-C; answers its exit code.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[must_use]
    pub fn interrupt(mut self) -> Option<i32> {
        self.stop()
    }

    fn stop(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(pid, Signal::SIGINT);
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            if began.elapsed() > Duration::from_secs(60) {
                let _ = self.child.kill();
                panic!("serve did not stop:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if std::thread::panicking() {
                eprintln!("serve said:\n{}", self.said());
            }
            let _ = self.stop();
        }
    }
}
