//! The Python that runs deployed functions: found, and asked who it is.

use std::{path::Path, process::Stdio};

use tokio::process::Command;

use crate::{Error, deployed::Python, ground};

const QUESTION: &str = "import sys, modal; print(sys.executable); print('.'.join(map(str, sys.version_info[:3]))); print(modal.__version__)";

/// Starts it once. It must have the official client of the version that we speak.
pub(crate) async fn look_at(path: &Path) -> Result<Python, Error> {
    let refuse = |reason: String| Error::Python {
        path: path.to_owned(),
        reason,
    };
    let output = Command::new(path)
        .args(["-c", QUESTION])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| refuse(error.to_string()))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(refuse(
            told.lines().last().unwrap_or("it failed").to_owned(),
        ));
    }
    let told = String::from_utf8_lossy(&output.stdout);
    let mut lines = told.lines();
    let (Some(executable), Some(version), Some(client)) =
        (lines.next(), lines.next(), lines.next())
    else {
        return Err(refuse("it did not say who it is".to_owned()));
    };
    if client != modal_api::CLIENT_VERSION {
        tracing::warn!(
            client,
            known = modal_api::CLIENT_VERSION,
            "containers run another version of modal than the one that is known to work"
        );
    }
    let isolates = tokio::task::spawn_blocking(ground::isolates)
        .await
        .unwrap_or(false);
    if !isolates {
        tracing::warn!(
            "this machine makes no namespaces: containers find their files and volumes below MODALFLOW_CONTAINER_FILES, not at absolute paths"
        );
    }
    Ok(Python {
        path: executable.into(),
        version: version.to_owned(),
        isolates,
    })
}
