//! The RPCs: requests read, work asked for, observations collected.

use std::sync::Arc;
use std::time::Duration;

use executor_api::executor_server;
use executor_api::{
    CancelRequest, CancelResponse, FindFilesRequest, FindFilesResponse, ForgetRequest,
    ForgetResponse, HealthRequest, HealthResponse, LogsRequest, LogsResponse, Observation,
    ObserveRequest, ObserveResponse, ReadFileRequest, ReadFileResponse, SpawnRequest,
    SpawnResponse, Unheard, observation::What,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Error;
use super::book::{State, Wish};
use super::ended::words;
use super::files::Files;
use super::work::{Start, Work};
use crate::clock;

/// The longest that one `Observe` waits.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const USUAL_LOG_LINES: u32 = 1_000;
/// Somebody looks at a web page meanwhile.
const PAGE_PATIENCE: Duration = Duration::from_secs(10);
/// Megabytes over a thin line.
const READ_PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Service {
    work: Arc<Work>,
    files: Files,
    server_url: String,
}

impl Service {
    pub(super) fn new(work: Arc<Work>, server_url: String) -> Self {
        Self {
            work,
            files: Files::default(),
            server_url,
        }
    }

    /// What is new about these calls.
    fn news(&self, calls: &[(Uuid, String)]) -> Vec<Observation> {
        let news = |(key, call_id): &(Uuid, String)| {
            let what = match self.work.book.state(*key) {
                Some(State::Starting) => return None,
                Some(State::Running { call_id: known }) if known == *call_id => return None,
                Some(State::Running { call_id }) => What::Started(call_id),
                Some(State::Ended(ended)) => What::Ended(ended),
                Some(State::Refused(refused)) => What::Refused(refused),
                None => What::Unheard(Unheard {}),
            };
            Some(Observation {
                key: key.to_string(),
                what: Some(what),
            })
        };
        calls.iter().filter_map(news).collect()
    }
}

#[tonic::async_trait]
impl executor_server::Executor for Service {
    async fn spawn(
        &self,
        request: Request<SpawnRequest>,
    ) -> Result<Response<SpawnResponse>, Status> {
        let request = request.into_inner();
        let max_attempts = request.max_attempts.max(1);
        for workload in request.workloads {
            self.work.begin(Start {
                key: key(&workload.key)?,
                payload: workload.payload,
                executor_config: workload.executor_config,
                max_attempts,
            });
        }
        Ok(Response::new(SpawnResponse {}))
    }

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        let request = request.into_inner();
        let mut calls = Vec::with_capacity(request.calls.len());
        for call in request.calls {
            let key = key(&call.key)?;
            if !call.call_id.is_empty() {
                self.work.adopt(key, call.call_id.clone());
            }
            calls.push((key, call.call_id));
        }
        let wait = Duration::from_millis(request.wait_milliseconds.into()).min(LONGEST_WAIT);
        let mut changes = self.work.book.changes();
        let until_news = async {
            loop {
                changes.mark_unchanged();
                let observations = self.news(&calls);
                if !observations.is_empty() || changes.changed().await.is_err() {
                    return observations;
                }
            }
        };
        let observations = tokio::time::timeout(wait, until_news)
            .await
            .unwrap_or_default();
        let signed_out = observations.is_empty() && self.work.book.is_signed_out();
        Ok(Response::new(ObserveResponse {
            observations,
            signed_out,
        }))
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        for text in request.into_inner().keys {
            self.work.book.strike(key(&text)?, Wish::Leave);
        }
        Ok(Response::new(ForgetResponse {}))
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> Result<Response<CancelResponse>, Status> {
        for call in request.into_inner().calls {
            self.work.cancel(key(&call.key)?, call.call_id);
        }
        Ok(Response::new(CancelResponse {}))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<LogsResponse>, Status> {
        let request = request.into_inner();
        let limit = match request.limit {
            0 => USUAL_LOG_LINES,
            limit => limit,
        };
        let lines = self
            .work
            .calls
            .log_lines(&request.call_id, clock::now(), limit);
        let lines = in_time(PAGE_PATIENCE, lines).await?;
        Ok(Response::new(LogsResponse { lines }))
    }

    async fn find_files(
        &self,
        request: Request<FindFilesRequest>,
    ) -> Result<Response<FindFilesResponse>, Status> {
        let request = request.into_inner();
        let files = self
            .files
            .find(&self.work.calls, &request.volume, &request.start_of_path);
        let files = in_time(PAGE_PATIENCE, files).await?;
        Ok(Response::new(FindFilesResponse { files }))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let request = request.into_inner();
        let part = (request.start, request.length);
        let content = self
            .files
            .read(&self.work.calls, &request.volume, &request.path, part);
        let content = in_time(READ_PATIENCE, content).await?;
        Ok(Response::new(ReadFileResponse { content }))
    }

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        let (function_id, problem, hint) = match self.work.calls.check().await {
            Ok(function_id) => (function_id, String::new(), String::new()),
            Err(error) => {
                let (problem, hint) = words(&error);
                (String::new(), problem, hint)
            }
        };
        Ok(Response::new(HealthResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server_url: self.server_url.clone(),
            function_id,
            problem,
            hint,
        }))
    }
}

/// What came of it within our patience. UNAVAILABLE is kept for this process being gone.
async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Status> {
    let Ok(done) = tokio::time::timeout(patience, work).await else {
        let seconds = patience.as_secs();
        return Err(Status::deadline_exceeded(format!(
            "Modal did not answer within {seconds} s"
        )));
    };
    done.map_err(|error| {
        let (message, hint) = words(&error);
        let said = if hint.is_empty() {
            message
        } else {
            format!("{message} ({hint})")
        };
        match error.modal() {
            None => Status::invalid_argument(said),
            Some(modal) if modal.is_signed_out() => Status::unauthenticated(said),
            Some(modal) if modal.is_not_found() => Status::not_found(said),
            Some(_) => Status::aborted(said),
        }
    })
}

fn key(text: &str) -> Result<Uuid, Status> {
    Uuid::parse_str(text)
        .map_err(|_| Status::invalid_argument(format!("the key {text:?} is not a UUID")))
}
