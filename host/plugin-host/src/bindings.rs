//! What wasmtime generates from `wit/`. Nothing of it leaves this crate.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "everything",
    imports: {
        "modalflow:plugin/bytes": async | trappable,
        "modalflow:plugin/object-store": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    trappable_error_type: { "modalflow:plugin/types.error" => crate::imports::HostError },
    with: {
        "modalflow:plugin/bytes.body": crate::imports::Body,
        "modalflow:plugin/bytes.writer": crate::imports::Writer,
        "modalflow:plugin/object-store.store": crate::imports::Store,
        "modalflow:plugin/dags.dag": crate::imports::DagResource,
        "modalflow:plugin/dags.task": crate::imports::TaskResource,
    },
});

pub(crate) use self::exports::modalflow::plugin as guest;
pub(crate) use self::modalflow::plugin as host;
