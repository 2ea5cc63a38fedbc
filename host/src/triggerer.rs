//! The triggerer runs while a task, a watcher of an asset or a callback of a deadline waits in it, and not longer.

use std::time::{Duration, Instant};

use environment::triggerer::{self, Triggerer};
use environment::{Environment, progress};

/// How long it stays when nothing waits any more: sensors often defer again at once.
const IDLE: Duration = Duration::from_secs(60);
/// Between two starts of one that ends by itself.
const PAUSE: Duration = Duration::from_secs(10);

/// Starts and stops the triggerer as ticks report what waits.
#[derive(Debug, Default)]
pub struct OnDemand {
    running: Option<Triggerer>,
    last_needed: Option<Instant>,
    last_start: Option<Instant>,
}

impl OnDemand {
    /// Hears how many task instances, watchers and callbacks wait now.
    pub async fn follow(&mut self, environment: &Environment, waiting: i64) {
        let now = Instant::now();
        if waiting > 0 {
            self.last_needed = Some(now);
        }
        if self.running.as_ref().is_some_and(Triggerer::has_ended)
            && let Some(ended) = self.running.take()
        {
            tracing::warn!(log = %ended.log.display(), "the triggerer ended by itself");
        }
        match &self.running {
            None if waiting > 0 && is_past(self.last_start, PAUSE, now) => {
                self.last_start = Some(now);
                match triggerer::start(environment, &progress::Silent).await {
                    Ok(started) => self.running = Some(started),
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot start the triggerer"
                        );
                    }
                }
            }
            Some(_) if waiting == 0 && is_past(self.last_needed, IDLE, now) => self.stop().await,
            _ => {}
        }
    }

    /// Ends it; what it waited for stays in the database.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

fn is_past(then: Option<Instant>, span: Duration, now: Instant) -> bool {
    then.is_none_or(|then| now.duration_since(then) >= span)
}
