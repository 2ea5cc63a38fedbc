//! Files on a volume, read for whoever shows the logs of finished tasks. Nothing is written here.

use std::collections::HashMap;

use executor_api::FoundFile;
use modal_api::{Creation, Depth, FileType, Volume};
use tokio::sync::Mutex;

use super::Error;
use super::calls::Calls;

/// One answer holds no more of a file.
const MOST_BYTES: u64 = 16 << 20;

/// The volumes found so far, by their names.
#[derive(Debug, Default)]
pub(super) struct Files {
    found: Mutex<HashMap<String, Volume>>,
}

impl Files {
    /// The files whose paths begin with `start`, sorted; its last part may be the beginning of a name.
    pub(super) async fn find(
        &self,
        calls: &Calls,
        volume: &str,
        start: &str,
    ) -> Result<Vec<FoundFile>, Error> {
        let start = checked(start)?;
        // Looked up each time: a volume that was made anew under its name is another one.
        self.found.lock().await.remove(volume);
        let volume = self.volume(calls, volume).await?;
        let folder = start.rsplit_once('/').map_or("", |(folder, _)| folder);
        let client = calls.client().await?;
        let entries = match client.volume_files(&volume, folder, Depth::Flat).await {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(source) => return Err(Error::file(folder, source)),
        };
        let mut files: Vec<FoundFile> = entries
            .into_iter()
            .filter(|entry| entry.kind == FileType::File)
            .map(|entry| FoundFile {
                path: entry.path.trim_start_matches('/').to_owned(),
                size: entry.size,
            })
            .filter(|file| file.path.starts_with(start))
            .collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    /// A part of a file: what it has after `start`, up to `length` bytes.
    pub(super) async fn read(
        &self,
        calls: &Calls,
        volume: &str,
        path: &str,
        (start, length): (u64, u64),
    ) -> Result<Vec<u8>, Error> {
        let path = checked(path)?;
        let volume = self.volume(calls, volume).await?;
        calls
            .client()
            .await?
            .volume_get_range(&volume, path, start, length.clamp(1, MOST_BYTES))
            .await
            .map(Into::into)
            .map_err(|source| Error::file(path, source))
    }

    async fn volume(&self, calls: &Calls, name: &str) -> Result<Volume, Error> {
        let mut found = self.found.lock().await;
        if let Some(volume) = found.get(name) {
            return Ok(volume.clone());
        }
        let volume = calls
            .client()
            .await?
            .volume_get_or_create(name, calls.environment(), Creation::Never, None)
            .await
            .map_err(Error::Volume)?;
        found.insert(name.to_owned(), volume.clone());
        Ok(volume)
    }
}

/// A path that leads nowhere but down. Ids of DAGs and runs are part of it, and `..` is a lawful id.
fn checked(path: &str) -> Result<&str, Error> {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\n']);
    if path.split('/').all(is_plain) {
        Ok(path)
    } else {
        Err(Error::Path(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn a_path_leads_only_down() {
        for path in [
            "attempt=1.log",
            "dag_id=a/run_id=..b/attempt=1.log",
            "a b/c",
        ] {
            assert!(checked(path).is_ok(), "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "a/./b",
            "a/",
            "a\nb",
            "a/\0",
        ] {
            assert!(checked(path).is_err(), "{path}");
        }
    }
}
