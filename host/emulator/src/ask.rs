//! What a handler knows of a request beside its message: who asks, by which attempt, and what such an attempt was answered before.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    callers::not_written,
    core::{Core, Inner},
    rows::{Change, Row, Table},
};

/// How long an answer is kept for a repeated attempt. The official client gives up long before.
pub(crate) const ANSWERS_KEPT: f64 = 600.0;
/// After a change housekeeping looks within this time: at the journal's length, at old answers.
const LOOK_AFTER: f64 = 60.0;

pub(crate) struct Ask {
    pub(crate) core: Arc<Core>,
    /// The idempotency key; empty if there is none.
    pub(crate) key: String,
    /// What the client says it is; empty if it does not say.
    pub(crate) client_version: String,
    /// The container that asks.
    pub(crate) task_id: Option<String>,
    pub(crate) halt: CancellationToken,
}

/// What an attempt was answered, so that its repetition does nothing twice.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnswerRow {
    #[prost(double, tag = "1")]
    pub(crate) at: f64,
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

impl Row for AnswerRow {
    const TABLE: Table = Table::Answers;
}

impl Ask {
    pub(crate) fn now(&self) -> f64 {
        self.core.clock.now()
    }

    /// The answer to an earlier attempt of this request.
    pub(crate) fn earlier<M: prost::Message + Default>(&self, inner: &Inner) -> Option<M> {
        if self.key.is_empty() {
            return None;
        }
        M::decode(
            inner
                .state
                .rows
                .get::<AnswerRow>(&self.key)?
                .body
                .as_slice(),
        )
        .ok()
    }

    /// Writes the change together with its answer, which a repeated attempt gets again.
    pub(crate) fn commit_once<M: prost::Message>(
        &self,
        inner: &mut Inner,
        mut change: Change,
        answer: &M,
    ) -> Result<(), Status> {
        if !self.key.is_empty() {
            let row = AnswerRow {
                at: self.now(),
                body: answer.encode_to_vec(),
            };
            change.put(&self.key, &row);
        }
        self.commit(inner, change)
    }

    pub(crate) fn commit(&self, inner: &mut Inner, change: Change) -> Result<(), Status> {
        if change.is_empty() {
            return Ok(());
        }
        inner.commit(change.into_event()).map_err(not_written)?;
        let moment = self.now() + LOOK_AFTER;
        self.core.look_at(inner, moment);
        Ok(())
    }

    /// Waits until rows have changed; false: the time is over, or the emulator ends.
    pub(crate) async fn until_changed(
        &self,
        ring: std::pin::Pin<&mut tokio::sync::futures::Notified<'_>>,
        end: Instant,
    ) -> bool {
        tokio::select! {
            () = ring => true,
            () = tokio::time::sleep_until(end) => false,
            () = self.halt.cancelled() => false,
        }
    }
}

/// Drops answers that nobody will ask for again.
pub(crate) fn forget_answers(inner: &Inner, now: f64) -> Change {
    let mut change = Change::default();
    for (key, row) in inner.state.rows.scan::<AnswerRow>(b"") {
        if row.at + ANSWERS_KEPT < now {
            change.delete::<AnswerRow>(key);
        }
    }
    change
}
