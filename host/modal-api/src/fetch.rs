//! Many calls at once: how each of a function's latest calls stands. A hint for who asks often; [`Client::outputs`] is the truth.

use chrono::{DateTime, Utc};

use crate::{
    Client, Error,
    logs::timestamp,
    wire::{
        self,
        function_call_fetch_request::{QueryOneof, Range, Tail},
    },
};

pub use crate::wire::FunctionCallInputStatus as FetchedStatus;

/// Which calls.
#[derive(Debug, Clone, Copy)]
pub enum Latest {
    /// So many of the newest.
    Count(u32),
    /// Those that came in a span of time, so many at most.
    Since {
        since: DateTime<Utc>,
        until: DateTime<Utc>,
        most: u32,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchedCall {
    pub function_call_id: String,
    pub status: FetchedStatus,
    pub enqueued_at: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub container_id: Option<String>,
    pub execution_seconds: Option<f64>,
}

impl Client {
    /// How a function's calls stand, those of its variants among them.
    pub async fn calls_fetch(
        &self,
        function_id: &str,
        latest: Latest,
    ) -> Result<Vec<FetchedCall>, Error> {
        let query = match latest {
            Latest::Count(count) => QueryOneof::Tail(Tail { count }),
            Latest::Since { since, until, most } => QueryOneof::Range(Range {
                since: Some(timestamp(since)),
                until: Some(timestamp(until)),
                limit: most,
            }),
        };
        let request = wire::FunctionCallFetchRequest {
            function_id: function_id.to_owned(),
            query_oneof: Some(query),
            all_variants: true,
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.function_call_fetch(request).await
            })
            .await?;
        Ok(answer.function_call_inputs.into_iter().map(read).collect())
    }

    /// Stops a container; its inputs start again elsewhere.
    pub async fn container_stop(&self, container_id: &str) -> Result<(), Error> {
        let request = wire::ContainerStopRequest {
            task_id: container_id.to_owned(),
            graceful: false,
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.container_stop(request).await
            })
            .await
            .map(|_| ())
    }

    /// The containers of an app that live, with when each was asked for.
    pub async fn container_list(
        &self,
        app_id: &str,
        environment: &str,
    ) -> Result<Vec<(String, Option<DateTime<Utc>>)>, Error> {
        let request = wire::TaskListRequest {
            environment_name: environment.to_owned(),
            app_id: app_id.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.task_list(request).await
            })
            .await?;
        let containers = answer.tasks.into_iter();
        Ok(containers
            .map(|task| (task.task_id, crate::outcome::instant(task.enqueued_at)))
            .collect())
    }
}

fn read(info: wire::FunctionCallInputInfo) -> FetchedCall {
    FetchedCall {
        // A status that this build does not know is none that ends a call.
        status: info.status(),
        enqueued_at: info.enqueued_at.and_then(moment),
        started_at: info.started_at.and_then(moment),
        container_id: info.container_id,
        execution_seconds: info.execution_time_seconds,
        function_call_id: info.function_call_id,
    }
}

fn moment(at: prost_types::Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)
}
