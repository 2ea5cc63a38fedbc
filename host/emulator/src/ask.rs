//! What a handler knows of a request beside its message: who asks, by which attempt, and what such an attempt was answered before.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    callers::not_written,
    core::{Core, Inner},
    rows::{Change, Row, Rows, Table},
};

/// How long an answer is kept for a repeated attempt: for longer than our client's four attempts at a call that makes the server work
/// can take, with 300 s each. The official client's next attempt comes within seconds.
const ANSWERS_KEPT: f64 = 1500.0;
/// Together answers may be so large, with their keys; what a queue gave out lies in them.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// What an answer takes beside its key and its body.
const ANSWER_OVERHEAD: usize = 100;
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
    at: f64,
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

impl Row for AnswerRow {
    const TABLE: Table = Table::Answers;
}

impl AnswerRow {
    fn weight(&self, key: &[u8]) -> usize {
        ANSWER_OVERHEAD + key.len() + self.body.len()
    }
}

/// The answers that are kept, the oldest first: their rows are ordered by key.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    line: VecDeque<Answered>,
    bytes: usize,
}

#[derive(Debug)]
struct Answered {
    at: f64,
    key: String,
    bytes: usize,
}

impl Answers {
    /// Those of an earlier life.
    pub(crate) fn of(rows: &Rows) -> Self {
        let mut line: Vec<_> = rows
            .scan::<AnswerRow>(b"")
            .map(|(key, row)| Answered {
                at: row.at,
                key: String::from_utf8_lossy(key).into_owned(),
                bytes: row.weight(key),
            })
            .collect();
        line.sort_by(|a, b| a.at.total_cmp(&b.at));
        Self {
            bytes: line.iter().map(|answered| answered.bytes).sum(),
            line: line.into(),
        }
    }

    fn keep(&mut self, at: f64, key: String, bytes: usize) {
        self.bytes += bytes;
        self.line.push_back(Answered { at, key, bytes });
    }

    /// How many of the oldest have to go to make room.
    fn too_many(&self, coming: usize) -> usize {
        let mut bytes = self.bytes + coming;
        let goes = |answered: &&Answered| {
            let is_over = bytes > MAX_ANSWER_BYTES;
            bytes -= answered.bytes;
            is_over
        };
        self.line.iter().take_while(goes).count()
    }

    fn too_old(&self, now: f64) -> usize {
        self.line.partition_point(|one| one.at + ANSWERS_KEPT < now)
    }

    /// Adds the rows that end the oldest ones.
    fn end(&self, count: usize, change: &mut Change) {
        for answered in self.line.iter().take(count) {
            change.delete::<AnswerRow>(&answered.key);
        }
    }

    /// Once their rows are gone.
    fn ended(&mut self, count: usize) {
        for answered in self.line.drain(..count) {
            self.bytes -= answered.bytes;
        }
    }
}

impl Ask {
    pub(crate) fn now(&self) -> f64 {
        self.core.clock.now()
    }

    /// What clients are told of a moment.
    pub(crate) fn wall(&self) -> f64 {
        self.core.clock.wall()
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
        if self.key.is_empty() {
            return self.commit(inner, change);
        }
        let row = AnswerRow {
            at: self.now(),
            body: answer.encode_to_vec(),
        };
        let bytes = row.weight(self.key.as_bytes());
        let surplus = inner.answers.too_many(bytes);
        inner.answers.end(surplus, &mut change);
        change.put(&self.key, &row);
        self.commit(inner, change)?;
        inner.answers.ended(surplus);
        inner.answers.keep(row.at, self.key.clone(), bytes);
        Ok(())
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
pub(crate) fn forget_answers(inner: &mut Inner, now: f64) -> Change {
    let mut change = Change::default();
    let old = inner.answers.too_old(now);
    inner.answers.end(old, &mut change);
    inner.answers.ended(old);
    change
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_OVERHEAD, ANSWERS_KEPT, AnswerRow, Answers, MAX_ANSWER_BYTES};
    use crate::{
        record::Event,
        rows::{Change, Rows},
    };

    #[test]
    fn answers_are_kept_for_a_while_and_not_more_than_fit() {
        let mut rows = Rows::default();
        let mut change = Change::default();
        for (key, at, length) in [("late", 9.0, 3), ("early", 1.0, 2), ("middle", 5.0, 4)] {
            let body = vec![0; length];
            change.put(key, &AnswerRow { at, body });
        }
        if let Event::RowsChanged(event) = change.into_event() {
            rows.apply(event);
        }
        let mut answers = Answers::of(&rows);
        let room = |count: usize, bytes: usize| MAX_ANSWER_BYTES - count * ANSWER_OVERHEAD - bytes;
        assert_eq!(answers.too_many(0), 0);
        assert_eq!(answers.too_many(room(3, 5 + 2 + 6 + 4 + 4 + 3)), 0);
        assert_eq!(answers.too_many(room(3, 23)), 1);
        assert_eq!(answers.too_many(room(2, 6 + 4 + 4 + 3)), 1);
        assert_eq!(answers.too_many(room(2, 16)), 2);
        assert_eq!(answers.too_many(2 * MAX_ANSWER_BYTES), 3);
        assert_eq!(answers.too_old(ANSWERS_KEPT + 5.0), 1);
        assert_eq!(answers.too_old(ANSWERS_KEPT + 5.5), 2);

        let mut change = Change::default();
        answers.end(2, &mut change);
        answers.ended(2);
        answers.keep(10.0, "last".to_owned(), 7);
        if let Event::RowsChanged(event) = change.into_event() {
            rows.apply(event);
        }
        assert_eq!(rows.keys::<AnswerRow>(b"").collect::<Vec<_>>(), [b"late"]);
        assert_eq!(answers.bytes, ANSWER_OVERHEAD + 4 + 3 + 7);
    }
}
