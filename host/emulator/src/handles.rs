//! What callers are told of a function, and what a call without a caller says to it.

use modal_api::{
    MAX_ASYNC_INLINE_BYTES, MAX_INLINE_BYTES,
    wire::{self, DataFormat},
};

use crate::servers;

/// What is recorded and will not happen.
pub(crate) fn warnings(definition: &wire::Function) -> Vec<wire::Warning> {
    let is_web = definition
        .webhook_config
        .as_ref()
        .is_some_and(|config| config.r#type() != wire::WebhookType::Unspecified);
    let mut warnings = Vec::new();
    if is_web || (definition.is_server && !servers::is_served(definition)) {
        let mut warning = wire::Warning {
            message: format!(
                "{}: modalflow's emulator serves no web functions and no servers that an image's own command starts, only those of app.server; the function is there, but nobody can reach it over HTTP",
                definition.function_name
            ),
            ..Default::default()
        };
        warning.set_type(wire::warning::WarningType::FunctionConfiguration);
        warnings.push(warning);
    }
    warnings
}

pub(crate) fn limits() -> wire::FunctionHandleMetadata {
    wire::FunctionHandleMetadata {
        max_object_size_bytes: Some(MAX_INLINE_BYTES),
        max_async_object_size_bytes: Some(MAX_ASYNC_INLINE_BYTES),
        ..Default::default()
    }
}

pub(crate) fn metadata(
    definition: &wire::Function,
    app_id: &str,
    definition_id: &str,
) -> wire::FunctionHandleMetadata {
    let methods = definition.method_definitions.iter();
    wire::FunctionHandleMetadata {
        function_name: definition.function_name.clone(),
        function_type: definition.function_type,
        is_method: definition.is_method,
        definition_id: definition_id.to_owned(),
        class_parameter_info: definition.class_parameter_info.clone(),
        method_handle_metadata: methods
            .map(|(name, method)| (name.clone(), method_metadata(name, method)))
            .collect(),
        function_schema: definition.function_schema.clone(),
        supported_input_formats: definition.supported_input_formats.clone(),
        supported_output_formats: definition.supported_output_formats.clone(),
        app_id: app_id.to_owned(),
        ..limits()
    }
}

pub(crate) fn method_metadata(
    name: &str,
    method: &wire::MethodDefinition,
) -> wire::FunctionHandleMetadata {
    wire::FunctionHandleMetadata {
        function_name: method.function_name.clone(),
        function_type: method.function_type,
        is_method: true,
        use_method_name: name.to_owned(),
        function_schema: method.function_schema.clone(),
        supported_input_formats: method.supported_input_formats.clone(),
        supported_output_formats: method.supported_output_formats.clone(),
        ..limits()
    }
}

pub(crate) fn data(definition: &wire::Function) -> wire::FunctionData {
    wire::FunctionData {
        module_name: definition.module_name.clone(),
        function_name: definition.function_name.clone(),
        function_type: definition.function_type,
        timeout_secs: definition.timeout_secs,
        is_class: definition.is_class,
        class_parameter_info: definition.class_parameter_info.clone(),
        is_method: definition.is_method,
        ranked_functions: vec![wire::function_data::RankedFunction {
            rank: 0,
            function: Some(definition.clone()),
        }],
        schedule: definition.schedule.clone(),
        method_definitions: definition.method_definitions.clone(),
        method_definitions_set: true,
        autoscaler_settings: definition.autoscaler_settings,
        function_schema: definition.function_schema.clone(),
        implementation_name: definition.implementation_name.clone(),
        is_server: definition.is_server,
        supported_input_formats: definition.supported_input_formats.clone(),
        supported_output_formats: definition.supported_output_formats.clone(),
    }
}

/// The arguments of a call that nobody makes by hand: none, in a format that the function takes.
pub(crate) fn no_arguments(definition: &wire::Function) -> wire::FunctionInput {
    let takes_pickle = definition.supported_input_formats.is_empty()
        || definition
            .supported_input_formats
            .contains(&DataFormat::Pickle.into());
    let (format, args): (_, &'static [u8]) = if takes_pickle {
        // ((), {}) in pickle's fourth protocol.
        (DataFormat::Pickle, b"\x80\x04)}\x94\x86\x94.")
    } else {
        (DataFormat::Cbor, b"\x82\x80\xa0")
    };
    wire::FunctionInput {
        args_oneof: Some(wire::function_input::ArgsOneof::Args(args.into())),
        data_format: format.into(),
        ..Default::default()
    }
}
