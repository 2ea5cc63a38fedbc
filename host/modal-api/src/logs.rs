//! What containers print: live, as it comes, and of the past.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;

use crate::{Client, Error, wire};

pub use crate::wire::FileDescriptor;

/// How long one stream lives before it is opened again.
const STREAM: Duration = Duration::from_secs(55);
const MOST_BREAKS: u32 = 10;

/// Which lines: those of everything that is named here.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogFilter<'a> {
    pub function_id: &'a str,
    pub function_call_id: &'a str,
    pub container_id: &'a str,
    pub sandbox_id: &'a str,
    pub search: &'a str,
    /// None is all of them.
    pub source: Option<FileDescriptor>,
}

/// A piece of output: often a line, sometimes less or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    pub text: String,
    pub source: FileDescriptor,
    pub at: Option<DateTime<Utc>>,
    pub container_id: String,
    pub function_call_id: String,
}

/// Whether a log goes on after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    On,
    Stop,
}

impl Client {
    /// Hands out what an app's containers print from now on, until `each` says stop or the app is done.
    pub async fn logs_follow(
        &self,
        app_id: &str,
        filter: LogFilter<'_>,
        each: &mut (dyn FnMut(LogPiece) -> Follow + Send),
    ) -> Result<(), Error> {
        let mut last_entry_id = String::new();
        let mut breaks = 0;
        loop {
            let request = wire::AppGetLogsRequest {
                app_id: app_id.to_owned(),
                timeout: STREAM.as_secs_f32(),
                last_entry_id: last_entry_id.clone(),
                function_id: filter.function_id.to_owned(),
                task_id: filter.container_id.to_owned(),
                function_call_id: filter.function_call_id.to_owned(),
                file_descriptor: filter.source.unwrap_or_default().into(),
                sandbox_id: filter.sandbox_id.to_owned(),
                search_text: filter.search.to_owned(),
                ..Default::default()
            };
            let mut stream = self
                .caller
                .stream(request, async |mut stub, request| {
                    stub.app_get_logs(request).await
                })
                .await?;
            while let Some(batch) = stream.next().await {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(status) => {
                        let error = self.caller.failure(status);
                        breaks += 1;
                        if !error.is_passing() || breaks > MOST_BREAKS {
                            return Err(error);
                        }
                        tracing::debug!(%error, app_id, "the log broke off");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        break;
                    }
                };
                breaks = 0;
                if !batch.entry_id.is_empty() {
                    last_entry_id.clone_from(&batch.entry_id);
                }
                let done = batch.app_done;
                for piece in pieces(batch) {
                    if each(piece) == Follow::Stop {
                        return Ok(());
                    }
                }
                if done {
                    return Ok(());
                }
            }
        }
    }

    /// What was printed in a span of time: its `most` newest pieces, the oldest first. Modal keeps a day of it.
    pub async fn logs_fetch(
        &self,
        app_id: &str,
        filter: LogFilter<'_>,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        most: u32,
    ) -> Result<Vec<LogPiece>, Error> {
        let request = wire::AppFetchLogsRequest {
            app_id: app_id.to_owned(),
            since: Some(timestamp(since)),
            until: Some(timestamp(until)),
            limit: most,
            source: filter.source.unwrap_or_default().into(),
            function_id: filter.function_id.to_owned(),
            function_call_id: filter.function_call_id.to_owned(),
            task_id: filter.container_id.to_owned(),
            sandbox_id: filter.sandbox_id.to_owned(),
            search_text: filter.search.to_owned(),
            ..Default::default()
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.app_fetch_logs(request).await
            })
            .await?;
        let mut all: Vec<LogPiece> = answer.batches.into_iter().flat_map(pieces).collect();
        all.sort_by_key(|piece| piece.at);
        Ok(all)
    }
}

pub(crate) fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or_default(),
    }
}

pub(crate) fn pieces(batch: wire::TaskLogsBatch) -> impl Iterator<Item = LogPiece> {
    let container_id = batch.task_id;
    batch
        .items
        .into_iter()
        .filter(|item| !item.data.is_empty())
        .map(move |item| LogPiece {
            source: item.file_descriptor(),
            at: moment(&item),
            container_id: container_id.clone(),
            function_call_id: item.function_call_id,
            text: item.data,
        })
}

fn moment(item: &wire::TaskLogs) -> Option<DateTime<Utc>> {
    if item.timestamp_ns > 0 {
        return i64::try_from(item.timestamp_ns)
            .ok()
            .map(DateTime::from_timestamp_nanos);
    }
    crate::outcome::instant(item.timestamp)
}
