//! Read models of the processed events, and the API that queries them: the archive in object
//! storage, and the index of tail, segments and splits.

pub mod archive;
mod follow;
mod grpc;
mod http;
mod index;
mod line;
mod query;
mod split;
pub mod store;
mod switches;
mod table;
#[cfg(test)]
mod testing;

pub use chrono_tz::Tz as Zone;
pub use grpc::{EventsService, TablesService};
pub use http::{Handover, Positions, Profiles, openapi};
pub use index::{Indexer, Limits, Parts};
pub use table::TableLimits;
