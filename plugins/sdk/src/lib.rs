//! Write plugins for modalflow: bindings of `modalflow:plugin@0.1.0` and what every plugin needs.
//!
//! A plugin is a `cdylib` for `wasm32-unknown-unknown` that names one feature of this crate, implements the two traits of that
//! module, and exports them:
//!
//! ```ignore
//! use modalflow_plugin::xcom_backend::{export, plugin, xcom};
//!
//! struct Mine;
//! impl plugin::Guest for Mine { … }
//! impl xcom::Guest for Mine { … }
//! export!(Mine);
//! ```

#[cfg(any(
    all(feature = "xcom-backend", feature = "log-handler"),
    all(feature = "xcom-backend", feature = "dag-validator"),
    all(feature = "log-handler", feature = "dag-validator"),
))]
compile_error!(
    "a plugin is one of xcom-backend, log-handler, dag-validator; build the plugins of a workspace one by one (-p NAME)"
);

mod bindings {
    #![allow(unsafe_code)]
    wit_bindgen::generate!({ path: "../../wit", world: "imports" });
}
mod panic;
mod payload;

pub use bindings::modalflow::plugin::{
    bytes, clock, dags, logging, object_store, random, settings, types,
};
pub use payload::PayloadExt;
pub use types::{Error, TaskKey};

use serde::de::DeserializeOwned;

/// Bindings of `xcom-backend-plugin`.
#[cfg(feature = "xcom-backend")]
pub mod xcom_backend {
    #[doc(hidden)]
    pub mod bindings {
        #![allow(unsafe_code)]
        wit_bindgen::generate!({
            path: "../../wit",
            world: "xcom-backend-plugin",
            pub_export_macro: true,
            export_macro_name: "export_xcom_backend",
            default_bindings_module: "modalflow_plugin::xcom_backend::bindings",
            with: {
                "modalflow:plugin/types@0.1.0": crate::types,
                "modalflow:plugin/bytes@0.1.0": crate::bytes,
                "modalflow:plugin/settings@0.1.0": crate::settings,
                "modalflow:plugin/logging@0.1.0": crate::logging,
                "modalflow:plugin/clock@0.1.0": crate::clock,
                "modalflow:plugin/random@0.1.0": crate::random,
                "modalflow:plugin/object-store@0.1.0": crate::object_store,
            },
        });
    }
    pub use bindings::export_xcom_backend as export;
    pub use bindings::exports::modalflow::plugin::{plugin, xcom_backend as xcom};
}

/// Bindings of `log-handler-plugin`.
#[cfg(feature = "log-handler")]
pub mod log_handler {
    #[doc(hidden)]
    pub mod bindings {
        #![allow(unsafe_code)]
        wit_bindgen::generate!({
            path: "../../wit",
            world: "log-handler-plugin",
            pub_export_macro: true,
            export_macro_name: "export_log_handler",
            default_bindings_module: "modalflow_plugin::log_handler::bindings",
            with: {
                "modalflow:plugin/types@0.1.0": crate::types,
                "modalflow:plugin/bytes@0.1.0": crate::bytes,
                "modalflow:plugin/settings@0.1.0": crate::settings,
                "modalflow:plugin/logging@0.1.0": crate::logging,
                "modalflow:plugin/clock@0.1.0": crate::clock,
                "modalflow:plugin/random@0.1.0": crate::random,
                "modalflow:plugin/object-store@0.1.0": crate::object_store,
            },
        });
    }
    pub use bindings::export_log_handler as export;
    pub use bindings::exports::modalflow::plugin::{log_handler as log, plugin};
}

/// Bindings of `dag-validator-plugin`.
#[cfg(feature = "dag-validator")]
pub mod dag_validator {
    #[doc(hidden)]
    pub mod bindings {
        #![allow(unsafe_code)]
        wit_bindgen::generate!({
            path: "../../wit",
            world: "dag-validator-plugin",
            pub_export_macro: true,
            export_macro_name: "export_dag_validator",
            default_bindings_module: "modalflow_plugin::dag_validator::bindings",
            with: {
                "modalflow:plugin/types@0.1.0": crate::types,
                "modalflow:plugin/settings@0.1.0": crate::settings,
                "modalflow:plugin/logging@0.1.0": crate::logging,
                "modalflow:plugin/clock@0.1.0": crate::clock,
                "modalflow:plugin/random@0.1.0": crate::random,
                "modalflow:plugin/dags@0.1.0": crate::dags,
            },
        });
    }
    pub use bindings::export_dag_validator as export;
    pub use bindings::exports::modalflow::plugin::{dag_validator as validator, plugin};
}

/// The plugin's settings; the host only calls after `check-settings` accepted them.
pub fn read_settings<T: DeserializeOwned>() -> Result<T, Error> {
    serde_json::from_str(&settings::all())
        .map_err(|error| Error::Failed(format!("its settings: {error}")))
}

/// What is wrong with settings, for `check-settings`; unknown names are errors when `T` denies them.
pub fn settings_error<T: DeserializeOwned>(text: &str) -> Option<String> {
    serde_json::from_str::<T>(text)
        .err()
        .map(|error| error.to_string())
}
