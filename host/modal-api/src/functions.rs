//! Functions of an app: their ids, their definitions, their variants.

use bytes::Bytes;
use prost::Message as _;

use crate::{Client, Definition, Error, FunctionHandle, Variant, message, verbatim, wire};

impl Client {
    /// Gives a function its id. `existing` is the id that the tag has in the app's layout, if it has one.
    pub async fn function_precreate(
        &self,
        app_id: &str,
        definition: &Definition,
        existing: Option<&str>,
    ) -> Result<FunctionHandle, Error> {
        let (input, output) = message::formats(&definition.code);
        let request = wire::FunctionPrecreateRequest {
            app_id: app_id.to_owned(),
            function_name: definition.tag.clone(),
            existing_function_id: existing.unwrap_or_default().to_owned(),
            function_type: wire::function::FunctionType::Function.into(),
            webhook_config: message::webhook(&definition.code),
            supported_input_formats: input,
            supported_output_formats: output,
            ..Default::default()
        };
        let answer = self
            .caller
            .long(request, async |mut stub, request| {
                stub.function_precreate(request).await
            })
            .await?;
        let metadata = answer.handle_metadata.unwrap_or_default();
        Ok(FunctionHandle::read(answer.function_id, metadata))
    }

    /// Defines a function; `existing` as [`Client::function_precreate`] gave it. It runs once the app is published.
    ///
    /// # Errors
    /// [`Error::Invalid`] before anything is sent when a timeout or window is out of Modal's range.
    pub async fn function_create(
        &self,
        app_id: &str,
        definition: &Definition,
        existing: Option<&str>,
    ) -> Result<FunctionHandle, Error> {
        let function: Bytes = message::function(definition)?.encode_to_vec().into();
        let request = verbatim::FunctionCreateRequest {
            function: Some(function),
            app_id: app_id.to_owned(),
            existing_function_id: existing.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let answer = self
            .caller
            .long(request, async |mut stub, request| {
                stub.function_create(request).await
            })
            .await?;
        self.caller.warnings.add_all(&answer.server_warnings);
        let metadata = answer.handle_metadata.unwrap_or_default();
        Ok(FunctionHandle::read(answer.function_id, metadata))
    }

    /// A variant of a deployed function, with its own containers and its own id to call. The same variant has the same id.
    /// A deployment makes old ones useless: bind again when [`FunctionHandle::definition_id`] has changed.
    pub async fn function_bind(
        &self,
        function_id: &str,
        variant: &Variant,
        environment: &str,
    ) -> Result<FunctionHandle, Error> {
        let request = wire::FunctionBindParamsRequest {
            function_id: function_id.to_owned(),
            serialized_params: Bytes::new(),
            function_options: Some(message::options(variant)?),
            environment_name: environment.to_owned(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.function_bind_params(request).await
            })
            .await?;
        let metadata = answer.handle_metadata.unwrap_or_default();
        let handle = FunctionHandle::read(answer.bound_function_id, metadata);
        self.remember(&handle);
        Ok(handle)
    }
}
