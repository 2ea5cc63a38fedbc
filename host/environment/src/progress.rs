//! What a person sees while something takes longer than a second: a spinner on a terminal, plain lines elsewhere.
//! All of it goes to stderr; nothing here is data.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Somebody who is told what is being done.
pub trait Progress: Send + Sync {
    /// A step begins, for example "installing Airflow 3.3.2". It ends when the answer is dropped.
    fn step(&self, what: &str) -> Step;

    /// One line that stays.
    fn note(&self, what: &str);
}

/// A step under way.
pub struct Step(Shown);

enum Shown {
    Nothing,
    /// Ends its thread when dropped.
    Lines(Sender<String>, Option<std::thread::JoinHandle<()>>),
    Spinner(ProgressBar, String, Instant),
}

impl Step {
    /// What of the step is being done just now.
    pub fn detail(&self, what: &str) {
        match &self.0 {
            Shown::Nothing => {}
            Shown::Lines(sender, _) => {
                let _ = sender.send(what.to_owned());
            }
            Shown::Spinner(bar, step, _) => bar.set_message(format!("{step}: {what}")),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.0, Shown::Nothing) {
            Shown::Nothing => {}
            Shown::Lines(sender, thread) => {
                drop(sender);
                if let Some(thread) = thread {
                    let _ = thread.join();
                }
            }
            Shown::Spinner(bar, step, began) => {
                bar.finish_and_clear();
                if began.elapsed() >= LONG {
                    line(&format!("{step} ({:.1} s)", began.elapsed().as_secs_f64()));
                }
            }
        }
    }
}

/// A step is spoken of once it has taken this long.
const LONG: Duration = Duration::from_secs(1);
/// And again each time this has passed.
const STILL: Duration = Duration::from_secs(15);

/// Nothing is shown.
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _what: &str) -> Step {
        Step(Shown::Nothing)
    }

    fn note(&self, _what: &str) {}
}

/// A spinner if stderr is a terminal, else a line when a step has taken a second, and one when it ends.
pub struct Stderr;

impl Progress for Stderr {
    fn step(&self, what: &str) -> Step {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            return Step(Shown::Spinner(bar, what.to_owned(), Instant::now()));
        }
        let (sender, receiver) = channel::<String>();
        let what = what.to_owned();
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                let began = Instant::now();
                let mut detail = String::new();
                let mut next = LONG;
                loop {
                    match receiver.recv_timeout(next.saturating_sub(began.elapsed())) {
                        Ok(newer) => detail = newer,
                        Err(RecvTimeoutError::Timeout) => {
                            let seconds = began.elapsed().as_secs();
                            match (next == LONG, detail.is_empty()) {
                                (true, _) => line(&format!("{what} ...")),
                                (false, true) => line(&format!("{what} ... {seconds} s")),
                                (false, false) => {
                                    line(&format!("{what} ... {seconds} s: {detail}"))
                                }
                            }
                            next = if next == LONG { STILL } else { next + STILL };
                        }
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
                if next > LONG {
                    line(&format!("{what}: {:.1} s", began.elapsed().as_secs_f64()));
                }
            });
        Step(Shown::Lines(sender, thread.ok()))
    }

    fn note(&self, what: &str) {
        line(what);
    }
}

/// stderr may be closed; that is no reason to fail.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
