//! An environment on Modal, seen from the machine of whoever works with it: its files are the volume's, of which a copy is kept
//! here, and its ticks are calls.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use environment::state::State;
use environment::{Environment, Placement};
use futures::{StreamExt, TryStreamExt};
use modal_api::{
    Client, Config, Creation, Depth, FileType, Overwrite, Upload, Volume, VolumeEntry,
};
use uuid::Uuid;

use super::blueprint::volume_name;
use super::container::SCHEDULER_TICK;
use super::error::Error;
use crate::executor::{Deployed, Executor};
use crate::house::app_name;

/// Files that are fetched at once.
const FETCHES: usize = 8;

/// Modal, for one environment.
pub(crate) struct Remote {
    pub(crate) client: Client,
    /// Modal's environment; empty is the default one.
    pub(crate) environment: String,
    name: String,
    volume: Option<Volume>,
}

/// The client that the user's settings name, and Modal's environment if they name one.
pub(crate) async fn connect(config: &environment::Config) -> Result<(Client, String), Error> {
    let settings = Config::load()?;
    let client = client(&settings, Some(config)).await?;
    let environment = named(settings, Some(config));
    Ok((client, environment))
}

/// The same for what is deployed: it is where it was deployed, whatever the settings name today.
pub(crate) async fn reach(
    state: &State,
    config: Option<&environment::Config>,
) -> Result<(Client, String), Error> {
    let settings = Config::load()?;
    let client = client(&settings, config).await?;
    let there = state.modal_environment.clone();
    Ok((client, there.unwrap_or_else(|| named(settings, config))))
}

async fn client(settings: &Config, config: Option<&environment::Config>) -> Result<Client, Error> {
    if let Some(connection) = config.and_then(|config| config.connection_string.as_ref())
        && connection.is_local()
        && !settings.servers.iter().all(modal_api::ServerUrl::is_local)
    {
        return Err(Error::LocalDatabase {
            place: connection.place(),
        });
    }
    let client = Client::open(settings).await?;
    client.hello().await?;
    Ok(client)
}

fn named(settings: Config, config: Option<&environment::Config>) -> String {
    match config.map(|config| config.modal.environment.as_str()) {
        None | Some("") => settings.environment,
        Some(named) => named.to_owned(),
    }
}

/// Where to deploy to, by its name. What is deployed stays in its environment.
pub(crate) async fn choose(
    client: &Client,
    name: &str,
    named: &str,
    state: Option<&State>,
) -> Result<String, Error> {
    let there = state.and_then(|state| state.modal_environment.as_deref());
    if let Some(there) = there
        && named.is_empty()
    {
        return Ok(there.to_owned());
    }
    let wanted = client.environment_get(named).await?.name;
    match there {
        Some(there) if there != wanted => Err(Error::Elsewhere {
            name: name.to_owned(),
            there: there.to_owned(),
            wanted,
        }),
        _ => Ok(wanted),
    }
}

impl Remote {
    /// Modal, if that is where the environment is.
    pub(crate) async fn of(environment: &Environment) -> Result<Option<Self>, Error> {
        if environment.container().is_some() || environment.config().placement == Placement::Local {
            return Ok(None);
        }
        if environment.state().modal.is_none() {
            return Err(Error::NotDeployed {
                name: environment.name().to_owned(),
            });
        }
        let (client, modal_environment) =
            reach(environment.state(), Some(environment.config())).await?;
        Ok(Some(Self {
            client,
            environment: modal_environment,
            name: environment.name().to_owned(),
            volume: None,
        }))
    }

    /// The caller's side of the app.
    pub(crate) fn executor(&self) -> Executor {
        let deployed = Deployed {
            app: app_name(&self.name),
            environment: self.environment.clone(),
            ..Deployed::default()
        };
        Executor::new(self.client.clone(), deployed)
    }

    /// Asks for a tick; it begins when a container is there.
    pub(crate) async fn tick(&self) -> Result<String, crate::executor::Error> {
        self.executor()
            .call_plainly(SCHEDULER_TICK, Uuid::new_v4())
            .await
    }

    async fn volume(&mut self) -> Result<Volume, Error> {
        if let Some(volume) = &self.volume {
            return Ok(volume.clone());
        }
        let name = volume_name(&self.name);
        let volume = self
            .client
            .volume_get_or_create(&name, &self.environment, Creation::Never, None)
            .await?;
        Ok(self.volume.insert(volume).clone())
    }

    /// Makes the folder `of` below `root` what it is on the volume.
    pub(crate) async fn mirror(&mut self, root: &Path, of: &str) -> Result<(), Error> {
        let there = self.fetch(root, of).await?;
        for path in files_below(&root.join(of)) {
            if !there.contains(&path) {
                std::fs::remove_file(&path).map_err(|source| Error::Read { path, source })?;
            }
        }
        Ok(())
    }

    /// Fetches what has changed below the path `of`; answers all files that are there.
    pub(crate) async fn fetch(
        &mut self,
        root: &Path,
        of: &str,
    ) -> Result<BTreeSet<PathBuf>, Error> {
        let volume = self.volume().await?;
        let listed = self
            .client
            .volume_files(&volume, of, Depth::Recursive)
            .await;
        let entries = match listed {
            Ok(entries) => entries,
            Err(modal_api::Error::NotFound(_) | modal_api::Error::Missing { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let files: Vec<(PathBuf, VolumeEntry)> = entries
            .into_iter()
            .filter(|entry| entry.kind == FileType::File && !entry.path.contains("__pycache__"))
            .filter_map(|entry| Some((below(root, &entry.path)?, entry)))
            .collect();
        let paths = files.iter().map(|(path, _)| path.clone()).collect();
        let (client, volume) = (&self.client, &volume);
        futures::stream::iter(files)
            .filter(|(path, entry)| std::future::ready(differs(path, entry)))
            .map(|(path, entry)| async move {
                let bytes = client.volume_get(volume, &entry.path).await?;
                keep(&path, &bytes, modified(&entry)).map_err(|source| Error::Read { path, source })
            })
            .buffer_unordered(FETCHES)
            .try_collect::<()>()
            .await?;
        Ok(paths)
    }

    /// Puts files of the folder `root` on the volume, at the same paths.
    pub(crate) async fn put(&mut self, root: &Path, files: &[PathBuf]) -> Result<(), Error> {
        let volume = self.volume().await?;
        let mut uploads = Vec::new();
        for path in files {
            let remote = path.strip_prefix(root).unwrap_or(path);
            uploads.push(Upload::file(remote.to_string_lossy(), root.join(path))?);
        }
        self.client
            .volume_put(&volume, uploads, Overwrite::Allowed)
            .await?;
        Ok(())
    }

    /// Removes a file from the volume.
    pub(crate) async fn remove(&mut self, path: &str) -> Result<(), Error> {
        let volume = self.volume().await?;
        self.client
            .volume_remove(&volume, path, Depth::Flat)
            .await?;
        Ok(())
    }
}

/// A path of the volume below a folder of ours; none for one that would lead elsewhere.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| root.join(relative))
}

/// Whether our copy is another one. Copies carry the time of what they were made from.
fn differs(path: &Path, entry: &VolumeEntry) -> bool {
    let Ok(here) = path.metadata() else {
        return true;
    };
    here.len() != entry.size || here.modified().ok() != modified(entry)
}

/// In whole seconds: the volume's clock may be finer than what it tells.
fn modified(entry: &VolumeEntry) -> Option<SystemTime> {
    let seconds = u64::try_from(entry.modified_at?.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Writes a copy, whole or not at all.
fn keep(path: &Path, bytes: &[u8], modified: Option<SystemTime>) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{:08x}", rand::random::<u32>()));
    std::fs::write(&beside, bytes)?;
    if let Some(modified) = modified {
        std::fs::File::options()
            .write(true)
            .open(&beside)?
            .set_modified(modified)?;
    }
    std::fs::rename(beside, path)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::below;

    #[test]
    fn no_path_of_a_volume_leads_out_of_our_copy() {
        let told = ["dags/a.py", "/dags/a.py", "../a", "dags/../../a", ""]
            .map(|path| format!("{path:?} {:?}", below(Path::new("/copy"), path)));
        insta::assert_snapshot!(told.join("\n"), @r#"
        "dags/a.py" Some("/copy/dags/a.py")
        "/dags/a.py" Some("/copy/dags/a.py")
        "../a" None
        "dags/../../a" None
        "" Some("/copy/")
        "#);
    }
}
