//! The sections of the configuration, with the default of every key. `docs/configuration.md` says
//! what each is for.

use std::net::SocketAddr;
use std::time::Duration;

use indexer::Zone;
use serde::{Deserialize, Serialize};

use super::values::{Names, Properties, Size, Span};
use crate::failure::{Exit, Failure};

/// In seconds.
const HOUR: u64 = 3_600;

/// How the Kafka log is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kafka {
    /// `HOST:PORT`, several with commas. Needed with `log = "kafka"`.
    pub(crate) brokers: Option<String>,
    /// Copies of every topic that is made; the broker's own default where it is not given.
    pub(crate) replication_factor: Option<u32>,
    /// Bytes that wait for the brokers at most; beyond them an append is answered with 429.
    pub(crate) queue_bytes_max: Size,
    /// Handed on to librdkafka by name.
    pub(crate) properties: Properties,
}

impl Default for Kafka {
    fn default() -> Self {
        let properties = Properties::default();
        Self { brokers: None, replication_factor: None, queue_bytes_max: Size::mib(64), properties }
    }
}

/// How the sled log uses memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sled {
    /// Pages kept in memory.
    pub(crate) cache_bytes: Size,
    /// Bytes that wait for the disk at most; further appends wait for room.
    pub(crate) queue_bytes_max: Size,
}

impl Default for Sled {
    fn default() -> Self {
        Self { cache_bytes: Size::mib(64), queue_bytes_max: Size::mib(32) }
    }
}

/// Where objects lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Objects {
    /// `s3://…`, `gs://…`, `az://…`, `file:///…` or a folder; `DATA/objects` where it is not given.
    pub(crate) url: Option<String>,
    /// Handed on to the object store by name, such as `aws_endpoint`.
    pub(crate) options: Properties,
}

/// Whose tokens are taken beside our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Oidc {
    /// The issuer's URL, as its tokens name it.
    pub(crate) issuer: Option<String>,
    /// What has to stand in a token's `aud`. Needed with `issuer`.
    pub(crate) audience: Option<String>,
    /// Where its keys are; what its discovery document says where it is not given.
    pub(crate) jwks_url: Option<String>,
    /// The claim that holds a principal's name.
    pub(crate) name_claim: String,
    /// The role that makes an administrator; nothing does where it is not given.
    pub(crate) administrator_role: Option<String>,
    /// How far its clock may be from ours.
    pub(crate) leeway: Span,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            jwks_url: None,
            name_claim: "preferred_username".to_owned(),
            administrator_role: None,
            leeway: Span(Duration::from_secs(60)),
        }
    }
}

/// Where a surface is served that is switched on by configuration.
pub(crate) struct Served {
    /// What comes before its paths.
    pub(crate) prefix: String,
    /// An address of its own; the server's where it is not given.
    pub(crate) listen: Option<SocketAddr>,
}

impl Served {
    /// Whether what comes before the paths can come there.
    pub(super) fn has_fit_prefix(&self) -> bool {
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
        let is_fit = |segment: &str| !segment.trim_matches('.').is_empty() && segment.bytes().all(is_plain);
        match self.prefix.strip_prefix('/') {
            Some(segments) => segments.split('/').all(is_fit),
            None => self.prefix.is_empty(),
        }
    }
}

/// The collector of user events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tracking {
    /// Whether it is served.
    pub(crate) enabled: bool,
    /// What comes before its paths.
    pub(crate) prefix: String,
    /// An address of its own; the server's where it is not given.
    pub(crate) listen: Option<SocketAddr>,
    /// Whether who presents nothing may write.
    pub(crate) open: bool,
}

impl Tracking {
    /// Where it is served, if it is.
    pub(crate) fn served(&self) -> Option<Served> {
        self.enabled.then(|| Served { prefix: self.prefix.clone(), listen: self.listen })
    }
}

/// Positions of vehicles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Vehicles {
    /// Whether they are taken and told.
    pub(crate) enabled: bool,
    /// What comes before their paths.
    pub(crate) prefix: String,
    /// An address of their own; the server's where it is not given.
    pub(crate) listen: Option<SocketAddr>,
    /// What clients call the stream.
    pub(crate) stream_name: String,
    /// The dataset of the stream, and the name of its table.
    pub(crate) dataset: String,
    /// The partitions of the stream, when it is made.
    pub(crate) partitions: u32,
    /// How long a position is known.
    pub(crate) ttl: Span,
    /// Whether longitudes from 100 degrees on are taken.
    pub(crate) long_longitudes: bool,
    /// Whether who presents nothing may read positions.
    pub(crate) open: bool,
    /// Whether positions are answered within an envelope that holds the status.
    pub(crate) envelope: bool,
}

impl Default for Vehicles {
    fn default() -> Self {
        Self {
            enabled: false,
            prefix: String::new(),
            listen: None,
            stream_name: "GpsCoordinatesStream".to_owned(),
            dataset: "gps_coordinates".to_owned(),
            partitions: 1,
            ttl: Span(Duration::from_secs(3_600)),
            long_longitudes: false,
            open: false,
            envelope: false,
        }
    }
}

impl Vehicles {
    /// Where they are served, if they are.
    pub(crate) fn served(&self) -> Option<Served> {
        self.enabled.then(|| Served { prefix: self.prefix.clone(), listen: self.listen })
    }
}

/// A pool of our own users, which signs them in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UserPool {
    /// Whether it is served, and its id tokens are taken.
    pub(crate) enabled: bool,
    /// What comes before its paths.
    pub(crate) prefix: String,
    /// An address of its own; the server's where it is not given.
    pub(crate) listen: Option<SocketAddr>,
    /// Where it is found, as its tokens name it; `http://LISTEN/PREFIX` where it is not given.
    pub(crate) url: Option<String>,
    /// The pool's id: `REGION_NAME`.
    pub(crate) id: String,
    /// The ids of the clients that users sign in with.
    pub(crate) clients: Names,
    /// Whether everybody may sign up.
    pub(crate) sign_up: bool,
    /// The dataset of the stream in which codes and invitations are told.
    pub(crate) messages: String,
    /// How long id and access tokens are taken.
    pub(crate) token_life: Span,
    /// How long a refresh token is taken.
    pub(crate) refresh_life: Span,
    /// How long a key signs.
    pub(crate) key_life: Span,
}

impl Default for UserPool {
    fn default() -> Self {
        Self {
            enabled: false,
            prefix: "/user-pool".to_owned(),
            listen: None,
            url: None,
            id: "local_headwater".to_owned(),
            clients: Names::of(["headwater"]),
            sign_up: false,
            messages: "user_messages".to_owned(),
            token_life: Span::seconds(HOUR),
            refresh_life: Span::seconds(30 * 24 * HOUR),
            key_life: Span::seconds(90 * 24 * HOUR),
        }
    }
}

impl UserPool {
    /// Where it is served, if it is.
    pub(crate) fn served(&self) -> Option<Served> {
        self.enabled.then(|| Served { prefix: self.prefix.clone(), listen: self.listen })
    }

    /// Where it is found, given the server's own address.
    pub(crate) fn url(&self, server: SocketAddr) -> String {
        let made = || format!("http://{}{}", self.listen.unwrap_or(server), self.prefix);
        self.url.clone().map_or_else(made, |url| url.trim_end_matches('/').to_owned())
    }

    /// The key that is wrong, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.enabled {
            return Ok(());
        }
        let wrong = |key, message: &str| Err((key, message.to_owned()));
        if self.prefix.is_empty() && self.listen.is_none() {
            return wrong("user_pool.prefix", "without a path before it, it needs an address of its own");
        }
        if self.url.as_ref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            return wrong("user_pool.url", "a URL begins with https:// or http://");
        }
        let is_name = |text: &str, others: &str, most: usize| {
            let is_fit = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
            !text.is_empty() && text.len() <= most && text.chars().all(is_fit)
        };
        let parts = self.id.split_once('_');
        if !parts.is_some_and(|(region, name)| is_name(region, "-", 30) && is_name(name, "", 24)) {
            return wrong("user_pool.id", "an id is REGION_NAME, of letters, digits and - in the region");
        }
        if !self.clients.iter().all(|id| is_name(id, "_+", 128)) || self.clients.iter().next().is_none() {
            let message = "an id of a client has 1 to 128 letters, digits, _ and +; there is at least one";
            return wrong("user_pool.clients", message);
        }
        let lives = [
            ("user_pool.token_life", self.token_life, 300, 24 * HOUR),
            ("user_pool.refresh_life", self.refresh_life, HOUR, 3_650 * 24 * HOUR),
            ("user_pool.key_life", self.key_life, HOUR, 3_650 * 24 * HOUR),
        ];
        let is_off = |life: Span, least, most| life < Span::seconds(least) || life > Span::seconds(most);
        match lives.into_iter().find(|(_, life, least, most)| is_off(*life, *least, *most)) {
            Some((key, _, least, most)) => {
                Err((key, format!("from {} to {}", Span::seconds(least), Span::seconds(most))))
            }
            None => Ok(()),
        }
    }
}

/// What is taken at the door, at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// A request's body as it is sent.
    pub(crate) body_bytes_max: Size,
    /// A request's body when it is decompressed.
    pub(crate) decoded_body_bytes_max: Size,
    /// One record.
    pub(crate) record_bytes_max: Size,
    /// Records of one request.
    pub(crate) batch_records_max: u32,
    /// A record's key.
    pub(crate) key_bytes_max: Size,
    /// Bodies of all requests that are being worked on.
    pub(crate) in_flight_bytes_max: Size,
    /// A request's headers.
    pub(crate) header_bytes_max: Size,
    /// Until a request's headers have come.
    pub(crate) header_time_max: Span,
    /// How long an HTTP/1 connection stays open without a request.
    pub(crate) idle_time_max: Span,
    /// Until a request's body has come.
    pub(crate) body_time_max: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: Size::mib(16),
            decoded_body_bytes_max: Size::mib(64),
            record_bytes_max: Size::mib(1),
            batch_records_max: 50_000,
            key_bytes_max: Size::kib(1),
            in_flight_bytes_max: Size::mib(256),
            header_bytes_max: Size::kib(64),
            header_time_max: Span::seconds(10),
            idle_time_max: Span::seconds(75),
            body_time_max: Span::seconds(30),
        }
    }
}

/// How the archive cuts and packs its objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Archive {
    /// An object ends when its events, before compression, reach this.
    pub(crate) object_bytes_max: Size,
    /// An object ends when its first event arrived this long ago.
    pub(crate) object_age_seconds: u64,
    /// How objects are compressed.
    pub(crate) compression: Compression,
}

impl Default for Archive {
    fn default() -> Self {
        Self { object_bytes_max: Size::mib(64), object_age_seconds: 300, compression: Compression::default() }
    }
}

/// How objects are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Not at all: `.ndjson`.
    None,
    /// `.ndjson.gz`
    Gzip,
    /// `.ndjson.zst`
    #[default]
    Zstd,
}

/// How the index is cut, and what a query may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Index {
    /// A split is published at this many events.
    pub(crate) split_events_max: u64,
    /// A split is published when its first event arrived this long ago.
    pub(crate) split_age_seconds: u64,
    /// The tail becomes a segment at this many events.
    pub(crate) segment_events_max: u64,
    /// How long a query waits for what is acked to be processed.
    pub(crate) query_wait_seconds: u64,
    /// Copies of published splits on the local disk.
    pub(crate) cache_bytes_max: Size,
    /// Exports at the same time.
    pub(crate) exports_max: u32,
    /// Followers at the same time.
    pub(crate) followers_max: u32,
    /// Subscribers at the same time.
    pub(crate) subscribers_max: u32,
    /// Where days begin that events are counted by, by its name in the time zone database.
    pub(crate) zone: String,
}

/// Keyed tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tables {
    /// Pages of tables kept in memory.
    pub(crate) cache_bytes: Size,
    /// How long what came waits at most until it is in a snapshot.
    pub(crate) snapshot_age: Span,
}

impl Default for Tables {
    fn default() -> Self {
        Self { cache_bytes: Size::mib(256), snapshot_age: Span::seconds(HOUR) }
    }
}

impl Index {
    /// Where days begin.
    pub(crate) fn zone(&self) -> Result<Zone, Failure> {
        let wrong = |_| {
            let message = "a name of the time zone database is expected, such as Europe/Oslo or UTC";
            Failure::new(Exit::Usage, message).with_field("index.zone")
        };
        self.zone.parse().map_err(wrong)
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            split_events_max: 250_000,
            split_age_seconds: 300,
            segment_events_max: 20_000,
            query_wait_seconds: 5,
            cache_bytes_max: Size::mib(10 << 10),
            exports_max: 64,
            followers_max: 1_000,
            subscribers_max: 20_000,
            zone: "Europe/Oslo".to_owned(),
        }
    }
}
