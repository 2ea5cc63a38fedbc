//! The RPCs of those who read logs: as they come, of a time, and how many there are.

use std::{collections::BTreeMap, time::Duration};

use modal_api::wire::{self, FileDescriptor};
use prost_types::Timestamp;
use tonic::{Status, codegen::BoxStream};

use crate::{
    app_life, apps,
    ask::Ask,
    logs::LogRecord,
    mounts::timestamp,
    streaming::{Batch, stream},
};

const MAX_HOLD: Duration = Duration::from_secs(55);
/// As on Modal.
const MAX_FETCH: usize = 20_000;

/// Which records are meant; what is empty does not matter.
#[derive(Default)]
struct Filter {
    source: i32,
    function_id: String,
    function_call_id: String,
    input_id: String,
    task_id: String,
    text: String,
    since: Option<f64>,
    until: Option<f64>,
}

impl Filter {
    fn takes(&self, record: &LogRecord) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        (self.source == FileDescriptor::Unspecified as i32 || self.source == record.source)
            && fits(&self.function_id, &record.function_id)
            && fits(&self.function_call_id, &record.function_call_id)
            && fits(&self.input_id, &record.input_id)
            && fits(&self.task_id, &record.task_id)
            && record.line.contains(&self.text)
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at <= until)
    }
}

/// Follows an app's log until the app has ended.
pub(crate) fn follow(
    ask: Ask,
    request: wire::AppGetLogsRequest,
) -> Result<BoxStream<wire::TaskLogsBatch>, Status> {
    let app_id = app_of(&ask, &request.app_id, &request.task_id)?;
    let hold = Duration::try_from_secs_f32(request.timeout)
        .unwrap_or_default()
        .min(MAX_HOLD);
    let mut place: u64 = request.last_entry_id.parse().unwrap_or(0);
    let filter = Filter {
        source: request.file_descriptor,
        function_id: request.function_id,
        function_call_id: request.function_call_id,
        input_id: request.input_id,
        task_id: request.task_id,
        text: request.search_text,
        ..Default::default()
    };
    let look = move |ask: &Ask| {
        // Asked before reading, so that the last lines are not missed.
        let is_over = is_over(ask, &app_id);
        let records = ask.core.logs.after(&app_id, place);
        place = records.last().map_or(place, |(place, _)| *place);
        let found = records
            .into_iter()
            .filter(|(_, record)| filter.takes(record));
        let mut batches: Vec<_> = found
            .map(|(place, record)| batch(place.to_string(), vec![record]))
            .collect();
        if is_over {
            batches.push(wire::TaskLogsBatch {
                app_done: true,
                ..Default::default()
            });
            return Batch::Last(batches);
        }
        Batch::More(batches)
    };
    Ok(stream(ask, |core| &core.logs_bell, hold, look))
}

/// The newest records of a time, the oldest first.
pub(crate) fn fetch(
    ask: &Ask,
    request: wire::AppFetchLogsRequest,
) -> Result<wire::AppFetchLogsResponse, Status> {
    let app_id = app_of(ask, &request.app_id, &request.task_id)?;
    let filter = Filter {
        source: request.source,
        function_id: request.function_id,
        function_call_id: request.function_call_id,
        task_id: request.task_id,
        text: request.search_text,
        since: request.since.as_ref().map(seconds),
        until: request.until.as_ref().map(seconds),
        ..Default::default()
    };
    let most = usize::try_from(request.limit)
        .ok()
        .filter(|most| *most > 0)
        .unwrap_or(MAX_FETCH)
        .min(MAX_FETCH);
    let mut found: Vec<_> = ask.core.logs.after(&app_id, 0);
    found.retain(|(_, record)| filter.takes(record));
    let surplus = found.len().saturating_sub(most);
    let batches = found
        .into_iter()
        .skip(surplus)
        .map(|(place, record)| batch(place.to_string(), vec![record]))
        .collect();
    Ok(wire::AppFetchLogsResponse { batches })
}

pub(crate) fn count(
    ask: &Ask,
    request: wire::AppCountLogsRequest,
) -> Result<wire::AppCountLogsResponse, Status> {
    use wire::app_count_logs_response::LogBucket;
    let app_id = app_of(ask, &request.app_id, &request.task_id)?;
    let filter = Filter {
        source: request.source,
        function_id: request.function_id,
        function_call_id: request.function_call_id,
        task_id: request.task_id,
        text: request.search_text,
        since: request.since.as_ref().map(seconds),
        until: request.until.as_ref().map(seconds),
        ..Default::default()
    };
    let width = u64::from(request.bucket_secs.max(1));
    let mut buckets: BTreeMap<u64, LogBucket> = BTreeMap::new();
    for (_, record) in ask.core.logs.after(&app_id, 0) {
        if !filter.takes(&record) {
            continue;
        }
        let start = record.at as u64 / width * width;
        let bucket = buckets.entry(start).or_insert_with(|| LogBucket {
            bucket_start_at: Some(timestamp(start as f64)),
            ..Default::default()
        });
        match record.source() {
            FileDescriptor::Stdout => bucket.stdout_logs += 1,
            FileDescriptor::Stderr => bucket.stderr_logs += 1,
            FileDescriptor::Info | FileDescriptor::Unspecified => bucket.system_logs += 1,
        }
    }
    Ok(wire::AppCountLogsResponse {
        app_id,
        buckets: buckets.into_values().collect(),
    })
}

/// The app that is asked for, or whose container is.
fn app_of(ask: &Ask, app_id: &str, task_id: &str) -> Result<String, Status> {
    let guard = ask.core.lock();
    if !app_id.is_empty() {
        apps::get(&guard.state.rows, app_id)?;
        return Ok(app_id.to_owned());
    }
    guard
        .state
        .containers
        .get(task_id)
        .and_then(|container| crate::app_parts::app_of(&guard.state.rows, &container.function_id))
        .ok_or_else(|| Status::not_found(format!("container {task_id} is not known")))
}

fn is_over(ask: &Ask, app_id: &str) -> bool {
    let guard = ask.core.lock();
    let is_stopped = apps::get(&guard.state.rows, app_id).is_ok_and(|row| row.is_stopped());
    is_stopped && app_life::containers_of(&guard, app_id).is_empty()
}

fn batch(entry_id: String, records: Vec<LogRecord>) -> wire::TaskLogsBatch {
    let first = records.first().cloned().unwrap_or_default();
    wire::TaskLogsBatch {
        task_id: first.task_id,
        function_id: first.function_id.clone(),
        root_function_id: first.function_id,
        input_id: first.input_id,
        entry_id,
        items: records.into_iter().map(item).collect(),
        ..Default::default()
    }
}

fn item(record: LogRecord) -> wire::TaskLogs {
    wire::TaskLogs {
        data: record.line,
        timestamp: record.at,
        timestamp_ns: (record.at * 1e9) as u64,
        file_descriptor: record.source,
        function_call_id: record.function_call_id,
        input_id: record.input_id,
        container_id: record.task_id,
        ..Default::default()
    }
}

fn seconds(timestamp: &Timestamp) -> f64 {
    timestamp.seconds as f64 + f64::from(timestamp.nanos) / 1e9
}
