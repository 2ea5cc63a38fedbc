//! Waiting for the ends of calls. One long poll for each open call; what is seen is kept until the tick takes it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use metadata::dispatch::OpenCall;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Executor, Fate};

/// One long poll; the server answers at once when the call ends.
const POLL: Duration = Duration::from_secs(50);
/// Between two polls when the server can't be reached.
const PAUSE: Duration = Duration::from_millis(500);
/// Calls that are looked at together.
const LOOKS_AT_ONCE: usize = 32;

/// A call that ended.
#[derive(Debug, Clone)]
pub struct Observation {
    pub dispatch_id: Uuid,
    pub fate: Fate,
}

/// Follows calls to their end. Dropping it stops following; the calls go on.
pub struct Watch {
    executor: Arc<Executor>,
    seen: Arc<Mutex<Vec<Observation>>>,
    wake: Arc<dyn Fn() + Send + Sync>,
    following: HashSet<Uuid>,
    polls: JoinSet<()>,
}

impl Watch {
    /// `wake` asks for a tick.
    #[must_use]
    pub fn new(executor: Arc<Executor>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            executor,
            seen: Arc::default(),
            wake,
            following: HashSet::new(),
            polls: JoinSet::new(),
        }
    }

    /// Follows the calls that it does not follow yet.
    pub fn follow(&mut self, calls: impl IntoIterator<Item = OpenCall>) {
        while self.polls.try_join_next().is_some() {}
        for call in calls {
            if !self.following.insert(call.dispatch_id) {
                continue;
            }
            let (executor, seen, wake) = (
                Arc::clone(&self.executor),
                Arc::clone(&self.seen),
                Arc::clone(&self.wake),
            );
            self.polls.spawn(async move {
                let fate = until_end(&executor, &call.call_id).await;
                let observation = Observation {
                    dispatch_id: call.dispatch_id,
                    fate,
                };
                seen.lock()
                    .expect("no panic while it is held")
                    .push(observation);
                wake();
            });
        }
    }

    /// Looks once at calls that are not followed, without waiting: those that have ended are seen from now on. For a tick that
    /// will not be there when the others end.
    pub async fn look(&mut self, calls: Vec<OpenCall>) {
        let calls = calls
            .into_iter()
            .filter(|call| !self.following.contains(&call.dispatch_id))
            .collect();
        let executor = &self.executor;
        let calls = executor.doubtful(calls).await;
        let looked: Vec<(Uuid, Result<Option<Fate>, super::Error>)> = futures::stream::iter(calls)
            .map(|call| async move {
                let fate = executor.fate(&call.call_id, Duration::ZERO).await;
                (call.dispatch_id, fate)
            })
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await;
        for (dispatch_id, fate) in looked {
            match fate {
                Ok(Some(fate)) => {
                    self.following.insert(dispatch_id);
                    let observation = Observation { dispatch_id, fate };
                    self.seen
                        .lock()
                        .expect("no panic while it is held")
                        .push(observation);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot look at a call"
                ),
            }
        }
    }

    /// How many calls are followed, or seen to have ended and not taken yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.following.len()
    }

    /// What has been seen since the last time. A call stays followed until it is taken, so that one that ended
    /// while a tick was reading is not followed anew.
    #[must_use]
    pub fn take(&mut self) -> Vec<Observation> {
        let taken = std::mem::take(&mut *self.seen.lock().expect("no panic while it is held"));
        for observation in &taken {
            self.following.remove(&observation.dispatch_id);
        }
        taken
    }

    /// Something was seen on another way than by following; asks for a tick.
    pub fn note(&mut self, observation: Observation) {
        self.put_back(vec![observation]);
        (self.wake)();
    }

    /// Gives observations back that could not be handled.
    pub fn put_back(&mut self, observations: Vec<Observation>) {
        self.following.extend(
            observations
                .iter()
                .map(|observation| observation.dispatch_id),
        );
        self.seen
            .lock()
            .expect("no panic while it is held")
            .extend(observations);
    }
}

async fn until_end(executor: &Executor, call_id: &str) -> Fate {
    loop {
        match executor.fate(call_id, POLL).await {
            Ok(Some(fate)) => return fate,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    call_id,
                    error = &error as &dyn std::error::Error,
                    "cannot follow a call"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
