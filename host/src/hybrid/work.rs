//! The life of one call: started with patience, followed to its end, cancelled when it must.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use executor_api::{Ended, Refused};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::book::{Book, State, Wish};
use super::calls::Calls;
use super::ended;

/// Starts that are under way at once.
const STARTS_AT_ONCE: usize = 32;
/// Between the first two tries to start a call; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// One long poll; the server answers at once when the call ends.
const POLL: Duration = Duration::from_secs(50);
/// Between the first two polls when the server can't be reached; doubles with each, to the longest pause.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks whether a call that shall end has been started.
const LOOK: Duration = Duration::from_millis(20);
/// Tries to cancel a call.
const CANCELLATIONS: u32 = 5;

/// Everything under way for the caller.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) calls: Calls,
    pub(super) book: Book,
    starts: Semaphore,
    lives: Mutex<JoinSet<()>>,
    cancellations: Mutex<JoinSet<()>>,
}

/// A workload to be started.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) key: Uuid,
    pub(super) payload: String,
    pub(super) executor_config: String,
    pub(super) max_attempts: u32,
}

impl Work {
    pub(super) fn new(calls: Calls) -> Self {
        Self {
            calls,
            book: Book::new(),
            starts: Semaphore::new(STARTS_AT_ONCE),
            lives: Mutex::default(),
            cancellations: Mutex::default(),
        }
    }

    /// Starts a call and follows it, unless its key is known.
    pub(super) fn begin(self: &Arc<Self>, start: Start) {
        if self.book.begin(start.key, State::Starting) {
            let work = Arc::clone(self);
            spawn(&self.lives, async move { work.run(start).await });
        }
    }

    /// Follows a call that was started before our time, unless it is followed already.
    pub(super) fn adopt(self: &Arc<Self>, key: Uuid, call_id: String) {
        let state = State::Running {
            call_id: call_id.clone(),
        };
        if self.book.begin(key, state) {
            let work = Arc::clone(self);
            spawn(&self.lives, async move { work.follow(key, &call_id).await });
        }
    }

    /// Ends a call and forgets it. `call_id` is what the caller knows.
    pub(super) fn cancel(self: &Arc<Self>, key: Uuid, call_id: String) {
        let known = match self.book.strike(key, Wish::Cancel) {
            Some(State::Running { call_id }) => Some(call_id),
            // Its start is under way and will see the wish; an end is an end.
            Some(State::Starting | State::Ended(_) | State::Refused(_)) => None,
            None => Some(call_id).filter(|id| !id.is_empty()),
        };
        if let Some(call_id) = known {
            let work = Arc::clone(self);
            spawn(&self.cancellations, async move {
                work.cancel_call(&call_id).await;
            });
        }
    }

    /// Waits for cancellations that are under way.
    pub(super) async fn finish_cancelling(&self) {
        while self.book.awaits_cancellation() {
            tokio::time::sleep(LOOK).await;
        }
        let mut under_way = std::mem::take(
            &mut *self
                .cancellations
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        while under_way.join_next().await.is_some() {}
    }

    async fn run(&self, start: Start) {
        let key = start.key;
        match self.start(start).await {
            Ok(call_id) => match self.book.started(key, &call_id) {
                Wish::Follow => self.follow(key, &call_id).await,
                Wish::Cancel => {
                    self.cancel_call(&call_id).await;
                    self.book.forget(key);
                }
                Wish::Leave => {}
            },
            Err(refused) => self.book.over(key, State::Refused(refused)),
        }
    }

    async fn start(&self, start: Start) -> Result<String, Refused> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let started = {
                let _turn = self.starts.acquire().await;
                self.calls
                    .spawn(start.key, &start.payload, &start.executor_config)
                    .await
            };
            let error = match started {
                Ok(call_id) => return Ok(call_id),
                Err(error) => error,
            };
            if !error.is_passing() || attempt >= start.max_attempts {
                return Err(ended::refused(&error));
            }
            tracing::warn!(
                key = %start.key,
                attempt,
                error = &error as &dyn std::error::Error,
                "cannot start a call; tried again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        unreachable!("the tries are counted")
    }

    async fn follow(&self, key: Uuid, call_id: &str) {
        let ended = self.end_of(key, call_id).await;
        if let Some(ended) = ended {
            self.book.over(key, State::Ended(ended));
        }
    }

    /// Waits for the end of a call; `None` when the caller has lost interest. What says nothing of the call is no end: while Modal
    /// is away, or takes neither token nor version, it goes on there, and is asked for again.
    async fn end_of(&self, key: Uuid, call_id: &str) -> Option<Ended> {
        let mut pause = PAUSE;
        loop {
            self.book.state(key)?;
            match self.calls.result(call_id, POLL).await {
                Ok(modal_api::CallStatus::Pending) => {
                    self.book.note_signed_out(key, false);
                    pause = PAUSE;
                }
                Ok(modal_api::CallStatus::Ended(result)) => {
                    return Some(ended::ended(call_id, &result));
                }
                Ok(modal_api::CallStatus::Expired) => return Some(ended::unknown(call_id)),
                Err(error) if error.is_not_found() => return Some(ended::unknown(call_id)),
                Err(error) if error.is_about_call() => {
                    return Some(ended::lost(call_id, &error));
                }
                Err(error) => {
                    self.book.note_signed_out(key, error.is_signed_out());
                    if pause == PAUSE {
                        tracing::warn!(
                            call_id,
                            error = &error as &dyn std::error::Error,
                            "cannot follow a call; tried until it can be"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn cancel_call(&self, call_id: &str) {
        for _ in 0..CANCELLATIONS {
            match self.calls.cancel(call_id).await {
                Ok(()) => return,
                Err(error) if error.is_not_found() => return,
                Err(error) => tracing::warn!(
                    call_id,
                    error = &error as &dyn std::error::Error,
                    "cannot cancel a call"
                ),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn spawn(set: &Mutex<JoinSet<()>>, work: impl Future<Output = ()> + Send + 'static) {
    let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
    while set.try_join_next().is_some() {}
    set.spawn(work);
}
