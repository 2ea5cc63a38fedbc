//! The plugins that the host carries, as they were built into `plugins/prebuilt/`.

const BUILTINS: [(&str, &[u8]); 3] = [
    (
        "dag-rules",
        include_bytes!("../../../plugins/prebuilt/dag-rules.wasm"),
    ),
    (
        "file-task-handler",
        include_bytes!("../../../plugins/prebuilt/file-task-handler.wasm"),
    ),
    (
        "volume-xcom",
        include_bytes!("../../../plugins/prebuilt/volume-xcom.wasm"),
    ),
];

pub(crate) fn find(name: &str) -> Option<&'static [u8]> {
    BUILTINS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, wasm)| *wasm)
}

pub(crate) fn names() -> String {
    BUILTINS.map(|(name, _)| name).join(", ")
}
