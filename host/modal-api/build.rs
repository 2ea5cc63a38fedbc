//! Turns `proto/` into Rust without a `protoc` on the machine, and keeps its descriptors for the drift test.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/modal.proto"], ["proto"])?;
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(folder.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // A function's definition is handed on as it came, with the fields that we do not know.
        .extern_path(
            ".modal.client.FunctionCreateRequest",
            "crate::verbatim::FunctionCreateRequest",
        )
        .extern_path(
            ".modal.client.ContainerArguments",
            "crate::verbatim::ContainerArguments",
        )
        .extern_path(".modal.client.FunctionSchema", "crate::verbatim::Opaque")
        .extern_path(
            ".modal.client.ClassParameterInfo",
            "crate::verbatim::Opaque",
        )
        .build_client(true)
        .build_server(true)
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
