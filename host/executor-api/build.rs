//! Turns `proto/` into Rust without a `protoc` on the machine. The descriptors are kept: the Python side makes its messages from them.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/executor.proto"], ["proto"])?;
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        // Comments and positions.
        file.source_code_info = None;
    }
    fs::write(folder.join("descriptors.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_fds(descriptors)?;
    Ok(())
}
