//! A deployed app changes: a function is left out, the number of containers is set, a version comes back. Containers are real ones.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ciborium::Value;
use emulator::{Config, Emulator, Stop};
use modal_api::{
    CODE_FOLDER, Client, Code, Definition, GenericStatus, ImageBuild, ImageLayer, MountOwner,
    Publication, Scaling, Upload,
    wire::{self, modal_client_client::ModalClientClient},
};
use tempfile::TempDir;
use tonic::{Request, transport::Channel};
use uuid::Uuid;

use crate::support::{LONG, client, config, modal_python, processes_in, result, stub, until};

const MODULE: &str = "
import os, pathlib, time

def work(what):
    if what:
        pathlib.Path(what).touch()
        while not os.path.exists(what + '.end'):
            time.sleep(0.02)
    return what
";

/// An app with functions of one container each.
struct App {
    folder: TempDir,
    emulator: Emulator,
    client: Client,
    app_id: String,
    /// Name to function id and definition id.
    functions: BTreeMap<String, (String, String)>,
}

impl App {
    async fn start(names: &[&str]) -> Option<Self> {
        let python = modal_python()?;
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            python: Some(python.into()),
            ..config(folder.path())
        };
        let emulator = Emulator::start(config).await.unwrap();
        let client = client(folder.path());
        let app_id = client
            .app_create("changes", "", BTreeMap::new())
            .await
            .unwrap();
        let environment = client.environment_get("").await.unwrap();
        let build = ImageBuild {
            app_id: &app_id,
            builder_version: &environment.image_builder_version,
            force_build: false,
            ignore_cache: false,
        };
        let layer = ImageLayer {
            commands: vec!["FROM debian:12-slim".to_owned()],
            ..Default::default()
        };
        let image = client.image_build(layer, build, &mut |_| ()).await.unwrap();
        let source = Upload::bytes(format!("{CODE_FOLDER}/changing.py"), MODULE);
        let source = client
            .mount_create(vec![source], MountOwner::App(&app_id))
            .await
            .unwrap();
        let mut functions = BTreeMap::new();
        for name in names {
            let code = Code::Python {
                module: "changing".to_owned(),
                name: "work".to_owned(),
            };
            let mut definition = Definition::new("changes", name, code, &image.image_id);
            definition.mount_ids = vec![client.mount_of_client().await.unwrap(), source.clone()];
            definition.scaling = Scaling {
                max_containers: Some(1),
                ..Default::default()
            };
            let handle = client
                .function_create(&app_id, &definition, None)
                .await
                .unwrap();
            let ids = (handle.function_id, handle.definition_id);
            functions.insert((*name).to_owned(), ids);
        }
        let app = Self {
            folder,
            emulator,
            client,
            app_id,
            functions,
        };
        app.publish(names).await;
        Some(app)
    }

    async fn publish(&self, names: &[&str]) {
        let functions = names
            .iter()
            .map(|name| ((*name).to_owned(), self.functions[*name].clone()));
        let publication = Publication {
            app_id: &self.app_id,
            name: "changes",
            functions: functions.collect(),
            ..Default::default()
        };
        self.client.app_publish(publication).await.unwrap();
    }

    async fn spawn(&self, name: &str, what: &str) -> modal_api::FunctionCall {
        let (args, kwargs) = (Value::Array(vec![what.into()]), Value::Map(Vec::new()));
        let (function_id, _) = &self.functions[name];
        self.client
            .spawn(function_id, args, kwargs, Uuid::new_v4())
            .await
            .unwrap()
    }

    async fn containers(&self) -> Vec<String> {
        let found = self.client.container_list(&self.app_id, "").await.unwrap();
        found.into_iter().map(|(task_id, _)| task_id).collect()
    }

    async fn stub(&self) -> ModalClientClient<Channel> {
        stub(self.folder.path()).await
    }

    async fn end(self) {
        let grace = Duration::ZERO;
        self.emulator.stop(Stop::Terminate { grace }).await.unwrap();
        assert_eq!(processes_in(self.folder.path()), Vec::<i32>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_left_out_leaves_no_container_and_no_waiting_call() {
    let Some(app) = App::start(&["kept", "dropped"]).await else {
        return;
    };
    let flag = app.folder.path().join("flag");
    let running = app.spawn("dropped", flag.to_str().unwrap()).await;
    until("the first call runs", || flag.exists()).await;
    let waiting = app.spawn("dropped", "").await;
    app.publish(&["kept"]).await;

    let ended = result(&app.client, &waiting).await;
    assert_eq!(
        (ended.status, ended.exception.as_str()),
        (
            GenericStatus::Terminated,
            "its function is no longer part of the app"
        )
    );
    assert_eq!(app.containers().await.len(), 1, "what runs may end");
    std::fs::write(flag.with_extension("end"), "").unwrap();
    let ended = result(&app.client, &running).await;
    assert_eq!(ended.status, GenericStatus::Success);
    let end = Instant::now() + LONG;
    while !app.containers().await.is_empty() {
        assert!(Instant::now() < end, "its container is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_containers_is_set_without_replacing_them() {
    let Some(app) = App::start(&["kept"]).await else {
        return;
    };
    let call = app.spawn("kept", "").await;
    result(&app.client, &call).await;
    let before = app.containers().await;
    let settings = wire::AutoscalerSettings {
        max_containers: Some(1),
        scaledown_window: Some(120),
        ..Default::default()
    };
    let request = wire::FunctionUpdateSchedulingParamsRequest {
        function_id: app.functions["kept"].0.clone(),
        settings: Some(settings),
    };
    app.stub()
        .await
        .function_update_scheduling_params(request)
        .await
        .unwrap();
    let call = app.spawn("kept", "").await;
    result(&app.client, &call).await;
    assert_eq!((before.len(), app.containers().await), (1, before));
    app.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_rollback_goes_back_once() {
    let Some(app) = App::start(&["one"]).await else {
        return;
    };
    app.publish(&["one"]).await;
    let mut stub = app.stub().await;
    for _ in 0..2 {
        let mut back = Request::new(wire::AppRollbackRequest {
            app_id: app.app_id.clone(),
            version: -1,
        });
        let mut over = Request::new(wire::AppRolloverRequest {
            app_id: app.app_id.clone(),
        });
        let key = |text: &'static str| text.parse().unwrap();
        back.metadata_mut()
            .insert(wire::IDEMPOTENCY_KEY, key("back"));
        over.metadata_mut()
            .insert(wire::IDEMPOTENCY_KEY, key("over"));
        let told = stub.app_rollback(back).await.unwrap().into_inner();
        assert!(told.deployed_at > 0.0);
        stub.app_rollover(over).await.unwrap();
    }
    let request = wire::AppDeploymentHistoryRequest {
        app_id: app.app_id.clone(),
    };
    let history = stub.app_deployment_history(request).await.unwrap();
    let history = history.into_inner().app_deployment_histories;
    let versions: Vec<_> = history
        .iter()
        .map(|one| (one.version, one.rollback_version))
        .collect();
    assert_eq!(versions, [(4, 0), (3, 1), (2, 0), (1, 0)]);

    let staged = wire::AppPublishRequest {
        app_id: app.app_id.clone(),
        staged: true,
        ..Default::default()
    };
    let refusal = stub.app_publish(staged).await.unwrap_err();
    assert_eq!(
        refusal.message(),
        "staged deployments are not there: this is modalflow's emulator"
    );
    app.end().await;
}
