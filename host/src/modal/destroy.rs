//! Taking an environment away from Modal again. What is gone already is no error: a second try completes a first one.

use modal_api::{Client, Creation};

use super::blueprint::{dict_name, secrets_name, volume_name, worker_secret_name};
use super::error::Error;
use crate::house::app_name;

/// Stops the app first, so that nobody works with what goes after it. Answers a line for each thing.
pub(crate) async fn destroy(
    client: &Client,
    name: &str,
    environment: &str,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    let app = app_name(name);
    if let Some(app_id) = client.app_find(&app, environment).await? {
        client
            .app_stop(&app_id)
            .await
            .map_err(Error::at(format!("stop app {app}")))?;
        lines.push(format!("stopped app {app}"));
    }
    let volume = volume_name(name);
    let found = client
        .volume_get_or_create(&volume, environment, Creation::Never, None)
        .await;
    if let Some(found) = there(found)? {
        client
            .volume_delete(&found.volume_id)
            .await
            .map_err(Error::at(format!("delete volume {volume}")))?;
        lines.push(format!("deleted volume {volume}: DAGs, logs, XComs"));
    }
    let dict = dict_name(name);
    let found = client
        .dict_get_or_create(&dict, environment, Creation::Never)
        .await;
    if let Some(dict_id) = there(found)? {
        client
            .dict_delete(&dict_id)
            .await
            .map_err(Error::at(format!("delete dict {dict}")))?;
        lines.push(format!("deleted dict {dict}"));
    }
    for secret in [secrets_name(name), worker_secret_name(name)] {
        let found = client.secret_find(&secret, environment, &[]).await;
        if let Some(secret_id) = there(found)? {
            client
                .secret_delete(&secret_id)
                .await
                .map_err(Error::at(format!("delete secret {secret}")))?;
            lines.push(format!("deleted secret {secret}"));
        }
    }
    Ok(lines)
}

fn there<T>(found: Result<T, modal_api::Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(modal_api::Error::Missing { .. } | modal_api::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
