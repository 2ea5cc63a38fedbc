//! The container's side: say hello, fetch inputs, give outputs back, hear of cancellations.
//!
//! The server knows a container by the socket it was given. When the server goes away, calls wait for it (see [`Client::patience`]):
//! a restart of the server costs a running input nothing.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ciborium::Value;
use uuid::Uuid;

use crate::{
    Arguments, Credentials, Error, ServerUrl, arguments, blobs,
    call::Caller,
    http::Http,
    retry::{End, Policy},
    wire::{
        self, DataFormat,
        function_input::ArgsOneof,
        generic_result::{DataOneof, GenericStatus},
    },
};

/// The server holds a poll for up to 10 s.
const POLL: Duration = Duration::from_secs(10);
const DEFAULT_PATIENCE: Duration = Duration::from_secs(600);
/// A container without work is not missed by a server that comes back late.
const IDLE_PATIENCE: Duration = Duration::from_secs(60);

/// One input to work on.
#[derive(Debug, Clone)]
pub struct Input {
    pub input_id: String,
    pub function_call_id: String,
    pub retry_count: u32,
    /// The payload as the caller sent it: see [`Input::arguments`].
    pub payload: Vec<u8>,
    pub data_format: DataFormat,
    pub started_at: SystemTime,
}

impl Input {
    /// The arguments, if they came in CBOR.
    pub fn arguments(&self) -> Result<Arguments, Error> {
        match self.data_format {
            DataFormat::Cbor => arguments::decode_arguments(&self.payload),
            other => Err(Error::Decode(format!(
                "the arguments came as {other:?}\nhint: set MODAL_PAYLOAD_FORMAT=cbor for a Python caller"
            ))),
        }
    }
}

/// What a poll for inputs brought.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Possibly none: ask again.
    Work(Vec<Input>),
    /// No more inputs will come: finish what runs and exit.
    Leave,
}

/// How the work on an input ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    Returned(Value),
    Raised {
        exception: String,
        traceback: String,
    },
    /// The work was given up because the call was cancelled.
    Cancelled,
}

/// Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Client {
    caller: Caller,
    http: Http,
    patience: Duration,
    /// Inputs whose output the server has not taken yet: a second delivery of one of them is not given out again.
    current: Arc<Mutex<HashSet<String>>>,
}

impl Client {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "same shape as the caller's client"
    )]
    pub fn connect(url: ServerUrl) -> Result<Self, Error> {
        Ok(Self {
            caller: Caller::new(&url, &Credentials::container())?,
            http: Http::new(),
            patience: DEFAULT_PATIENCE,
            current: Arc::default(),
        })
    }

    /// Connects to the server that started this process.
    pub fn from_env() -> Result<Self, Error> {
        let url = std::env::var("MODAL_SERVER_URL")
            .map_err(|_| Error::NotInContainer("MODAL_SERVER_URL"))?;
        Self::connect(url.parse()?)
    }

    /// How long calls wait for a server that is away, before they fail with `Unavailable`. Default: 10 minutes. Asking for inputs
    /// without working on any waits for one minute at most.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub async fn hello(&self) -> Result<(), Error> {
        self.caller
            .call(
                self.policy(),
                Uuid::new_v4(),
                (),
                async |mut stub, request| stub.container_hello(request).await,
            )
            .await
    }

    /// Waits up to 10 s for a cancellation; answers the ids of the inputs to give up. Poll it all the time. An id that is not
    /// being worked on deserves an [`Outcome::Cancelled`] too.
    pub async fn heartbeat(&self) -> Result<Vec<String>, Error> {
        let request = wire::ContainerHeartbeatRequest {
            canceled_inputs_return_outputs: false,
            canceled_inputs_return_outputs_v2: true,
        };
        let answer = self
            .caller
            .call(
                self.policy(),
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.container_heartbeat(request).await,
            )
            .await?;
        Ok(answer
            .cancel_input_event
            .map(|event| event.input_ids)
            .unwrap_or_default())
    }

    /// Waits up to 10 s for work; `room` is how many inputs may come at once (0 counts as 1). Don't drop the future in the
    /// middle: an input that was on its way would be seen again only when the server restarts or its time is over.
    pub async fn get_inputs(&self, room: u32) -> Result<Inputs, Error> {
        let request = wire::FunctionGetInputsRequest {
            function_id: String::new(),
            input_concurrency: i32::try_from(room.max(1)).unwrap_or(i32::MAX),
            batch_max_size: room.max(1),
            batch_linger_ms: 0,
        };
        let is_idle = self.current().is_empty();
        let patience = if is_idle {
            self.patience.min(IDLE_PATIENCE)
        } else {
            self.patience
        };
        let policy = Policy {
            end: End::After(patience),
            ..Policy::long_poll(POLL)
        };
        let answer = self
            .caller
            .call(
                policy,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.function_get_inputs(request).await,
            )
            .await?;
        if answer.inputs.iter().any(|item| item.kill_switch) {
            return Ok(Inputs::Leave);
        }
        let fresh: Vec<_> = {
            let mut current = self.current();
            let items = answer.inputs.into_iter();
            items
                .filter(|item| current.insert(item.input_id.clone()))
                .collect()
        };
        let mut work = Vec::with_capacity(fresh.len());
        for item in fresh {
            work.push(self.read_input(item).await?);
        }
        Ok(Inputs::Work(work))
    }

    /// An input with its payload, which comes from elsewhere if it is large.
    async fn read_input(&self, item: wire::FunctionGetInputsItem) -> Result<Input, Error> {
        let input = item
            .input
            .ok_or_else(|| Error::Unexpected(format!("input {} without content", item.input_id)))?;
        let data_format = input.data_format();
        let payload = match input.args_oneof {
            Some(ArgsOneof::Args(bytes)) => bytes.into(),
            Some(ArgsOneof::ArgsBlobId(id)) => {
                blobs::get(&self.caller, &self.http, &id).await?.into()
            }
            None => Vec::new(),
        };
        Ok(Input {
            input_id: item.input_id,
            function_call_id: item.function_call_id,
            retry_count: item.retry_count,
            payload,
            data_format,
            started_at: SystemTime::now(),
        })
    }

    /// Gives an input back. Returns when the server has it.
    pub async fn put_output(&self, input: &Input, outcome: Outcome) -> Result<(), Error> {
        let now = seconds(SystemTime::now());
        self.put(
            &input.input_id,
            outcome,
            seconds(input.started_at),
            now,
            input.retry_count,
        )
        .await
    }

    /// Answers a cancellation of an input that is not here.
    pub async fn put_cancelled(&self, input_id: &str) -> Result<(), Error> {
        let now = seconds(SystemTime::now());
        self.put(input_id, Outcome::Cancelled, now, now, 0).await
    }

    /// Says that this container cannot start; exit after it.
    pub async fn task_failed(&self, exception: String, traceback: String) -> Result<(), Error> {
        let result = wire::GenericResult {
            status: GenericStatus::Failure.into(),
            exception,
            traceback,
            ..Default::default()
        };
        let request = wire::TaskResultRequest {
            result: Some(result),
            termination_reason: 0,
        };
        self.caller
            .call(
                self.policy(),
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.task_result(request).await,
            )
            .await
    }

    async fn put(
        &self,
        input_id: &str,
        outcome: Outcome,
        started_at: f64,
        created_at: f64,
        retry_count: u32,
    ) -> Result<(), Error> {
        let (result, data_format) = write_outcome(outcome)?;
        let item = wire::FunctionPutOutputsItem {
            input_id: input_id.to_owned(),
            result: Some(result),
            input_started_at: started_at,
            output_created_at: created_at,
            data_format: data_format.into(),
            retry_count,
            function_call_id: String::new(),
            function_map_idx: None,
        };
        let request = wire::FunctionPutOutputsRequest {
            outputs: vec![item],
            requested_at: created_at,
        };
        self.caller
            .call(
                self.policy(),
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.function_put_outputs(request).await,
            )
            .await?;
        self.current().remove(input_id);
        Ok(())
    }

    fn policy(&self) -> Policy {
        Policy {
            end: End::After(self.patience),
            ..Policy::long_poll(POLL)
        }
    }

    fn current(&self) -> MutexGuard<'_, HashSet<String>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_outcome(outcome: Outcome) -> Result<(wire::GenericResult, DataFormat), Error> {
    let result = |status: GenericStatus| wire::GenericResult {
        status: status.into(),
        ..Default::default()
    };
    Ok(match outcome {
        Outcome::Returned(value) => {
            let data = arguments::encode(&value)?;
            (
                wire::GenericResult {
                    data_oneof: Some(DataOneof::Data(data.into())),
                    ..result(GenericStatus::Success)
                },
                DataFormat::Cbor,
            )
        }
        Outcome::Raised {
            exception,
            traceback,
        } => (
            wire::GenericResult {
                exception,
                traceback,
                ..result(GenericStatus::Failure)
            },
            DataFormat::Unspecified,
        ),
        Outcome::Cancelled => {
            let exception = "InputCancellation('Input was cancelled')".to_owned();
            (
                wire::GenericResult {
                    exception,
                    ..result(GenericStatus::Terminated)
                },
                DataFormat::Unspecified,
            )
        }
    })
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
