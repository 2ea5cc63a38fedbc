//! Which call to the Execution API answers which message, and what its answer becomes. Nothing is called here.
// airflow: ActivitySubprocess._handle_request, request_handlers.py, sdk/api/client.py

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Call, key, segment},
    messages::{EventWindow, Filter, Object, ToSupervisor, TriggerDagRun},
};

/// A call and the reading of its answer.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) call: Call,
    pub(crate) shape: Shape,
    /// The body for a 404.
    pub(crate) missing: Option<Value>,
    /// The name in a "permission denied" body for 401 and 403.
    pub(crate) guarded: Option<(&'static str, String)>,
    /// A status that is as good as success.
    pub(crate) tolerated: Option<u16>,
}

/// How the runner's answer is made of the server's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// The server's object with this `type`.
    Object(&'static str),
    /// An object of this `type` whose one field is the server's answer.
    Field(&'static str, &'static str),
    /// `OKResponse`.
    Done,
    Nothing,
}

impl Lookup {
    fn new(call: Call, shape: Shape) -> Self {
        Self {
            call,
            shape,
            missing: None,
            guarded: None,
            tolerated: None,
        }
    }

    fn missing(mut self, error: &str, detail: &Value) -> Self {
        self.missing = Some(json!({"error": error, "detail": detail, "type": "ErrorResponse"}));
        self
    }

    fn guarded(mut self, name: &'static str, value: &str) -> Self {
        self.guarded = Some((name, value.to_owned()));
        self
    }
}

/// The lookup for a message about anything but XComs and the task's end; the message back if there is none.
#[expect(clippy::too_many_lines, reason = "a table: a row for each message")]
pub(crate) fn lookup(message: ToSupervisor, ti_id: &str) -> Result<Lookup, Box<ToSupervisor>> {
    use Shape::{Done, Field, Nothing, Object};
    use ToSupervisor as M;
    let own = |tail: &str| format!("/task-instances/{}/{tail}", segment(ti_id));
    Ok(match message {
        M::SetRenderedFields { rendered_fields } => {
            let call = Call::new(Method::PUT, own("rtif")).json(&rendered_fields);
            // A cleared or retried task instance has another id by now; the heartbeat stops the task.
            Lookup {
                tolerated: Some(410),
                ..Lookup::new(call, Nothing)
            }
        }
        M::SetRenderedMapIndex { rendered_map_index } => Lookup::new(
            Call::new(Method::PATCH, own("rendered-map-index")).json(&rendered_map_index),
            Nothing,
        ),
        M::SkipDownstreamTasks { tasks } => Lookup::new(
            Call::new(Method::PATCH, own("skip-downstream")).json(&json!({"tasks": tasks})),
            Nothing,
        ),
        M::GetPrevSuccessfulDagRun {} => Lookup::new(
            Call::get(own("previous-successful-dagrun")),
            Object("PrevSuccessfulDagRunResult"),
        ),
        M::ValidateInletsAndOutlets { ti_id } => {
            let call = Call::get(format!(
                "/task-instances/{}/validate-inlets-and-outlets",
                segment(&ti_id)
            ));
            Lookup::new(call, Object("InactiveAssetsResult"))
        }
        M::GetTaskRescheduleStartDate { ti_id, try_number } => {
            let call = Call::get(format!("/task-reschedules/{}/start_date", segment(&ti_id)))
                .query("try_number", try_number.to_string());
            Lookup::new(call, Field("TaskRescheduleStartDate", "start_date"))
        }

        M::GetConnection { conn_id } => Lookup::new(
            Call::get(format!("/connections/{}", segment(&conn_id))),
            Object("ConnectionResult"),
        )
        .missing("CONNECTION_NOT_FOUND", &json!({"conn_id": conn_id}))
        .guarded("conn_id", &conn_id),
        M::GetVariable { key: name } => Lookup::new(
            Call::get(format!("/variables/{}", key(&name))),
            Object("VariableResult"),
        )
        .missing("VARIABLE_NOT_FOUND", &json!({"key": name}))
        .guarded("key", &name),
        M::GetVariableKeys {
            prefix,
            limit,
            offset,
        } => {
            let call = Call::get("/variables/keys")
                .query("limit", limit.to_string())
                .query("offset", offset.to_string());
            Lookup::new(
                call.optional_query("prefix", prefix),
                Object("VariableKeysResult"),
            )
        }
        M::PutVariable {
            key: name,
            value,
            description,
        } => {
            let body = json!({"val": value, "description": description});
            Lookup::new(
                Call::new(Method::PUT, format!("/variables/{}", key(&name))).json(&body),
                Nothing,
            )
        }
        M::DeleteVariable { key: name } => Lookup::new(
            Call::new(Method::DELETE, format!("/variables/{}", key(&name))),
            Done,
        ),

        M::GetDag { dag_id } => Lookup::new(
            Call::get(format!("/dags/{}", segment(&dag_id))),
            Object("DagResult"),
        ),
        M::GetDagRun { dag_id, run_id } => Lookup::new(
            Call::get(dag_run(&dag_id, &run_id, "")),
            Object("DagRunResult"),
        ),
        M::GetDagRunState { dag_id, run_id } => Lookup::new(
            Call::get(dag_run(&dag_id, &run_id, "/state")),
            Object("DagRunStateResult"),
        ),
        M::GetPreviousDagRun {
            dag_id,
            logical_date,
            state,
        } => {
            let call = Call::get("/dag-runs/previous")
                .query("dag_id", dag_id)
                .query("logical_date", logical_date);
            Lookup::new(
                call.optional_query("state", state),
                Field("PreviousDagRunResult", "dag_run"),
            )
        }
        M::GetDRCount(filter) => Lookup::new(
            filtered("/dag-runs/count", &filter),
            Field("DRCount", "count"),
        ),
        M::GetTICount(filter) => Lookup::new(
            filtered("/task-instances/count", &filter),
            Field("TICount", "count"),
        ),
        M::GetTaskStates(filter) => Lookup::new(
            filtered("/task-instances/states", &filter),
            Object("TaskStatesResult"),
        ),
        M::GetPreviousTI {
            dag_id,
            task_id,
            logical_date,
            map_index,
            state,
        } => {
            let path = format!(
                "/task-instances/previous/{}/{}",
                segment(&dag_id),
                segment(&task_id)
            );
            let call = Call::get(path).query("map_index", map_index.to_string());
            let call = call
                .optional_query("logical_date", logical_date)
                .optional_query("state", state);
            Lookup::new(call, Field("PreviousTIResult", "task_instance"))
        }
        M::GetTaskBreadcrumbs { dag_id, run_id } => {
            let call = Call::get("/task-instances/breadcrumbs")
                .query("dag_id", dag_id)
                .query("run_id", run_id);
            Lookup::new(call, Object("TaskBreadcrumbsResult"))
        }

        M::GetAssetByName { name } => Lookup::new(
            Call::get("/assets/by-name").query("name", &name),
            Object("AssetResult"),
        )
        .missing("ASSET_NOT_FOUND", &json!({"name": name})),
        M::GetAssetByUri { uri } => Lookup::new(
            Call::get("/assets/by-uri").query("uri", &uri),
            Object("AssetResult"),
        )
        .missing("ASSET_NOT_FOUND", &json!({"uri": uri})),
        M::GetAssetsByAlias { alias_name } => Lookup::new(
            Call::get("/assets/by-alias").query("alias_name", alias_name),
            Field("AssetsByAliasResult", "assets"),
        ),
        M::GetAssetEventByAsset { name, uri, window } => {
            // Both are always there, one of them empty.
            let call = Call::get("/asset-events/by-asset")
                .query("name", name.unwrap_or_default())
                .query("uri", uri.unwrap_or_default());
            Lookup::new(within(call, window), Object("AssetEventsResult"))
        }
        M::GetAssetEventByAssetAlias { alias_name, window } => Lookup::new(
            within(
                Call::get("/asset-events/by-asset-alias").query("name", alias_name),
                window,
            ),
            Object("AssetEventsResult"),
        ),

        M::GetTaskStateStore { ti_id, key } => Lookup::new(
            Call::get(task_store(&ti_id, &key)),
            Object("TaskStateStoreResult"),
        )
        .missing("TASK_STORE_NOT_FOUND", &json!({"key": key})),
        M::SetTaskStateStore {
            ti_id,
            key,
            value,
            expires_at,
        } => {
            let body = json!({"value": value, "expires_at": expires_at});
            Lookup::new(
                Call::new(Method::PUT, task_store(&ti_id, &key)).json(&body),
                Done,
            )
        }
        M::DeleteTaskStateStore { ti_id, key } => {
            Lookup::new(Call::new(Method::DELETE, task_store(&ti_id, &key)), Done)
        }
        M::ClearTaskStateStore { ti_id } => Lookup::new(
            Call::new(Method::DELETE, format!("/store/ti/{}", segment(&ti_id))),
            Done,
        ),
        M::GetAssetStateStoreByName { name, key } => get_asset_store("name", &name, &key),
        M::GetAssetStateStoreByUri { uri, key } => get_asset_store("uri", &uri, &key),
        M::SetAssetStateStoreByName { name, key, value } => {
            set_asset_store("name", &name, &key, &value)
        }
        M::SetAssetStateStoreByUri { uri, key, value } => {
            set_asset_store("uri", &uri, &key, &value)
        }
        M::DeleteAssetStateStoreByName { name, key } => Lookup::new(
            asset_store(Method::DELETE, "name", &name, "value").query("key", key),
            Done,
        ),
        M::DeleteAssetStateStoreByUri { uri, key } => Lookup::new(
            asset_store(Method::DELETE, "uri", &uri, "value").query("key", key),
            Done,
        ),
        M::ClearAssetStateStoreByName { name } => {
            Lookup::new(asset_store(Method::DELETE, "name", &name, "clear"), Done)
        }
        M::ClearAssetStateStoreByUri { uri } => {
            Lookup::new(asset_store(Method::DELETE, "uri", &uri, "clear"), Done)
        }

        M::CreateHITLDetailPayload(detail) => {
            let id = detail.get("ti_id").and_then(Value::as_str).unwrap_or(ti_id);
            let call =
                Call::new(Method::POST, format!("/hitlDetails/{}", segment(id))).json(&detail);
            Lookup::new(call, Object("HITLDetailRequestResult"))
        }

        other @ (M::AwaitInputTask(_)
        | M::DeferTask(_)
        | M::RescheduleTask(_)
        | M::RetryTask(_)
        | M::SucceedTask(_)
        | M::TaskState(_)
        | M::MaskSecret { .. }
        | M::ResendLoggingFD {}
        | M::SetXCom(_)
        | M::DeleteXCom(_)
        | M::GetXCom { .. }
        | M::GetXComCount(_)
        | M::GetXComSequenceItem { .. }
        | M::GetXComSequenceSlice { .. }
        | M::TriggerDagRun(_)
        | M::GetHITLDetailResponse {}
        | M::UpdateHITLDetail {}) => return Err(Box::new(other)),
    })
}

/// The call that makes a DAG run, with what differs from the defaults alone.
pub(crate) fn trigger(message: &TriggerDagRun) -> Call {
    let mut body = Object::new();
    let given = [
        ("logical_date", &message.logical_date),
        ("run_after", &message.run_after),
        ("note", &message.note),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    body.insert(
        "conf".to_owned(),
        json!(message.conf.clone().unwrap_or_default()),
    );
    if message.reset_dag_run == Some(true) {
        body.insert("reset_dag_run".to_owned(), json!(true));
    }
    Call::new(Method::POST, dag_run(&message.dag_id, &message.run_id, "")).json(&body)
}

/// The call that clears a DAG run which exists already.
pub(crate) fn clear(message: &TriggerDagRun) -> Call {
    Call::new(
        Method::POST,
        dag_run(&message.dag_id, &message.run_id, "/clear"),
    )
}

fn dag_run(dag_id: &str, run_id: &str, tail: &str) -> String {
    format!("/dag-runs/{}/{}{tail}", segment(dag_id), segment(run_id))
}

fn task_store(ti_id: &str, key: &str) -> String {
    format!("/store/ti/{}/{}", segment(ti_id), segment(key))
}

fn asset_store(method: Method, by: &'static str, asset: &str, operation: &str) -> Call {
    Call::new(method, format!("/store/asset/by-{by}/{operation}")).query(by, asset)
}

fn get_asset_store(by: &'static str, asset: &str, key: &str) -> Lookup {
    Lookup::new(
        asset_store(Method::GET, by, asset, "value").query("key", key),
        Shape::Object("AssetStateStoreResult"),
    )
    .missing("ASSET_STORE_NOT_FOUND", &json!({"key": key}))
}

fn set_asset_store(by: &'static str, asset: &str, key: &str, value: &Value) -> Lookup {
    Lookup::new(
        asset_store(Method::PUT, by, asset, "value")
            .query("key", key)
            .json(&json!({"value": value})),
        Shape::Done,
    )
}

fn within(call: Call, window: EventWindow) -> Call {
    call.optional_query("after", window.after)
        .optional_query("before", window.before)
        .query("ascending", window.ascending.to_string())
        .optional_query(
            "limit",
            window
                .limit
                .filter(|limit| *limit != 0)
                .map(|limit| limit.to_string()),
        )
}

fn filtered(path: &str, filter: &Filter) -> Call {
    let mut call = Call::get(path).query("dag_id", &filter.dag_id);
    let lists = [
        ("task_ids", &filter.task_ids),
        ("logical_dates", &filter.logical_dates),
        ("run_ids", &filter.run_ids),
        ("states", &filter.states),
    ];
    for (name, values) in lists {
        for value in values.iter().flatten() {
            call = call.query(name, value);
        }
    }
    call.optional_query("task_group_id", filter.task_group_id.as_ref())
        .optional_query(
            "map_index",
            filter
                .map_index
                .filter(|index| *index >= 0)
                .map(|index| index.to_string()),
        )
}

#[cfg(test)]
mod tests {
    use super::{lookup, trigger};
    use crate::messages::ToSupervisor;

    /// The call and the shape of its answer for each message, as the runner sends it.
    fn calls(messages: &str) -> String {
        let one = |text: &str| match lookup(ToSupervisor::read(text.as_bytes()).unwrap(), "id") {
            Ok(lookup) => format!("{} -> {:?}", lookup.call, lookup.shape),
            Err(other) => match *other {
                ToSupervisor::TriggerDagRun(message) => trigger(&message).to_string(),
                other => format!("elsewhere: {other:?}"),
            },
        };
        messages
            .trim()
            .lines()
            .map(|line| one(line.trim()))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn messages_about_the_task_instance_become_calls() {
        insta::assert_snapshot!(calls(r#"
            {"type":"SetRenderedFields","rendered_fields":{"a":[1]}}
            {"type":"SetRenderedMapIndex","rendered_map_index":"sq-1"}
            {"type":"SkipDownstreamTasks","tasks":["a",["b",1]]}
            {"type":"GetPrevSuccessfulDagRun","ti_id":"other"}
            {"type":"GetTaskRescheduleStartDate","ti_id":"id","try_number":2}
            {"type":"ValidateInletsAndOutlets","ti_id":"id"}
            {"type":"GetHITLDetailResponse","ti_id":"id"}
        "#), @r#"
            PUT /task-instances/id/rtif {"a":[1]} -> Nothing
            PATCH /task-instances/id/rendered-map-index "sq-1" -> Nothing
            PATCH /task-instances/id/skip-downstream {"tasks":["a",["b",1]]} -> Nothing
            GET /task-instances/id/previous-successful-dagrun -> Object("PrevSuccessfulDagRunResult")
            GET /task-reschedules/id/start_date?try_number=2 -> Field("TaskRescheduleStartDate", "start_date")
            GET /task-instances/id/validate-inlets-and-outlets -> Object("InactiveAssetsResult")
            elsewhere: GetHITLDetailResponse
        "#);
    }

    #[test]
    fn messages_about_secrets_become_calls() {
        insta::assert_snapshot!(calls(r#"
            {"type":"GetConnection","conn_id":"my db"}
            {"type":"GetVariable","key":"a/b?"}
            {"type":"GetVariableKeys","prefix":"p&","limit":1000,"offset":0}
            {"type":"PutVariable","key":"k","value":"v","description":null}
            {"type":"DeleteVariable","key":"k"}
        "#), @r#"
            GET /connections/my%20db -> Object("ConnectionResult")
            GET /variables/a/b%3F -> Object("VariableResult")
            GET /variables/keys?limit=1000&offset=0&prefix=p%26 -> Object("VariableKeysResult")
            PUT /variables/k {"description":null,"val":"v"} -> Nothing
            DELETE /variables/k -> Done
        "#);
    }

    #[test]
    fn messages_about_runs_become_calls() {
        insta::assert_snapshot!(calls(r#"
            {"type":"GetDag","dag_id":"d/1"}
            {"type":"GetDagRun","dag_id":"d","run_id":"manual__2024-01-01T00:00:00+00:00"}
            {"type":"GetDagRunState","dag_id":"d","run_id":"r"}
            {"type":"GetDRCount","dag_id":"d","logical_dates":["2024-01-01T00:00:00Z"],"run_ids":["a","b"],"states":null}
            {"type":"GetPreviousDagRun","dag_id":"d","logical_date":"2024-01-01T00:00:00Z","state":null}
            {"type":"GetPreviousTI","dag_id":"d","task_id":"t","logical_date":null,"map_index":-1,"state":"success"}
            {"type":"GetTICount","dag_id":"d","map_index":-1,"task_ids":["t"],"task_group_id":"g","logical_dates":null,"run_ids":[],"states":["null"]}
            {"type":"GetTaskStates","dag_id":"d","map_index":3,"task_ids":null,"task_group_id":null,"logical_dates":null,"run_ids":null}
            {"type":"GetTaskBreadcrumbs","dag_id":"d","run_id":"r"}
            {"type":"TriggerDagRun","dag_id":"d","run_id":"r","conf":null,"logical_date":null,"run_after":null,"reset_dag_run":false,"note":null,"partition_key":null}
            {"type":"TriggerDagRun","dag_id":"d","run_id":"r","conf":{"x":1},"logical_date":"2024-01-01T00:00:00Z","run_after":null,"reset_dag_run":true,"note":"n","partition_key":null}
        "#), @r#"
            GET /dags/d%2F1 -> Object("DagResult")
            GET /dag-runs/d/manual__2024-01-01T00:00:00+00:00 -> Object("DagRunResult")
            GET /dag-runs/d/r/state -> Object("DagRunStateResult")
            GET /dag-runs/count?dag_id=d&logical_dates=2024-01-01T00%3A00%3A00Z&run_ids=a&run_ids=b -> Field("DRCount", "count")
            GET /dag-runs/previous?dag_id=d&logical_date=2024-01-01T00%3A00%3A00Z -> Field("PreviousDagRunResult", "dag_run")
            GET /task-instances/previous/d/t?map_index=-1&state=success -> Field("PreviousTIResult", "task_instance")
            GET /task-instances/count?dag_id=d&task_ids=t&states=null&task_group_id=g -> Field("TICount", "count")
            GET /task-instances/states?dag_id=d&map_index=3 -> Object("TaskStatesResult")
            GET /task-instances/breadcrumbs?dag_id=d&run_id=r -> Object("TaskBreadcrumbsResult")
            POST /dag-runs/d/r {"conf":{}}
            POST /dag-runs/d/r {"conf":{"x":1},"logical_date":"2024-01-01T00:00:00Z","note":"n","reset_dag_run":true}
        "#);
    }

    #[test]
    fn messages_about_assets_become_calls() {
        insta::assert_snapshot!(calls(r#"
            {"type":"GetAssetByName","name":"n"}
            {"type":"GetAssetByUri","uri":"s3://b/k"}
            {"type":"GetAssetsByAlias","alias_name":"a"}
            {"type":"GetAssetEventByAsset","name":"n","uri":null,"after":null,"before":null,"limit":null,"ascending":true}
            {"type":"GetAssetEventByAssetAlias","alias_name":"a","after":"2024-01-01T00:00:00Z","before":null,"limit":5,"ascending":false}
        "#), @r#"
            GET /assets/by-name?name=n -> Object("AssetResult")
            GET /assets/by-uri?uri=s3%3A%2F%2Fb%2Fk -> Object("AssetResult")
            GET /assets/by-alias?alias_name=a -> Field("AssetsByAliasResult", "assets")
            GET /asset-events/by-asset?name=n&uri=&ascending=true -> Object("AssetEventsResult")
            GET /asset-events/by-asset-alias?name=a&after=2024-01-01T00%3A00%3A00Z&ascending=false&limit=5 -> Object("AssetEventsResult")
        "#);
    }

    #[test]
    fn messages_about_stores_and_people_become_calls() {
        insta::assert_snapshot!(calls(r#"
            {"type":"GetTaskStateStore","ti_id":"id","key":"a/b"}
            {"type":"SetTaskStateStore","ti_id":"id","key":"k","value":{"x":1},"expires_at":null}
            {"type":"DeleteTaskStateStore","ti_id":"id","key":"k"}
            {"type":"ClearTaskStateStore","ti_id":"id"}
            {"type":"GetAssetStateStoreByName","name":"n","key":"k"}
            {"type":"GetAssetStateStoreByUri","uri":"u","key":"k"}
            {"type":"SetAssetStateStoreByName","name":"n","key":"k","value":1}
            {"type":"SetAssetStateStoreByUri","uri":"u","key":"k","value":null}
            {"type":"DeleteAssetStateStoreByName","name":"n","key":"k"}
            {"type":"DeleteAssetStateStoreByUri","uri":"u","key":"k"}
            {"type":"ClearAssetStateStoreByName","name":"n"}
            {"type":"ClearAssetStateStoreByUri","uri":"u"}
            {"type":"CreateHITLDetailPayload","ti_id":"id","options":["a"],"subject":"s","body":null}
        "#), @r#"
            GET /store/ti/id/a%2Fb -> Object("TaskStateStoreResult")
            PUT /store/ti/id/k {"expires_at":null,"value":{"x":1}} -> Done
            DELETE /store/ti/id/k -> Done
            DELETE /store/ti/id -> Done
            GET /store/asset/by-name/value?name=n&key=k -> Object("AssetStateStoreResult")
            GET /store/asset/by-uri/value?uri=u&key=k -> Object("AssetStateStoreResult")
            PUT /store/asset/by-name/value?name=n&key=k {"value":1} -> Done
            PUT /store/asset/by-uri/value?uri=u&key=k {"value":null} -> Done
            DELETE /store/asset/by-name/value?name=n&key=k -> Done
            DELETE /store/asset/by-uri/value?uri=u&key=k -> Done
            DELETE /store/asset/by-name/clear?name=n -> Done
            DELETE /store/asset/by-uri/clear?uri=u -> Done
            POST /hitlDetails/id {"body":null,"options":["a"],"subject":"s","ti_id":"id"} -> Object("HITLDetailRequestResult")
        "#);
    }
}
