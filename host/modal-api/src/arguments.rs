//! Arguments and results as CBOR: a call's payload is the array of the positional arguments (an array) and the named ones (a map).

use ciborium::Value;

use crate::Error;

/// Positional and named arguments.
pub type Arguments = (Vec<Value>, Vec<(Value, Value)>);

/// Encodes `function(*args, **kwargs)`. Both must be what their names say: an array and a map.
pub fn encode_arguments(args: Value, kwargs: Value) -> Result<Vec<u8>, Error> {
    if !args.is_array() || !kwargs.is_map() {
        return Err(Error::Encode(
            "positional arguments are an array, named ones a map".to_owned(),
        ));
    }
    encode(&Value::Array(vec![args, kwargs]))
}

/// Reads what [`encode_arguments`] or a Python caller wrote.
pub fn decode_arguments(bytes: &[u8]) -> Result<Arguments, Error> {
    match decode(bytes)? {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::Array(args), Value::Map(kwargs)]) => Ok((args, kwargs)),
            _ => Err(Error::Decode(
                "the payload is not a pair of arguments and named arguments".to_owned(),
            )),
        },
        _ => Err(Error::Decode("the payload is not an array".to_owned())),
    }
}

pub(crate) fn encode(value: &Value) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(256);
    ciborium::into_writer(value, &mut bytes).map_err(|source| Error::Encode(source.to_string()))?;
    Ok(bytes)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Error> {
    ciborium::from_reader(bytes).map_err(|source| Error::Decode(source.to_string()))
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::{decode_arguments, encode_arguments};

    /// Bytes as the official Python client makes them.
    #[test]
    fn arguments_have_the_bytes_of_the_official_client() {
        let none = encode_arguments(cbor!([]).unwrap(), cbor!({}).unwrap()).unwrap();
        let one =
            encode_arguments(cbor!([{"dag_id" => "d"}]).unwrap(), cbor!({}).unwrap()).unwrap();
        assert_eq!(none, b"\x82\x80\xa0");
        assert_eq!(one, b"\x82\x81\xa1\x66dag_id\x61d\xa0");
        let (args, kwargs) = decode_arguments(&one).unwrap();
        assert_eq!(
            (args, kwargs),
            (vec![cbor!({"dag_id" => "d"}).unwrap()], vec![])
        );
    }

    #[test]
    fn a_payload_of_another_shape_is_refused() {
        assert!(encode_arguments(cbor!(1).unwrap(), cbor!({}).unwrap()).is_err());
        assert!(decode_arguments(b"\x80\x04K\x01.").is_err());
        assert!(decode_arguments(b"").is_err());
    }
}
