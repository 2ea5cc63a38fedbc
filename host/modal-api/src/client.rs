//! The caller's side: look a function up, spawn calls, learn their fate, cancel them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ciborium::Value;
use uuid::Uuid;

use crate::{
    CallResult, CallStatus, Credentials, Error, FunctionCall, MAX_ASYNC_INLINE_BYTES,
    MAX_OUTPUTS_WAIT, ServerUrl, arguments,
    call::Caller,
    retry::Policy,
    wire::{self, function_input::ArgsOneof},
};

/// A deployed function, as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionHandle {
    pub function_id: String,
    pub app_id: String,
    /// Changes with each deployment.
    pub definition_id: String,
    pub max_object_size_bytes: u64,
    pub max_async_object_size_bytes: u64,
    pub takes_cbor: bool,
}

/// Cheap to clone; all clones share one HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Client {
    caller: Caller,
    /// The inline limit of each function seen, so that a payload that is too large fails here and with a hint.
    limits: Arc<Mutex<HashMap<String, u64>>>,
}

impl Client {
    /// Makes a client. The connection is made with the first call, and made again when it is lost.
    #[expect(clippy::needless_pass_by_value, reason = "secrets move in")]
    pub fn connect(url: ServerUrl, credentials: Credentials) -> Result<Self, Error> {
        Ok(Self {
            caller: Caller::new(&url, &credentials)?,
            limits: Arc::default(),
        })
    }

    /// Asks whether the server accepts us. `Unauthenticated`: bad token; `Conflict`: our version is refused.
    pub async fn hello(&self) -> Result<(), Error> {
        let answer = self
            .caller
            .call(
                Policy::SHORT,
                Uuid::new_v4(),
                (),
                async |mut stub, request| stub.client_hello(request).await,
            )
            .await?;
        warn(&answer.server_warnings);
        Ok(())
    }

    /// Looks a deployed function up; an empty environment is the default one.
    pub async fn function_get(
        &self,
        app: &str,
        name: &str,
        environment: &str,
    ) -> Result<FunctionHandle, Error> {
        let request = wire::FunctionGetRequest {
            app_name: app.to_owned(),
            object_tag: name.to_owned(),
            environment_name: environment.to_owned(),
            app_version: 0,
        };
        let answer = self
            .caller
            .call(
                Policy::SHORT,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.function_get(request).await,
            )
            .await?;
        warn(&answer.server_warnings);
        let metadata = answer.handle_metadata.unwrap_or_default();
        let handle = FunctionHandle {
            function_id: answer.function_id,
            max_object_size_bytes: metadata
                .max_object_size_bytes
                .unwrap_or(crate::MAX_INLINE_BYTES),
            max_async_object_size_bytes: metadata
                .max_async_object_size_bytes
                .unwrap_or(MAX_ASYNC_INLINE_BYTES),
            takes_cbor: metadata
                .supported_input_formats()
                .any(|format| format == wire::DataFormat::Cbor),
            app_id: metadata.app_id,
            definition_id: metadata.definition_id,
        };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.insert(
            handle.function_id.clone(),
            handle.max_async_object_size_bytes,
        );
        Ok(handle)
    }

    /// Starts one asynchronous call. The same key again gives the same call, as long as the server remembers it.
    pub async fn spawn(
        &self,
        function_id: &str,
        args: Value,
        kwargs: Value,
        idempotency_key: Uuid,
    ) -> Result<FunctionCall, Error> {
        let input = self.input(function_id, args, kwargs)?;
        let request = wire::FunctionMapRequest {
            function_id: function_id.to_owned(),
            parent_input_id: String::new(),
            function_call_type: wire::FunctionCallType::Unary.into(),
            pipelined_inputs: vec![input.clone()],
            function_call_invocation_type: wire::FunctionCallInvocationType::Async.into(),
        };
        let answer = self
            .caller
            .call(
                Policy::SHORT,
                idempotency_key,
                request,
                async |mut stub, request| stub.function_map(request).await,
            )
            .await?;
        let function_call_id = answer.function_call_id;
        let mut accepted = answer.pipelined_inputs;
        if accepted.is_empty() {
            // The server made the call and left the input for a second request.
            let request = wire::FunctionPutInputsRequest {
                function_id: function_id.to_owned(),
                function_call_id: function_call_id.clone(),
                inputs: vec![input],
            };
            let key = Uuid::new_v4();
            accepted = self
                .caller
                .call(Policy::SHORT, key, request, async |mut stub, request| {
                    stub.function_put_inputs(request).await
                })
                .await?
                .inputs;
        }
        match accepted.into_iter().next() {
            Some(input) => Ok(FunctionCall {
                function_call_id,
                input_id: input.input_id,
            }),
            None => Err(Error::ResourceExhausted(format!(
                "the input queue of {function_id} is full"
            ))),
        }
    }

    /// Asks for a call's result and waits up to `timeout` (at most 55 s; zero: does not wait).
    pub async fn outputs(
        &self,
        function_call_id: &str,
        timeout: Duration,
    ) -> Result<CallStatus, Error> {
        let wait = timeout.min(MAX_OUTPUTS_WAIT);
        let request = wire::FunctionGetOutputsRequest {
            function_call_id: function_call_id.to_owned(),
            max_values: 1,
            timeout: wait.as_secs_f32(),
            last_entry_id: "0-0".to_owned(),
            clear_on_success: false,
            requested_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            input_jwts: Vec::new(),
            start_idx: Some(0),
            end_idx: Some(0),
        };
        let policy = Policy::long_poll(wait);
        let answer = self
            .caller
            .call(
                policy,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.function_get_outputs(request).await,
            )
            .await?;
        match answer.outputs.into_iter().next() {
            Some(output) => CallResult::read(output).map(CallStatus::Ended),
            None if answer.num_unfinished_inputs == 0 => Ok(CallStatus::Expired),
            None => Ok(CallStatus::Pending),
        }
    }

    /// Cancels a call: what waits ends at once; what runs is told, or with `terminate_containers` killed. A call that is
    /// already over stays as it is.
    pub async fn cancel(
        &self,
        function_call_id: &str,
        terminate_containers: bool,
    ) -> Result<(), Error> {
        let request = wire::FunctionCallCancelRequest {
            function_call_id: function_call_id.to_owned(),
            terminate_containers,
            function_id: None,
        };
        self.caller
            .call(
                Policy::SHORT,
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.function_call_cancel(request).await,
            )
            .await
    }

    fn input(
        &self,
        function_id: &str,
        args: Value,
        kwargs: Value,
    ) -> Result<wire::FunctionPutInputsItem, Error> {
        let payload = arguments::encode_arguments(args, kwargs)?;
        let size = payload.len() as u64;
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = limits
            .get(function_id)
            .copied()
            .unwrap_or(MAX_ASYNC_INLINE_BYTES);
        if size > limit {
            return Err(Error::PayloadTooLarge { size, limit });
        }
        let input = wire::FunctionInput {
            args_oneof: Some(ArgsOneof::Args(payload.into())),
            final_input: false,
            data_format: wire::DataFormat::Cbor.into(),
            method_name: Some(String::new()),
        };
        Ok(wire::FunctionPutInputsItem {
            idx: 0,
            input: Some(input),
        })
    }
}

fn warn(warnings: &[wire::Warning]) {
    for warning in warnings {
        tracing::warn!(warning = warning.message, "the server warns");
    }
}
