//! Compiles the definitions with a compiler written in Rust, so that no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 5] = [
    "headwater/v1/common.proto",
    "headwater/v1/ingest.proto",
    "headwater/v1/events.proto",
    "headwater/v1/streams.proto",
    "headwater/v1/tables.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=headwater");
    let descriptors = protox::compile(FILES, ["."])?;
    #[allow(
        clippy::disallowed_methods,
        reason = "cargo tells a build script where to write by the environment"
    )]
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("headwater.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
