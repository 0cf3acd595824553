//! What the doors take at most. Every limit has a name that stands in the error that refuses.

use std::time::Duration;

/// The limits of the doors. `in_flight_bytes_max` should be above the sum of the two body limits,
/// else a large request can never be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request body as received, and of one gRPC message; 16 MiB.
    pub body_bytes_max: usize,
    /// Bytes of one request body after decompression; 64 MiB.
    pub decoded_body_bytes_max: usize,
    /// Bytes of one event; 1 MiB.
    pub record_bytes_max: usize,
    /// Events of one request; 50,000.
    pub batch_records_max: usize,
    /// Bytes of one key; 1 KiB.
    pub key_bytes_max: usize,
    /// Bytes of all request bodies that are being read or appended, as received and as
    /// decompressed; 256 MiB. Who comes when they are used up is answered `busy` at once.
    pub in_flight_bytes_max: usize,
    /// How long a request body may take to arrive; 30 seconds.
    pub body_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            decoded_body_bytes_max: 64 << 20,
            record_bytes_max: 1 << 20,
            batch_records_max: 50_000,
            key_bytes_max: 1 << 10,
            in_flight_bytes_max: 256 << 20,
            body_time_max: Duration::from_secs(30),
        }
    }
}
