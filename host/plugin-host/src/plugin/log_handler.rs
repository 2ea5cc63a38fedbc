//! [`LogHandler`] over a guest.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Loaded;
use crate::bindings::guest::log_handler as wit;
use crate::call::{Call, MOST_TEXT, cut};
use crate::{Error, INLINE_BYTES, Kind, LogHandler, LogOutcome, LogPage, LogRecord, TaskKey};

const MOST_RECORDS: u32 = 10_000;
const MOST_SOURCES: usize = 16;
/// Lines longer than this are cut, whatever a guest says.
const LONGEST_EVENT: usize = 64 << 10;

pub(super) struct Guest(pub(super) Arc<Loaded>);

impl Guest {
    async fn begin(
        &self,
        function: &'static str,
        value_bytes: u64,
    ) -> Result<(Call, wit::Guest), Error> {
        let mut call = self.0.begin(function, value_bytes).await?;
        let Some(exports) = &self.0.exports.log_handler else {
            return Err(self.0.wrong_kind(Kind::LogHandler));
        };
        let guest = exports.load(&mut call.store, &call.instance);
        let guest = call.conclude(guest)?;
        Ok((call, guest))
    }

    async fn append_piece(&self, task: &TaskKey, offset: u64, lines: &[u8]) -> Result<u64, Error> {
        let (mut call, guest) = self.begin("log-handler.append", lines.len() as u64).await?;
        let task = task.into();
        let answer = guest.call_append(&mut call.store, &task, offset, lines);
        let answer = call.limit.watch(answer).await;
        call.conclude_result(answer)
    }
}

#[async_trait]
impl LogHandler for Guest {
    async fn append(&self, task: &TaskKey, offset: u64, lines: Bytes) -> Result<u64, Error> {
        let mut at = offset;
        let mut pieces = lines.chunks(INLINE_BYTES);
        let mut piece = pieces.next().unwrap_or_default();
        loop {
            let len = self.append_piece(task, at, piece).await?;
            at += piece.len() as u64;
            match pieces.next() {
                Some(next) => piece = next,
                None => return Ok(len),
            }
        }
    }

    async fn finish(&self, task: &TaskKey, outcome: LogOutcome) -> Result<(), Error> {
        let (mut call, guest) = self.begin("log-handler.finish", 0).await?;
        let task = task.into();
        let answer = guest.call_finish(&mut call.store, &task, outcome.into());
        let answer = call.limit.watch(answer).await;
        call.conclude_result(answer)
    }

    async fn read(
        &self,
        task: &TaskKey,
        after: Option<String>,
        max_records: u32,
    ) -> Result<LogPage, Error> {
        let max = max_records.clamp(1, MOST_RECORDS);
        let (mut call, guest) = self.begin("log-handler.read", 0).await?;
        let task = task.into();
        let answer = guest.call_read(&mut call.store, &task, after.as_deref(), max);
        let answer = call.limit.watch(answer).await;
        let page = call.conclude_result(answer)?;
        if page.records.len() > max as usize {
            return Err(call.misbehaved(format!(
                "{} records where {max} were asked for",
                page.records.len()
            )));
        }
        let records = page
            .records
            .into_iter()
            .map(|record| checked(&call, record));
        Ok(LogPage {
            records: records.collect::<Result<_, _>>()?,
            sources: page
                .sources
                .into_iter()
                .take(MOST_SOURCES)
                .map(|source| cut(source, MOST_TEXT))
                .collect(),
            next: page.next.map(|next| cut(next, 1024)),
            at_end: page.at_end,
        })
    }

    async fn purge(&self, dag_id: &str, run_id: Option<&str>) -> Result<u64, Error> {
        let (mut call, guest) = self.begin("log-handler.purge", 0).await?;
        let answer = guest.call_purge(&mut call.store, dag_id, run_id);
        let answer = call.limit.watch(answer).await;
        call.conclude_result(answer)
    }
}

fn checked(call: &Call, record: wit::LogRecord) -> Result<LogRecord, Error> {
    let fields = match record.fields.as_str() {
        "" | "{}" => serde_json::Map::new(),
        text => serde_json::from_str(text).map_err(|error| {
            call.misbehaved(format!(
                "the fields of a record are no JSON object: {error}"
            ))
        })?,
    };
    Ok(LogRecord {
        timestamp: record.timestamp.map(|text| cut(text, 64)),
        level: record.level.map(|text| cut(text, 64)),
        logger: record.logger.map(|text| cut(text, 1024)),
        event: cut(record.event, LONGEST_EVENT),
        fields,
    })
}

impl From<LogOutcome> for wit::Outcome {
    fn from(outcome: LogOutcome) -> Self {
        match outcome {
            LogOutcome::Success => wit::Outcome::Success,
            LogOutcome::Failed => wit::Outcome::Failed,
            LogOutcome::Skipped => wit::Outcome::Skipped,
            LogOutcome::UpForRetry => wit::Outcome::UpForRetry,
            LogOutcome::Deferred => wit::Outcome::Deferred,
            LogOutcome::Lost => wit::Outcome::Lost,
        }
    }
}
