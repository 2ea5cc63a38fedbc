//! What `create` would change on Modal, told before it is done: what is there is compared with what shall be.
//!
//! Contents of images, functions and Secrets can't be read back from Modal. Their fingerprints stand in the deployment's tag, which
//! `modal app history` shows.

use std::io::Read;
use std::path::PathBuf;

use modal_api::{Client, Creation};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::blueprint::{
    Blueprint, Content, FUNCTIONS, Layer, dict_name, secrets_name, volume_name, worker_secret_name,
};
use super::container::{AIRFLOW_UI, EXECUTION_API, SCHEDULER_TICK};
use super::error::Error;
use crate::executor::{RUN_TASK, function_name};
use crate::house::app_name;

/// The tag's first word; a change of the form of what is deployed changes it.
const TAG: &str = "modalflow1";

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) resource: &'static str,
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) why: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Create,
    Update,
    Keep,
}

/// What is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) app_id: Option<String>,
    /// Of its last deployment.
    pub(crate) tag: String,
    pub(crate) volume: bool,
    pub(crate) dict: bool,
    /// In the blueprint's order.
    pub(crate) secrets: Vec<bool>,
}

/// Of an image, of the functions and of the Secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    image: String,
    functions: String,
    secrets: String,
}

/// Whether anything is to be done.
pub(crate) fn is_idle(plan: &[Change]) -> bool {
    plan.iter().all(|change| change.action == Action::Keep)
}

/// Of an environment that is not there yet: its keys have not been made, and there is nothing to compare with.
pub(crate) fn first(name: &str, config: &environment::Config) -> Vec<Change> {
    let mut plan = vec![Change {
        resource: "environment",
        name: name.to_owned(),
        action: Action::Create,
        why: "keys on this machine, Airflow's tables in the database",
    }];
    let named = [
        ("app", app_name(name)),
        ("volume", volume_name(name)),
        ("dict", dict_name(name)),
        ("secret", secrets_name(name)),
        ("secret", worker_secret_name(name)),
        ("image", format!("of {}", app_name(name))),
    ];
    let functions = [SCHEDULER_TICK, RUN_TASK, EXECUTION_API, AIRFLOW_UI];
    let images = config.modal.images.keys();
    let functions = functions
        .map(str::to_owned)
        .into_iter()
        .chain(images.map(|image| function_name(RUN_TASK, Some(image))))
        .map(|function| ("function", function));
    plan.extend(
        named
            .into_iter()
            .chain(functions)
            .map(|(resource, name)| Change {
                resource,
                name,
                action: Action::Create,
                why: "the environment is new",
            }),
    );
    plan
}

/// Compares.
pub(crate) fn plan(blueprint: &Blueprint, wanted: &Fingerprint, there: &There) -> Vec<Change> {
    let before = Fingerprint::read(&there.tag);
    let line = |resource, name: &str, action, why| Change {
        resource,
        name: name.to_owned(),
        action,
        why,
    };
    let thing = |resource, name: &str, is_there| {
        if is_there {
            line(resource, name, Action::Keep, "")
        } else {
            line(resource, name, Action::Create, "it is not there")
        }
    };
    let part = |resource, name: &str, same: bool, what| match (&there.app_id, same) {
        (None, _) => line(resource, name, Action::Create, "the app is not deployed"),
        (Some(_), true) => line(resource, name, Action::Keep, ""),
        (Some(_), false) => line(resource, name, Action::Update, what),
    };
    let same = |part: fn(&Fingerprint) -> &str| {
        before
            .as_ref()
            .is_some_and(|before| part(before) == part(wanted))
    };
    let mut plan = vec![
        thing("app", &blueprint.app, there.app_id.is_some()),
        thing("volume", &blueprint.volume, there.volume),
        thing("dict", &blueprint.dict, there.dict),
    ];
    for (secret, is_there) in blueprint.secrets.iter().zip(&there.secrets) {
        plan.push(match (*is_there, same(|print| &print.secrets)) {
            (false, _) => line("secret", &secret.name, Action::Create, "it is not there"),
            (true, true) => line("secret", &secret.name, Action::Keep, ""),
            (true, false) => line("secret", &secret.name, Action::Update, "its values differ"),
        });
    }
    plan.push(part(
        "image",
        &blueprint.image.base,
        same(|print| &print.image),
        "its layers differ",
    ));
    for function in &blueprint.functions {
        let same = same(|print| &print.functions) && same(|print| &print.image);
        plan.push(part(
            "function",
            &function.name,
            same,
            "its definition differs",
        ));
    }
    plan
}

impl There {
    /// Looks.
    pub(crate) async fn look(client: &Client, blueprint: &Blueprint) -> Result<Self, Error> {
        let environment = &blueprint.environment;
        let app_id = client.app_find(&blueprint.app, environment).await?;
        let tag = match &app_id {
            Some(app_id) => client
                .app_history(app_id)
                .await?
                .into_iter()
                .max_by_key(|deployment| deployment.version)
                .map(|newest| newest.tag)
                .unwrap_or_default(),
            None => String::new(),
        };
        let volume = client
            .volume_get_or_create(&blueprint.volume, environment, Creation::Never, None)
            .await;
        let dict = client
            .dict_get_or_create(&blueprint.dict, environment, Creation::Never)
            .await;
        let mut secrets = Vec::new();
        for secret in &blueprint.secrets {
            secrets.push(found(
                client.secret_find(&secret.name, environment, &[]).await,
            )?);
        }
        Ok(Self {
            app_id,
            tag,
            volume: found(volume)?,
            dict: found(dict)?,
            secrets,
        })
    }
}

/// Whether a look-up found something; that it found nothing is no error.
fn found<T>(looked_up: Result<T, modal_api::Error>) -> Result<bool, Error> {
    match looked_up {
        Ok(_) => Ok(true),
        Err(modal_api::Error::Missing { .. } | modal_api::Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Fingerprint {
    /// Of what shall be. Reads the files that go into the image.
    pub(crate) fn of(blueprint: &Blueprint) -> Result<Self, Error> {
        let mut image = Sha256::new();
        image.update(&blueprint.image.base);
        for layer in &blueprint.image.layers {
            match layer {
                Layer::NoEntrypoint => image.update(b"\0entrypoint"),
                Layer::Run(commands) => image.update(format!("\0run {commands:?}")),
                Layer::Copy { file, to } => {
                    image.update(format!("\0copy {to} {:o} ", file.mode));
                    match &file.content {
                        Content::Text(text) => image.update(Sha256::digest(text)),
                        Content::At(path) => image.update(hash_of_file(path)?),
                    }
                }
            }
        }
        image.update(format!("{:?}", blueprint.images));
        let mut functions = Sha256::new();
        functions.update(FUNCTIONS);
        functions.update(format!("{:?}", blueprint.functions));
        let mut secrets = Sha256::new();
        for secret in &blueprint.secrets {
            secrets.update(format!("{} {:?}\0", secret.name, secret.values));
        }
        Ok(Self {
            image: short(image),
            functions: short(functions),
            secrets: short(secrets),
        })
    }

    /// As a deployment's tag.
    pub(crate) fn tag(&self) -> String {
        format!("{TAG}-{}-{}-{}", self.image, self.functions, self.secrets)
    }

    fn read(tag: &str) -> Option<Self> {
        let mut parts = tag.strip_prefix(TAG)?.strip_prefix('-')?.split('-');
        Some(Self {
            image: parts.next()?.to_owned(),
            functions: parts.next()?.to_owned(),
            secrets: parts.next()?.to_owned(),
        })
    }
}

fn short(hash: Sha256) -> String {
    hash.finalize()[..5]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn hash_of_file(path: &PathBuf) -> Result<[u8; 32], Error> {
    let failed = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&chunk[..count]),
        }
    }
}
