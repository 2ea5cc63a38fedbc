//! The caller's side of a function: look it up, spawn calls, learn their fate, cancel them.

use std::{
    sync::PoisonError,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ciborium::Value;
use uuid::Uuid;

use crate::{
    CallResult, CallStatus, Client, Error, FunctionCall, MAX_ASYNC_INLINE_BYTES, MAX_OUTPUTS_WAIT,
    arguments,
    retry::Policy,
    wire::{self, function_input::ArgsOneof, generic_result::DataOneof},
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
    /// Where the outside reaches it, if it serves HTTP; else empty.
    pub web_url: String,
}

impl FunctionHandle {
    pub(crate) fn read(function_id: String, metadata: wire::FunctionHandleMetadata) -> Self {
        Self {
            function_id,
            max_object_size_bytes: metadata
                .max_object_size_bytes
                .unwrap_or(crate::MAX_INLINE_BYTES),
            max_async_object_size_bytes: metadata
                .max_async_object_size_bytes
                .unwrap_or(MAX_ASYNC_INLINE_BYTES),
            takes_cbor: metadata
                .supported_input_formats()
                .any(|format| format == wire::DataFormat::Cbor),
            web_url: if metadata.web_url.is_empty() {
                let mut urls = metadata.experimental_flash_urls.into_iter();
                urls.next().unwrap_or_default()
            } else {
                metadata.web_url
            },
            app_id: metadata.app_id,
            definition_id: metadata.definition_id,
        }
    }
}

impl Client {
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
            .await
            .map_err(|error| {
                error.looking_for(
                    "function",
                    &format!("{app}.{name}"),
                    environment,
                    "the app is not deployed there, or was stopped: deploy it, or check its name with `modal app list`",
                )
            })?;
        self.caller.warnings.add_all(&answer.server_warnings);
        let handle = FunctionHandle::read(
            answer.function_id,
            answer.handle_metadata.unwrap_or_default(),
        );
        self.remember(&handle);
        Ok(handle)
    }

    /// Starts one asynchronous call; arguments of more than 8 KiB go through a blob. The same key again gives the same call, as long as the server remembers it.
    pub async fn spawn(
        &self,
        function_id: &str,
        args: Value,
        kwargs: Value,
        idempotency_key: Uuid,
    ) -> Result<FunctionCall, Error> {
        let input = self.input(function_id, args, kwargs).await?;
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
            .await
            .map_err(|error| {
                error.looking_for(
                    "function",
                    function_id,
                    "",
                    "the app was stopped, or deployed again without it: look the function up again",
                )
            })?;
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
            Some(output) => self.result(output).await.map(CallStatus::Ended),
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

    /// Reads an output; what was too large for the message is fetched.
    async fn result(&self, mut output: wire::FunctionGetOutputsItem) -> Result<CallResult, Error> {
        let result = output.result.as_mut();
        if let Some(data) = result.and_then(|result| result.data_oneof.as_mut())
            && let DataOneof::DataBlobId(blob_id) = data
        {
            *data = DataOneof::Data(self.blob_get(blob_id).await?);
        }
        CallResult::read(output)
    }

    async fn input(
        &self,
        function_id: &str,
        args: Value,
        kwargs: Value,
    ) -> Result<wire::FunctionPutInputsItem, Error> {
        let payload = arguments::encode_arguments(args, kwargs)?;
        let limit = {
            let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            let known = limits.get(function_id).copied();
            known.unwrap_or(MAX_ASYNC_INLINE_BYTES)
        };
        let args = if payload.len() as u64 > limit {
            let size = payload.len() as u64;
            match self.blob_put(payload.into()).await {
                Ok(blob_id) => ArgsOneof::ArgsBlobId(blob_id),
                // A server that is only reached by a socket takes no blobs.
                Err(Error::Conflict(_)) => return Err(Error::PayloadTooLarge { size, limit }),
                Err(error) => return Err(error),
            }
        } else {
            ArgsOneof::Args(payload.into())
        };
        let input = wire::FunctionInput {
            args_oneof: Some(args),
            final_input: false,
            data_format: wire::DataFormat::Cbor.into(),
            method_name: Some(String::new()),
        };
        Ok(wire::FunctionPutInputsItem {
            idx: 0,
            input: Some(input),
        })
    }

    pub(crate) fn remember(&self, handle: &FunctionHandle) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.insert(
            handle.function_id.clone(),
            handle.max_async_object_size_bytes,
        );
    }
}
