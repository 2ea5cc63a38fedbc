//! Answers that go on: what is there now, and what comes while the caller listens.

use std::{collections::VecDeque, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tonic::codegen::BoxStream;

use crate::{ask::Ask, core::Core};

/// What one look brings.
pub(crate) enum Batch<T> {
    /// More may come.
    More(Vec<T>),
    Last(Vec<T>),
}

/// Looks whenever the bell rings, until the last batch, the end of `hold`, or the emulator's.
pub(crate) fn stream<T: Send + 'static>(
    ask: Ask,
    bell: fn(&Core) -> &Notify,
    hold: Duration,
    look: impl FnMut(&Ask) -> Batch<T> + Send + 'static,
) -> BoxStream<T> {
    let state = State {
        ask,
        look,
        ready: VecDeque::new(),
        is_over: false,
        end: Instant::now() + hold,
    };
    let items = futures::stream::unfold(state, move |mut state| async move {
        loop {
            if let Some(item) = state.ready.pop_front() {
                return Some((Ok(item), state));
            }
            if state.is_over {
                return None;
            }
            let core = state.ask.core.clone();
            let ring = bell(&core).notified();
            let mut ring = std::pin::pin!(ring);
            ring.as_mut().enable();
            match (state.look)(&state.ask) {
                Batch::More(items) => state.ready.extend(items),
                Batch::Last(items) => {
                    state.ready.extend(items);
                    state.is_over = true;
                }
            }
            if state.ready.is_empty() && !state.is_over {
                state.is_over = !state.ask.until_changed(ring, state.end).await;
            }
        }
    });
    Box::pin(items)
}

struct State<T, L> {
    ask: Ask,
    look: L,
    ready: VecDeque<T>,
    is_over: bool,
    end: Instant,
}
