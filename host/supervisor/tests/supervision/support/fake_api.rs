//! An Execution API in memory that behaves as Airflow's does where a worker can see it. It remembers every request.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};

/// What the server knows.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) task_instances: HashMap<String, TaskInstance>,
    /// `(run_id, task_id, map_index, key)` to the stored form.
    pub(crate) xcoms: BTreeMap<(String, String, i32, String), Value>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) requests: Vec<Recorded>,
}

#[derive(Clone, Default)]
pub(crate) struct TaskInstance {
    pub(crate) state: String,
    pub(crate) should_retry: bool,
    pub(crate) xcom_keys_to_clear: Vec<String>,
    pub(crate) run_answer: Option<(u16, Value)>,
    pub(crate) heartbeat_answer: Option<(u16, Value)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
    pub(crate) bytes: usize,
    pub(crate) headers: http::HeaderMap,
}

/// A server that can go away and come back.
pub(crate) struct FakeApi {
    pub(crate) world: Arc<Mutex<World>>,
    address: SocketAddr,
    serving: Mutex<Option<tokio::runtime::Runtime>>,
}

impl FakeApi {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Self {
            world: Arc::default(),
            address: listener.local_addr().unwrap(),
            serving: Mutex::default(),
        };
        api.serve(listener);
        api
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/execution/", self.address)
    }

    /// Drops all connections and listens no more.
    pub(crate) fn go_away(&self) {
        if let Some(runtime) = self.serving.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn come_back(&self) {
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        self.serve(listener);
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// `METHOD path` of what was asked for a task instance and about XComs, DAG runs and so on, in order.
    pub(crate) fn requests(&self, wanted: impl Fn(&Recorded) -> bool) -> Vec<Recorded> {
        self.world()
            .requests
            .iter()
            .filter(|request| wanted(request))
            .cloned()
            .collect()
    }

    fn serve(&self, listener: TcpListener) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&self.world));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
        *self.serving.lock().unwrap() = Some(runtime);
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.go_away();
    }
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = decode(head.uri.path().strip_prefix("/execution").unwrap());
    let query = decode(head.uri.query().unwrap_or(""));
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let recorded = Recorded {
        method: head.method.to_string(),
        path: path.clone(),
        query: query.clone(),
        body: json.clone(),
        bytes: body.len(),
        headers: head.headers,
    };
    let mut world = world.lock().unwrap();
    world.requests.push(recorded);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (status, answer, extra) = route(&mut world, head.method.as_str(), &parts, &query, json);
    let mut response = Response::builder().status(status);
    for (name, value) in extra {
        response = response.header(name, value);
    }
    if answer == Value::Null && status == 204 {
        return response.body(Body::empty()).unwrap();
    }
    response
        .header("content-type", "application/json")
        .body(Body::from(answer.to_string()))
        .unwrap()
}

type Answer = (u16, Value, Vec<(&'static str, String)>);

fn plain(status: u16, body: Value) -> Answer {
    (status, body, Vec::new())
}

fn route(world: &mut World, method: &str, parts: &[&str], query: &str, body: Value) -> Answer {
    match (method, parts) {
        ("PATCH", ["task-instances", id, "run"]) => run(world, id),
        ("PUT", ["task-instances", id, "heartbeat"]) => heartbeat(world, id),
        ("PATCH", ["task-instances", id, "state"]) => state(world, id, &body),
        ("PUT", ["task-instances", _, "rtif"]) => plain(201, json!({"message": "set"})),
        ("PATCH", ["task-instances", ..]) => plain(204, Value::Null),
        ("GET", ["connections", "db"]) => plain(
            200,
            json!({"conn_id": "db", "conn_type": "postgres", "host": "h", "schema": "s", "login": "l", "password": "pass-w0rd", "port": 1, "extra": null}),
        ),
        ("GET", ["variables", "keys"]) => {
            let keys: Vec<_> = world.variables.keys().cloned().collect();
            plain(200, json!({"keys": keys, "total_entries": keys.len()}))
        }
        ("GET", ["variables", key @ ..]) => match world.variables.get(&key.join("/")) {
            Some(value) => plain(200, json!({"key": key.join("/"), "value": value})),
            None => plain(
                404,
                json!({"detail": {"reason": "not_found", "message": "no such variable"}}),
            ),
        },
        ("PUT", ["variables", key @ ..]) => {
            world
                .variables
                .insert(key.join("/"), body["val"].as_str().unwrap().to_owned());
            plain(201, json!({"message": "set"}))
        }
        ("DELETE", ["variables", key @ ..]) => {
            world.variables.remove(&key.join("/"));
            plain(204, Value::Null)
        }
        ("POST", ["dag-runs", ..]) => plain(204, Value::Null),
        (_, ["xcoms", _, run_id, task_id, key @ ..]) => {
            xcom(world, method, run_id, task_id, key, query, body)
        }
        _ => plain(404, json!({"detail": "Not Found"})),
    }
}

fn run(world: &mut World, id: &str) -> Answer {
    let Some(ti) = world.task_instances.get_mut(id) else {
        return plain(
            404,
            json!({"detail": {"reason": "not_found", "message": "Task Instance not found"}}),
        );
    };
    if let Some((status, body)) = &ti.run_answer {
        return plain(*status, body.clone());
    }
    "running".clone_into(&mut ti.state);
    let time = "2024-01-01T00:00:00Z";
    let context = json!({
        "dag_run": {
            "dag_id": "trial", "run_id": "run 1", "logical_date": time, "data_interval_start": time, "data_interval_end": time,
            "run_after": time, "start_date": time, "end_date": null, "clear_number": 0, "run_type": "manual", "state": "running",
            "conf": {}, "triggering_user_name": null, "consumed_asset_events": [], "partition_key": null, "partition_date": null,
            "note": null, "team_name": null,
        },
        "task_reschedule_count": 0, "max_tries": 0, "variables": [], "connections": [],
        "xcom_keys_to_clear": ti.xcom_keys_to_clear, "should_retry": ti.should_retry,
    });
    (
        200,
        context,
        vec![("Refreshed-API-Token", format!("execution token of {id}"))],
    )
}

fn heartbeat(world: &World, id: &str) -> Answer {
    match world
        .task_instances
        .get(id)
        .map(|ti| ti.heartbeat_answer.clone())
    {
        Some(None) => plain(204, Value::Null),
        Some(Some((status, body))) => plain(status, body),
        None => plain(404, json!({"detail": {"reason": "not_found"}})),
    }
}

fn state(world: &mut World, id: &str, body: &Value) -> Answer {
    let Some(ti) = world.task_instances.get_mut(id) else {
        return plain(404, json!({"detail": {"reason": "not_found"}}));
    };
    let wanted = body["state"].as_str().unwrap();
    if ti.state == wanted {
        return plain(200, Value::Null);
    }
    if ti.state != "running" {
        return plain(
            409,
            json!({"detail": {"reason": "invalid_state", "previous_state": ti.state}}),
        );
    }
    wanted.clone_into(&mut ti.state);
    plain(204, Value::Null)
}

fn xcom(
    world: &mut World,
    method: &str,
    run_id: &str,
    task_id: &str,
    key: &[&str],
    query: &str,
    body: Value,
) -> Answer {
    let map_index = query
        .split('&')
        .find_map(|part| part.strip_prefix("map_index="))
        .map_or(-1, |index| index.parse().unwrap());
    let rows = |world: &World, key: &str| -> Vec<Value> {
        let of_key = |(run, task, _, name): &(String, String, i32, String)| {
            run == run_id && task == task_id && name == key
        };
        world
            .xcoms
            .iter()
            .filter(|(at, _)| of_key(at))
            .map(|((.., map_index, _), value)| located(run_id, *map_index, value))
            .collect()
    };
    let not_found = || {
        plain(
            404,
            json!({"detail": {"reason": "not_found", "message": "XCom not found"}}),
        )
    };
    let address = |key: &str| {
        (
            run_id.to_owned(),
            task_id.to_owned(),
            map_index,
            key.to_owned(),
        )
    };
    match (method, key) {
        ("GET", [key @ .., "slice"]) => plain(200, Value::Array(rows(world, &key.join("/")))),
        ("GET", [key @ .., "item", offset]) => {
            let rows = rows(world, &key.join("/"));
            offset
                .parse()
                .ok()
                .and_then(|offset: usize| rows.get(offset).cloned())
                .map_or_else(not_found, |row| plain(200, row))
        }
        ("GET", key) => match world.xcoms.get(&address(&key.join("/"))) {
            Some(value) => plain(
                200,
                json!({"key": key.join("/"), "value": located(run_id, map_index, value)}),
            ),
            None => not_found(),
        },
        ("HEAD", key) => (
            200,
            Value::Null,
            vec![(
                "Content-Range",
                format!("map_indexes {}", rows(world, &key.join("/")).len()),
            )],
        ),
        ("POST", key) => {
            world.xcoms.insert(address(&key.join("/")), body);
            plain(201, json!({"message": "XCom successfully set"}))
        }
        ("DELETE", key) => {
            world.xcoms.remove(&address(&key.join("/")));
            plain(200, json!({"message": "deleted"}))
        }
        _ => plain(405, json!({"detail": "Method Not Allowed"})),
    }
}

fn located(run_id: &str, map_index: i32, value: &Value) -> Value {
    json!({"run_id": run_id, "map_index": map_index, "value": value})
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}
