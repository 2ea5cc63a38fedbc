//! `task_instance.executor_config`: a pickle in Airflow. It is read as data and never executed; what is not data in it
//! is left out. `airflow: ExecutorConfigType`

use serde_json::Value;
use serde_pickle::{DeOptions, SerOptions};

use crate::Error;

/// The empty dict, as Airflow writes it.
const EMPTY: &[u8] = b"\x80\x05}\x94.";

/// What is stored for a task that asks for `config`; null asks for nothing.
///
/// # Errors
/// [`Error::ExecutorConfig`] for numbers that no pickle can hold.
pub(crate) fn pickled(config: &Value) -> Result<Vec<u8>, Error> {
    match config {
        Value::Null => Ok(EMPTY.to_vec()),
        Value::Object(fields) if fields.is_empty() => Ok(EMPTY.to_vec()),
        config => Ok(serde_pickle::to_vec(config, SerOptions::new())?),
    }
}

/// What a row asks for; null: nothing. A text where it can't be read, which no executor takes.
pub(crate) fn unpickled(stored: Option<Vec<u8>>) -> Value {
    let Some(stored) = stored.filter(|stored| !is_empty(stored)) else {
        return Value::Null;
    };
    serde_pickle::from_slice(&stored, DeOptions::new().replace_unresolved_globals())
        .unwrap_or_else(|error| Value::String(format!("a pickle that can't be read: {error}")))
}

/// `{}` in any of the protocols.
fn is_empty(stored: &[u8]) -> bool {
    matches!(stored, [0x80, _, b'}', b'.'] | [0x80, _, b'}', 0x94, b'.'])
        || matches!(stored, [0x80, _, b'}', b'q', 0, b'.'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        for config in [
            json!({"cpu": [0.5, 2], "memory": 2048, "env": {"A": "b"}, "gpu": null}),
            json!({"pod_override": {"__type": "k8s.V1Pod", "__var": {"spec": {}}}}),
        ] {
            let stored = pickled(&config).expect("plain data");
            assert_eq!(unpickled(Some(stored)), config);
        }
        assert_eq!(
            unpickled(Some(pickled(&json!({})).expect("plain"))),
            Value::Null
        );
        assert_eq!(unpickled(None), Value::Null);
    }

    #[test]
    fn airflows_own_pickles_are_read_and_nothing_in_them_runs() {
        // dill.dumps({"a": (1, 2)}), dill.dumps({}), os.system("true") as a pickle would call it.
        let tuple =
            b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01K\x02\x86\x94s.";
        let call = b"cos\nsystem\n(S'true'\ntR.";
        insta::assert_debug_snapshot!(
            [&tuple[..], b"\x80\x04}\x94.", call, b"garbage"].map(|stored| unpickled(Some(stored.to_vec()))),
            @r#"
        [
            Object {
                "a": Array [
                    Number(1),
                    Number(2),
                ],
            },
            Null,
            Null,
            String("a pickle that can't be read: eval error at offset 7: literal is invalid: arbag"),
        ]
        "#
        );
    }
}
