//! What Headwater says on the wire: the gRPC package `headwater.v1`, generated here and nowhere
//! else, and the mapping of error kinds to HTTP and gRPC.

pub mod fault;
pub mod frames;
pub mod problem;

/// The gRPC package `headwater.v1`; its meaning is documented in `proto/headwater/v1/*.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::too_many_lines,
    clippy::large_futures
)]
pub mod v1 {
    tonic::include_proto!("headwater.v1");

    /// The encoded `FileDescriptorSet` of this package, for the reflection service.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("headwater.v1");
}
