//! What a task runner may ask of its supervisor: all 55 messages of the supervisor schema 2026-06-16.
//! Names of variants and fields are Airflow's (`sdk/execution_time/comms.py`); what only passes through stays JSON.

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

pub(crate) type Object = Map<String, Value>;

/// A message, told apart by its `type`.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum ToSupervisor {
    // How the task ended.
    AwaitInputTask(Object),
    DeferTask(Object),
    RescheduleTask(Object),
    RetryTask(Object),
    SucceedTask(Object),
    TaskState(TaskState),

    // About the task instance itself.
    MaskSecret {
        value: Value,
        name: Option<String>,
    },
    ResendLoggingFD {},
    SetRenderedFields {
        rendered_fields: Value,
    },
    SetRenderedMapIndex {
        rendered_map_index: String,
    },
    SkipDownstreamTasks {
        tasks: Value,
    },
    GetPrevSuccessfulDagRun {},
    GetTaskRescheduleStartDate {
        ti_id: String,
        try_number: i64,
    },
    ValidateInletsAndOutlets {
        ti_id: String,
    },

    // XComs. `SetXCom` comes as `SetXcom`, so that a large value is never a tree.
    #[serde(skip)]
    SetXCom(SetXcom),
    DeleteXCom(XcomAddress),
    GetXCom {
        #[serde(flatten)]
        address: XcomAddress,
        #[serde(default)]
        include_prior_dates: bool,
    },
    GetXComCount(XcomAddress),
    GetXComSequenceItem {
        #[serde(flatten)]
        address: XcomAddress,
        offset: i64,
    },
    GetXComSequenceSlice {
        #[serde(flatten)]
        address: XcomAddress,
        start: Option<i64>,
        stop: Option<i64>,
        step: Option<i64>,
        #[serde(default)]
        include_prior_dates: bool,
    },

    // Variables and connections.
    DeleteVariable {
        key: String,
    },
    GetConnection {
        conn_id: String,
    },
    GetVariable {
        key: String,
    },
    GetVariableKeys {
        prefix: Option<String>,
        limit: i64,
        offset: i64,
    },
    PutVariable {
        key: String,
        value: Option<String>,
        description: Option<String>,
    },

    // DAG runs and other task instances.
    GetDRCount(Filter),
    GetDag {
        dag_id: String,
    },
    GetDagRun {
        dag_id: String,
        run_id: String,
    },
    GetDagRunState {
        dag_id: String,
        run_id: String,
    },
    GetPreviousDagRun {
        dag_id: String,
        logical_date: String,
        state: Option<String>,
    },
    GetPreviousTI {
        dag_id: String,
        task_id: String,
        logical_date: Option<String>,
        map_index: i64,
        state: Option<String>,
    },
    GetTICount(Filter),
    GetTaskBreadcrumbs {
        dag_id: String,
        run_id: String,
    },
    GetTaskStates(Filter),
    TriggerDagRun(TriggerDagRun),

    // Assets.
    GetAssetByName {
        name: String,
    },
    GetAssetByUri {
        uri: String,
    },
    GetAssetsByAlias {
        alias_name: String,
    },
    GetAssetEventByAsset {
        name: Option<String>,
        uri: Option<String>,
        #[serde(flatten)]
        window: EventWindow,
    },
    GetAssetEventByAssetAlias {
        alias_name: String,
        #[serde(flatten)]
        window: EventWindow,
    },

    // State that outlives a try.
    ClearAssetStateStoreByName {
        name: String,
    },
    ClearAssetStateStoreByUri {
        uri: String,
    },
    ClearTaskStateStore {
        ti_id: String,
    },
    DeleteAssetStateStoreByName {
        name: String,
        key: String,
    },
    DeleteAssetStateStoreByUri {
        uri: String,
        key: String,
    },
    DeleteTaskStateStore {
        ti_id: String,
        key: String,
    },
    GetAssetStateStoreByName {
        name: String,
        key: String,
    },
    GetAssetStateStoreByUri {
        uri: String,
        key: String,
    },
    GetTaskStateStore {
        ti_id: String,
        key: String,
    },
    SetAssetStateStoreByName {
        name: String,
        key: String,
        value: Value,
    },
    SetAssetStateStoreByUri {
        uri: String,
        key: String,
        value: Value,
    },
    SetTaskStateStore {
        ti_id: String,
        key: String,
        value: Value,
        expires_at: Option<String>,
    },

    // Human in the loop. Airflow's supervisor of a task refuses the latter two: only its triggerer answers them.
    CreateHITLDetailPayload(Object),
    GetHITLDetailResponse {},
    UpdateHITLDetail {},
}

/// An end that is reported after the runner has exited.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TaskState {
    pub(crate) state: String,
    pub(crate) end_date: Option<String>,
    pub(crate) rendered_map_index: Option<String>,
}

#[derive(Debug)]
pub(crate) struct SetXcom {
    pub(crate) address: XcomAddress,
    pub(crate) dag_result: bool,
    pub(crate) mapped_length: Option<i64>,
    pub(crate) value: Box<RawValue>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct XcomAddress {
    pub(crate) dag_id: String,
    pub(crate) run_id: String,
    pub(crate) task_id: String,
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) map_index: Option<i32>,
}

/// Which rows to count or list. `states` and the task filters are absent where Airflow has none.
#[derive(Debug, Deserialize)]
pub(crate) struct Filter {
    pub(crate) dag_id: String,
    #[serde(default)]
    pub(crate) map_index: Option<i64>,
    #[serde(default)]
    pub(crate) task_ids: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) task_group_id: Option<String>,
    #[serde(default)]
    pub(crate) logical_dates: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) run_ids: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) states: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TriggerDagRun {
    pub(crate) dag_id: String,
    pub(crate) run_id: String,
    pub(crate) conf: Option<Object>,
    pub(crate) logical_date: Option<String>,
    pub(crate) run_after: Option<String>,
    pub(crate) reset_dag_run: Option<bool>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EventWindow {
    pub(crate) after: Option<String>,
    pub(crate) before: Option<String>,
    pub(crate) limit: Option<i64>,
    pub(crate) ascending: bool,
}

impl ToSupervisor {
    /// Reads the body of a frame.
    pub(crate) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(rename = "type")]
            kind: std::borrow::Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Carried {
            value: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct WithoutValue {
            dag_id: String,
            run_id: String,
            task_id: String,
            key: String,
            map_index: Option<i32>,
            #[serde(default)]
            dag_result: bool,
            mapped_length: Option<i64>,
        }

        if serde_json::from_slice::<Head<'_>>(body)?.kind != "SetXCom" {
            return serde_json::from_slice(body);
        }
        let WithoutValue {
            dag_id,
            run_id,
            task_id,
            key,
            map_index,
            dag_result,
            mapped_length,
        } = serde_json::from_slice(body)?;
        let Carried { value } = serde_json::from_slice(body)?;
        let address = XcomAddress {
            dag_id,
            run_id,
            task_id,
            key,
            map_index,
        };
        Ok(Self::SetXCom(SetXcom {
            address,
            dag_result,
            mapped_length,
            value,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::ToSupervisor;

    #[test]
    fn a_value_is_kept_as_it_was_written() {
        let body = br#"{"key":"k","value":[1.0,{"a":"\u00e9"}],"dag_id":"d","run_id":"r","task_id":"t","map_index":-1,"dag_result":false,"mapped_length":2,"type":"SetXCom"}"#;
        let ToSupervisor::SetXCom(message) = ToSupervisor::read(body).unwrap() else {
            panic!("another message")
        };
        assert_eq!(message.value.get(), r#"[1.0,{"a":"\u00e9"}]"#);
        assert_eq!(
            (message.address.key.as_str(), message.mapped_length),
            ("k", Some(2))
        );
    }

    #[test]
    fn an_unknown_message_is_an_error_that_names_it() {
        let error = ToSupervisor::read(br#"{"type":"MakeCoffee"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("unknown variant `MakeCoffee`"), "{error}");
    }
}
