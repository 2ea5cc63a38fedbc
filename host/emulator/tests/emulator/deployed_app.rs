//! An app whose functions run in real containers, to be changed and restarted.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use ciborium::Value;
use emulator::{Config, Emulator, Stop};
use modal_api::{
    CODE_FOLDER, Client, Code, Definition, ImageBuild, ImageLayer, LogFilter, MountOwner,
    Publication, Scaling, Upload,
    wire::{self, modal_client_client::ModalClientClient},
};
use tempfile::TempDir;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::support::{LONG, client, config, modal_python, processes_in, stub, until};

const MODULE: &str = "
import os, pathlib, time

def work(what):
    if what:
        pathlib.Path(what).touch()
        while not os.path.exists(what + '.end'):
            time.sleep(0.02)
    return what
";

/// An app with functions of one container each, unless they are scaled.
pub(crate) struct App {
    pub(crate) folder: TempDir,
    emulator: Emulator,
    pub(crate) client: Client,
    pub(crate) app_id: String,
    /// Name to function id and definition id.
    pub(crate) functions: BTreeMap<String, (String, String)>,
}

impl App {
    pub(crate) async fn start(names: &[&str]) -> Option<Self> {
        Self::start_with(names, MODULE).await
    }

    /// The module has a function `work` that takes one text.
    pub(crate) async fn start_with(names: &[&str], module: &'static str) -> Option<Self> {
        modal_python()?;
        let folder = tempfile::tempdir().unwrap();
        let emulator = Emulator::start(own_config(folder.path())).await.unwrap();
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
        let source = Upload::bytes(format!("{CODE_FOLDER}/changing.py"), module);
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

    pub(crate) async fn publish(&self, names: &[&str]) {
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

    pub(crate) async fn spawn(&self, name: &str, what: &str) -> modal_api::FunctionCall {
        let (args, kwargs) = (Value::Array(vec![what.into()]), Value::Map(Vec::new()));
        let (function_id, _) = &self.functions[name];
        self.client
            .spawn(function_id, args, kwargs, Uuid::new_v4())
            .await
            .unwrap()
    }

    /// A call that runs until [`Self::release`], once it runs.
    pub(crate) async fn hold(&self, name: &str, what: &str) -> modal_api::FunctionCall {
        let flag = self.flag(what);
        let call = self.spawn(name, flag.to_str().unwrap()).await;
        until("the call runs", || flag.exists()).await;
        call
    }

    pub(crate) fn flag(&self, what: &str) -> PathBuf {
        self.folder.path().join(what)
    }

    pub(crate) fn release(&self, what: &str) {
        std::fs::write(self.flag(what).with_extension("end"), "").unwrap();
    }

    pub(crate) async fn scale(&self, name: &str, settings: wire::AutoscalerSettings) {
        let request = wire::FunctionUpdateSchedulingParamsRequest {
            function_id: self.functions[name].0.clone(),
            settings: Some(settings),
        };
        let mut stub = self.stub().await;
        stub.function_update_scheduling_params(request)
            .await
            .unwrap();
    }

    /// The newest first.
    pub(crate) async fn containers(&self) -> Vec<String> {
        let found = self.client.container_list(&self.app_id, "").await.unwrap();
        found.into_iter().map(|(task_id, _)| task_id).collect()
    }

    pub(crate) async fn until_containers(&self, wanted: &[String]) {
        let end = Instant::now() + LONG;
        loop {
            let found = self.containers().await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < end, "{found:?} instead of {wanted:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All that its log holds.
    pub(crate) async fn logs(&self) -> String {
        let now = Utc::now();
        let past = self
            .client
            .logs_fetch(
                &self.app_id,
                LogFilter::default(),
                now - TimeDelta::hours(1),
                now + TimeDelta::hours(1),
                1000,
            )
            .await
            .unwrap();
        past.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// The emulator is gone as after `kill -9`, and there is another one: containers live on.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(|_| ()).await
    }

    pub(crate) async fn restart_after(self, meanwhile: impl FnOnce(&Path)) -> Self {
        let Self {
            folder, emulator, ..
        } = self;
        drop(emulator);
        meanwhile(folder.path());
        let end = Instant::now() + LONG;
        let emulator = loop {
            // What was under way holds the state for a moment.
            match Emulator::start(own_config(folder.path())).await {
                Ok(emulator) => break emulator,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self {
            client: client(folder.path()),
            folder,
            emulator,
            app_id: self.app_id,
            functions: self.functions,
        }
    }

    pub(crate) async fn stub(&self) -> ModalClientClient<Channel> {
        stub(self.folder.path()).await
    }

    pub(crate) async fn end(self) {
        let grace = Duration::ZERO;
        self.emulator.stop(Stop::Terminate { grace }).await.unwrap();
        assert_eq!(processes_in(self.folder.path()), Vec::<i32>::new());
    }
}

fn own_config(folder: &Path) -> Config {
    Config {
        python: modal_python().map(PathBuf::from),
        ..config(folder)
    }
}
