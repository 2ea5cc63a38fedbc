//! The plugins of an environment, each with the grants it gets.

use std::sync::Arc;

use environment::Environment;
use plugin_host::{
    DagValidator, Error, Grants, HostConfig, LogHandler, PluginHost, Source, XcomBackend,
};
use serde_json::json;

/// The wasmtime engine with the cache of compiled components; one for a process.
pub(crate) fn host(environment: &Environment) -> Result<PluginHost, Error> {
    PluginHost::new(HostConfig {
        cache_dir: environment.home().plugins_cache(),
        spool_dir: environment.run_dir().join("spool"),
    })
}

/// What keeps XComs: files on the volume, small values in Postgres.
pub(crate) async fn xcom_backend(
    host: &PluginHost,
    environment: &Environment,
) -> Result<Arc<dyn XcomBackend>, Error> {
    let grants = Grants::default().with_store("xcom", environment.xcom_dir());
    host.load(
        Source::Builtin("volume-xcom"),
        xcom_settings(environment),
        grants,
    )
    .await?
    .xcom_backend()
}

/// The settings of `volume-xcom`, the same in the host and in the worker.
pub(crate) fn xcom_settings(environment: &Environment) -> serde_json::Value {
    let config = environment.config();
    json!({"inline_bytes": config.xcom_inline_bytes, "max_bytes": config.xcom_max_bytes})
}

/// What keeps logs: Airflow's FileTaskHandler layout on the volume. Commands only read.
pub(crate) async fn log_handler(
    host: &PluginHost,
    environment: &Environment,
) -> Result<Arc<dyn LogHandler>, Error> {
    let grants = Grants::default().with_store("logs", environment.logs_dir());
    host.load(Source::Builtin("file-task-handler"), json!({}), grants)
        .await?
        .log_handler()
}

/// What checks DAGs before they are taken in.
pub(crate) async fn dag_validator(host: &PluginHost) -> Result<Arc<dyn DagValidator>, Error> {
    host.load(Source::Builtin("dag-rules"), json!({}), Grants::default())
        .await?
        .dag_validator()
}
