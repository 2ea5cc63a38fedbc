//! XComs of a task: values go through the plugin, and only what the plugin made of them goes to the Execution API.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use plugin_host::{INLINE_BYTES, Payload, Stored, TaskKey, XcomBackend, XcomCoordinate};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Call, CallError, Session, key, segment},
    frames::Reply,
    messages::{SetXcom, XcomAddress},
    msgpack,
};

/// One task's way to its and other tasks' XComs.
#[derive(Clone)]
pub(crate) struct Xcoms {
    pub(crate) session: Session,
    pub(crate) backend: Arc<dyn XcomBackend>,
    pub(crate) spool: PathBuf,
    pub(crate) try_number: u32,
    pub(crate) max_bytes: u64,
    pub(crate) patience: Duration,
}

/// Which part of a mapped task's XComs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    pub(crate) start: Option<i64>,
    pub(crate) stop: Option<i64>,
    pub(crate) step: Option<i64>,
    pub(crate) include_prior_dates: bool,
}

/// Where in an answer the values stand.
#[derive(Clone, Copy, Debug)]
enum Answered {
    Row,
    Item,
    List,
}

/// The column of a row, and where the row is: for a value of an earlier run, or one of many.
#[derive(Deserialize)]
struct Located {
    run_id: String,
    map_index: i32,
    value: Value,
}

impl Answered {
    fn rows(self, answer: &Answer) -> Result<Vec<Located>, CallError> {
        #[derive(Deserialize)]
        struct Row {
            value: Located,
        }

        Ok(match self {
            Self::Row => vec![answer.json::<Row>()?.value],
            Self::Item => vec![answer.json()?],
            Self::List => answer.json()?,
        })
    }
}

/// Why an XCom could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XcomError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(
        "XCom {key:?} of {bytes} bytes is over the limit of {limit} bytes\nhint: raise `xcom.max_bytes` in the environment's config.yaml, or store the data elsewhere and push where it is"
    )]
    TooLarge { key: String, bytes: u64, limit: u64 },
    #[error("XCom {key:?}: {source}")]
    Plugin {
        key: String,
        source: plugin_host::Error,
    },
    #[error("XCom {key:?} is stored as what is no JSON: {reason}")]
    NoJson { key: String, reason: String },
}

impl XcomError {
    pub(crate) fn to_error_response(&self) -> Value {
        match self {
            Self::Call(error) => error.to_error_response(),
            Self::TooLarge { .. } | Self::Plugin { .. } | Self::NoJson { .. } => json!({
                "error": "API_SERVER_ERROR",
                "detail": {"status_code": null, "message": self.to_string(), "exception_type": "XComError"},
                "type": "ErrorResponse",
            }),
        }
    }
}

impl Xcoms {
    pub(crate) async fn set(&self, message: SetXcom) -> Result<Reply, XcomError> {
        let SetXcom {
            address,
            dag_result,
            mapped_length,
            value,
        } = message;
        let text: Box<str> = value.into();
        let bytes = text.len() as u64;
        if bytes > self.max_bytes {
            return Err(XcomError::TooLarge {
                key: address.key,
                bytes,
                limit: self.max_bytes,
            });
        }
        let failed = |source| XcomError::Plugin {
            key: address.key.clone(),
            source,
        };
        let payload = if text.len() <= INLINE_BYTES {
            Payload::from(Bytes::from(String::from(text)))
        } else {
            Payload::spool(&self.spool, text.as_bytes(), self.max_bytes)
                .await
                .map_err(failed)?
        };
        let stored = self
            .backend
            .put(&self.coordinate(&address), payload)
            .await
            .map_err(failed)?;
        let call = Call::new(Method::POST, path(&address))
            .stored_xcom()
            .json(&stored.to_column());
        let call = call
            .optional_query("dag_result", dag_result.then_some("true"))
            .optional_query("map_index", mapped(&address))
            .optional_query(
                "mapped_length",
                mapped_length
                    .filter(|length| *length >= 0)
                    .map(|length| length.to_string()),
            );
        self.session.call(&call, self.patience).await?;
        Ok(Reply::Nothing)
    }

    /// The Execution API forgets the row and lets the plugin remove what it stood for.
    pub(crate) async fn delete(&self, address: &XcomAddress) -> Result<Reply, XcomError> {
        let call =
            Call::new(Method::DELETE, path(address)).optional_query("map_index", mapped(address));
        self.session.call(&call, self.patience).await?;
        Ok(Reply::Nothing)
    }

    pub(crate) async fn count(&self, address: &XcomAddress) -> Result<Reply, XcomError> {
        let answer = self
            .session
            .call(&Call::new(Method::HEAD, path(address)), self.patience)
            .await?;
        let range = answer
            .headers
            .get(http::header::CONTENT_RANGE)
            .and_then(|range| range.to_str().ok());
        let count: u64 = range
            .and_then(|range| range.strip_prefix("map_indexes ")?.parse().ok())
            .ok_or_else(|| CallError::Unreadable(format!("the Content-Range header {range:?}")))?;
        Ok(Reply::Body(
            json!({"len": count, "type": "XComCountResponse"}),
        ))
    }

    /// One value; none is null, as Airflow has it.
    pub(crate) async fn get(
        &self,
        address: &XcomAddress,
        include_prior_dates: bool,
    ) -> Result<Reply, XcomError> {
        let call = Call::get(path(address))
            .optional_query("map_index", mapped(address))
            .optional_query("include_prior_dates", include_prior_dates.then_some("true"));
        let values = match self.read(call, address, Answered::Row).await {
            Err(XcomError::Call(error)) if error.status() == Some(404) => Vec::new(),
            values => values?,
        };
        let value = values.first().map_or(&b"null"[..], |value| value);
        let mut packed = Vec::with_capacity(value.len() + 64);
        msgpack::put_map_head(&mut packed, 3);
        msgpack::put_text(&mut packed, "key");
        msgpack::put_text(&mut packed, &address.key);
        msgpack::put_text(&mut packed, "type");
        msgpack::put_text(&mut packed, "XComResult");
        msgpack::put_text(&mut packed, "value");
        pack(&address.key, value, &mut packed)?;
        Ok(Reply::Packed(packed))
    }

    /// The n-th value over all map indexes.
    pub(crate) async fn item(
        &self,
        address: &XcomAddress,
        offset: i64,
    ) -> Result<Reply, XcomError> {
        let call = Call::get(format!("{}/item/{offset}", path(address)));
        let values = match self.read(call, address, Answered::Item).await {
            Err(XcomError::Call(error)) if error.status() == Some(404) => {
                let XcomAddress {
                    dag_id,
                    run_id,
                    task_id,
                    key,
                    ..
                } = address;
                let detail = json!({"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "key": key, "offset": offset});
                return Ok(Reply::Body(
                    json!({"error": "XCOM_NOT_FOUND", "detail": detail, "type": "ErrorResponse"}),
                ));
            }
            values => values?,
        };
        let value = values.first().map_or(&b"null"[..], |value| value);
        let mut packed = rooted("XComSequenceIndexResult", value.len());
        pack(&address.key, value, &mut packed)?;
        Ok(Reply::Packed(packed))
    }

    /// The values over all map indexes.
    pub(crate) async fn slice(
        &self,
        address: &XcomAddress,
        slice: Slice,
    ) -> Result<Reply, XcomError> {
        let number = |bound: Option<i64>| bound.map(|bound| bound.to_string());
        let call = Call::get(format!("{}/slice", path(address)))
            .optional_query("start", number(slice.start))
            .optional_query("stop", number(slice.stop))
            .optional_query("step", number(slice.step))
            .optional_query(
                "include_prior_dates",
                slice.include_prior_dates.then_some("true"),
            );
        let values = self.read(call, address, Answered::List).await?;
        let mut packed = rooted(
            "XComSequenceSliceResult",
            values.iter().map(Bytes::len).sum(),
        );
        msgpack::put_array_head(&mut packed, values.len());
        for value in &values {
            pack(&address.key, value, &mut packed)?;
        }
        Ok(Reply::Packed(packed))
    }

    /// The JSON texts of the values that the call asks for. Their columns come over HTTP, the values from the plugin.
    async fn read(
        &self,
        call: Call,
        address: &XcomAddress,
        answered: Answered,
    ) -> Result<Vec<Bytes>, XcomError> {
        let answer = self
            .session
            .call(&call.stored_xcom(), self.patience)
            .await?;
        let failed = |source| XcomError::Plugin {
            key: address.key.clone(),
            source,
        };
        let rows = answered.rows(&answer)?;
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            let mut at = self.coordinate(address);
            at.task.run_id = row.run_id;
            at.task.map_index = row.map_index;
            let payload = self
                .backend
                .get(&at, &Stored::from_column(row.value))
                .await
                .map_err(failed)?;
            values.push(payload.into_bytes(self.max_bytes).await.map_err(failed)?);
        }
        Ok(values)
    }

    fn coordinate(&self, address: &XcomAddress) -> XcomCoordinate {
        let task = TaskKey {
            dag_id: address.dag_id.clone(),
            run_id: address.run_id.clone(),
            task_id: address.task_id.clone(),
            map_index: address.map_index.unwrap_or(-1),
            try_number: self.try_number,
        };
        XcomCoordinate {
            task,
            key: address.key.clone(),
        }
    }
}

fn path(address: &XcomAddress) -> String {
    let XcomAddress {
        dag_id,
        run_id,
        task_id,
        key: name,
        ..
    } = address;
    format!(
        "/xcoms/{}/{}/{}/{}",
        segment(dag_id),
        segment(run_id),
        segment(task_id),
        key(name)
    )
}

fn mapped(address: &XcomAddress) -> Option<String> {
    address
        .map_index
        .filter(|index| *index >= 0)
        .map(|index| index.to_string())
}

/// The beginning of an answer whose last field, `root`, is still to be appended.
fn rooted(kind: &str, size: usize) -> Vec<u8> {
    let mut packed = Vec::with_capacity(size + 64);
    msgpack::put_map_head(&mut packed, 2);
    msgpack::put_text(&mut packed, "type");
    msgpack::put_text(&mut packed, kind);
    msgpack::put_text(&mut packed, "root");
    packed
}

fn pack(key: &str, json: &[u8], out: &mut Vec<u8>) -> Result<(), XcomError> {
    msgpack::from_json(&mut serde_json::Deserializer::from_slice(json), out).map_err(|error| {
        XcomError::NoJson {
            key: key.to_owned(),
            reason: error.to_string(),
        }
    })
}
