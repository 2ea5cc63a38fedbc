//! Messages that are handed on as the bytes that came: decoding them into our subset and encoding them again would lose the fields that
//! the subset leaves out, and callers and the container's runtime read those. Numbers as in `proto/apps.proto`.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use crate::wire::{AppLayout, Schedule};

#[derive(Clone, PartialEq, prost::Message)]
pub struct FunctionCreateRequest {
    /// A `Function`.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub function: Option<Bytes>,
    #[prost(string, tag = "2")]
    pub app_id: String,
    #[prost(message, optional, tag = "6")]
    pub schedule: Option<Schedule>,
    #[prost(string, tag = "7")]
    pub existing_function_id: String,
    #[prost(message, optional, tag = "9")]
    pub function_data: Option<FunctionData>,
}

impl FunctionCreateRequest {
    /// The definition: the only one, or the one that its owner likes best.
    #[must_use]
    pub fn definition(&self) -> Option<&Bytes> {
        let ranked = self
            .function_data
            .iter()
            .flat_map(|data| &data.ranked_functions);
        let best = ranked
            .min_by_key(|one| one.rank)
            .and_then(|one| one.function.as_ref());
        self.function.as_ref().or(best)
    }
}

/// Alternatives of one function, each whole.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FunctionData {
    #[prost(message, repeated, tag = "18")]
    pub ranked_functions: Vec<RankedFunction>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RankedFunction {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    /// A `Function`.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub function: Option<Bytes>,
}

/// What a container finds in the file that `MODAL_CONTAINER_ARGUMENTS_PATH` names.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerArguments {
    #[prost(string, tag = "1")]
    pub task_id: String,
    #[prost(string, tag = "2")]
    pub function_id: String,
    #[prost(string, tag = "4")]
    pub app_id: String,
    /// A `Function`.
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub function_def: Option<Bytes>,
    #[prost(map = "string, string", tag = "9")]
    pub tracing_context: HashMap<String, String>,
    #[prost(bytes = "bytes", tag = "10")]
    pub serialized_params: Bytes,
    #[prost(string, tag = "11")]
    pub runtime: String,
    #[prost(string, tag = "13")]
    pub environment_name: String,
    #[prost(string, optional, tag = "14")]
    pub checkpoint_id: Option<String>,
    #[prost(message, optional, tag = "15")]
    pub app_layout: Option<AppLayout>,
    #[prost(string, tag = "16")]
    pub input_plane_server_url: String,
}

/// A message of any kind: its fields as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Opaque {
    fields: Vec<u8>,
}

impl Opaque {
    /// A message of one number.
    #[must_use]
    pub(crate) fn number(tag: u32, value: u64) -> Self {
        let mut fields = Vec::new();
        encoding::uint64::encode(tag, &value, &mut fields);
        Self { fields }
    }
}

impl Message for Opaque {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.fields);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let fields = &mut self.fields;
        match wire_type {
            WireType::Varint => {
                let mut value = 0_u64;
                encoding::uint64::merge(wire_type, &mut value, buffer, context)?;
                encoding::uint64::encode(tag, &value, fields);
            }
            WireType::SixtyFourBit => {
                let mut value = 0_u64;
                encoding::fixed64::merge(wire_type, &mut value, buffer, context)?;
                encoding::fixed64::encode(tag, &value, fields);
            }
            WireType::ThirtyTwoBit => {
                let mut value = 0_u32;
                encoding::fixed32::merge(wire_type, &mut value, buffer, context)?;
                encoding::fixed32::encode(tag, &value, fields);
            }
            WireType::LengthDelimited => {
                let mut value = Vec::new();
                encoding::bytes::merge(wire_type, &mut value, buffer, context)?;
                encoding::bytes::encode(tag, &value, fields);
            }
            // Groups are older than anything that is sent here.
            WireType::StartGroup | WireType::EndGroup => {
                return encoding::skip_field(wire_type, tag, buffer, context);
            }
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.fields.len()
    }

    fn clear(&mut self) {
        self.fields.clear();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::Opaque;
    use crate::wire::{Function, GenericResult, VolumeMount};

    #[test]
    fn an_opaque_message_comes_out_as_it_went_in() {
        let mount = VolumeMount {
            volume_id: "vo".into(),
            read_only: true,
            ..Default::default()
        };
        let function = Function {
            timeout_secs: 300,
            retry_policy: Some(crate::wire::FunctionRetryPolicy {
                backoff_coefficient: 1.5,
                ..Default::default()
            }),
            volume_mounts: vec![mount.clone(), mount],
            ..Default::default()
        };
        let bytes = function.encode_to_vec();
        assert_eq!(Opaque::decode(&*bytes).unwrap().encode_to_vec(), bytes);
        let result = GenericResult {
            exitcode: -1,
            ..Default::default()
        };
        let bytes = result.encode_to_vec();
        assert_eq!(Opaque::decode(&*bytes).unwrap().encode_to_vec(), bytes);
    }
}
