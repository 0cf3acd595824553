//! The configuration: defaults, then one TOML file, then the environment, then flags. This is the
//! only reader of files and of the environment in the program.

mod load;
mod sections;
mod show;
pub(crate) mod surroundings;
pub(crate) mod token;
pub(crate) mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use load::{Loaded, Overrides, load};
pub(crate) use sections::{
    Archive, Compression, Index, Kafka, Limits, Objects, Oidc, Served, Sled, Tables, Tracking, UserPool,
    Vehicles,
};
pub(crate) use values::{Roles, Secret};

use crate::failure::{Exit, Failure};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The folder that holds everything.
    pub(crate) data: PathBuf,
    /// Where HTTP and gRPC are served.
    pub(crate) listen: SocketAddr,
    /// Which log keeps the records.
    pub(crate) log: LogKind,
    /// Which parts of the server run.
    pub(crate) roles: Roles,
    /// The bearer token; made at the first start and kept in the data folder where it is not given.
    pub(crate) token: Option<Secret>,
    /// Another issuer's tokens.
    pub(crate) oidc: Oidc,
    /// Whether an event stream may be made of a dataset that no document describes.
    pub(crate) implicit_datasets: bool,
    /// How long a shutdown may take in all.
    pub(crate) shutdown_grace_seconds: u64,
    /// How the program's own log is written.
    pub(crate) log_format: LogFormat,
    /// What the program's own log holds, such as `info` or `warn,headwater_broker=debug`.
    pub(crate) log_level: String,
    /// The Kafka log.
    pub(crate) kafka: Kafka,
    /// The sled log.
    pub(crate) sled: Sled,
    /// Where objects lie.
    pub(crate) objects: Objects,
    /// What is taken at the door.
    pub(crate) limits: Limits,
    /// The archive.
    pub(crate) archive: Archive,
    /// The index.
    pub(crate) index: Index,
    /// Keyed tables.
    pub(crate) tables: Tables,
    /// The collector of user events.
    pub(crate) tracking: Tracking,
    /// Positions of vehicles.
    pub(crate) vehicles: Vehicles,
    /// A pool of our own users.
    pub(crate) user_pool: UserPool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./data"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            log: LogKind::default(),
            roles: Roles::all(),
            token: None,
            oidc: Oidc::default(),
            implicit_datasets: false,
            shutdown_grace_seconds: 30,
            log_format: LogFormat::default(),
            log_level: "info".to_owned(),
            kafka: Kafka::default(),
            sled: Sled::default(),
            objects: Objects::default(),
            limits: Limits::default(),
            archive: Archive::default(),
            index: Index::default(),
            tables: Tables::default(),
            tracking: Tracking::default(),
            vehicles: Vehicles::default(),
            user_pool: UserPool::default(),
        }
    }
}

/// Which log keeps the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogKind {
    /// In the data folder.
    #[default]
    Sled,
    /// In a Kafka cluster.
    Kafka,
}

/// A part of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Takes records and definitions.
    Ingest,
    /// From raw to processed.
    Router,
    /// Archive and index.
    Sinks,
    /// Answers queries.
    Query,
}

impl Role {
    /// Every part.
    pub(crate) const ALL: [Role; 4] = [Role::Ingest, Role::Router, Role::Sinks, Role::Query];
}

/// How the program's own log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One line an event, for people.
    #[default]
    Text,
    /// One JSON object an event, for machines.
    Json,
}

impl Config {
    /// Refuses what is well formed but cannot be served, naming the key.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let surfaces = [
            ("tracking", self.tracking.served()),
            ("vehicles", self.vehicles.served()),
            ("user_pool", self.user_pool.served()),
        ];
        self.check_addresses(surfaces.into_iter().filter_map(|(name, served)| Some((name, served?))))?;
        if self.token.as_ref().is_some_and(|token| !token::is_usable(token)) {
            return Err(wrong("token", "a token has one or more printable characters, without spaces"));
        }
        if self.log == LogKind::Kafka && self.kafka.brokers.as_ref().is_none_or(|text| text.is_empty()) {
            return Err(wrong("kafka.brokers", "the Kafka log needs the brokers' HOST:PORT"));
        }
        if self.oidc.issuer.is_some() != self.oidc.audience.is_some() {
            let key = if self.oidc.issuer.is_some() { "oidc.audience" } else { "oidc.issuer" };
            return Err(wrong(key, "issuer and audience are needed together"));
        }
        let urls = [("oidc.issuer", &self.oidc.issuer), ("oidc.jwks_url", &self.oidc.jwks_url)];
        let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if let Some((key, _)) = urls.iter().find(|(_, url)| url.as_ref().is_some_and(|url| !is_url(url))) {
            return Err(wrong(key, "a URL begins with https:// or http://"));
        }
        self.user_pool.check().map_err(|(key, message)| wrong(key, message))?;
        self.index.zone()?;
        if self.roles.is_empty() {
            return Err(wrong("roles", "at least one of ingest, router, sinks and query must run"));
        }
        self.check_limits()
    }

    /// Refuses an address that others reach where no credential keeps them out.
    fn check_addresses(&self, surfaces: impl Iterator<Item = (&'static str, Served)>) -> Result<(), Failure> {
        let mut addresses = vec![("listen".to_owned(), self.listen)];
        for (name, served) in surfaces {
            if !served.has_fit_prefix() {
                let message = "a prefix is empty, or begins with / and has letters, digits and -._~ between";
                return Err(wrong(&format!("{name}.prefix"), message));
            }
            addresses.extend(served.listen.map(|address| (format!("{name}.listen"), address)));
        }
        let is_short = |token: &Secret| token.expose().len() < token::LENGTH_MIN;
        for (key, address) in addresses.into_iter().filter(|(_, address)| !address.ip().is_loopback()) {
            if self.token.is_none() {
                let message = format!(
                    "{address} can be reached from other machines, and no token is configured: set `token` in \
                     the configuration file or HEADWATER_TOKEN, or listen on 127.0.0.1"
                );
                return Err(wrong(&key, message));
            }
            if self.token.as_ref().is_some_and(is_short) {
                let least = token::LENGTH_MIN;
                let message =
                    format!("{address} can be reached from other machines: at least {least} characters");
                return Err(wrong("token", message));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Failure> {
        let limits = &self.limits;
        let bounds = [
            ("limits.record_bytes_max", limits.record_bytes_max.0),
            ("limits.body_bytes_max", limits.body_bytes_max.0),
            ("limits.decoded_body_bytes_max", limits.decoded_body_bytes_max.0),
            ("limits.batch_records_max", u64::from(limits.batch_records_max)),
            ("limits.key_bytes_max", limits.key_bytes_max.0),
            ("limits.header_bytes_max", limits.header_bytes_max.0),
            ("archive.object_bytes_max", self.archive.object_bytes_max.0),
            ("index.split_events_max", self.index.split_events_max),
            ("index.segment_events_max", self.index.segment_events_max),
            ("index.exports_max", u64::from(self.index.exports_max)),
            ("index.followers_max", u64::from(self.index.followers_max)),
            ("index.subscribers_max", u64::from(self.index.subscribers_max)),
            ("shutdown_grace_seconds", self.shutdown_grace_seconds),
            ("tables.snapshot_age", self.tables.snapshot_age.0.as_secs()),
        ];
        if let Some((key, _)) = bounds.iter().find(|(_, value)| *value == 0) {
            return Err(wrong(key, "must be more than 0"));
        }
        let largest = values::Size(limits.body_bytes_max.0.saturating_add(limits.decoded_body_bytes_max.0));
        if limits.in_flight_bytes_max < largest {
            let message = format!("must hold the largest body as sent and as decompressed, {largest}");
            return Err(wrong("limits.in_flight_bytes_max", message));
        }
        if limits.record_bytes_max > limits.decoded_body_bytes_max {
            let message = format!("must fit in a body of {}", limits.decoded_body_bytes_max);
            return Err(wrong("limits.record_bytes_max", message));
        }
        Ok(())
    }

    /// Where objects lie: the URL that was given, or a folder below the data folder.
    pub(crate) fn objects_location(&self) -> String {
        match &self.objects.url {
            Some(url) => url.clone(),
            None => self.data.join("objects").display().to_string(),
        }
    }
}

fn wrong(key: &str, message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message).with_field(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = Config::default();
        change(&mut config);
        config.check().map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_defaults_can_be_served() {
        assert_eq!(check(|_| ()), Ok(()));
    }

    #[test]
    fn a_surface_has_a_fit_prefix_and_an_address_that_is_guarded_as_the_servers() {
        let with = |change: fn(&mut Tracking)| {
            check(|config| {
                config.tracking.enabled = true;
                change(&mut config.tracking);
            })
        };
        for prefix in ["", "/collector", "/v2/my.app"] {
            let checked = check(|config| {
                config.tracking =
                    Tracking { enabled: true, prefix: prefix.to_owned(), ..Tracking::default() };
            });
            assert_eq!(checked, Ok(()), "{prefix}");
        }
        for prefix in ["/", "collector", "/a/", "/a//b", "/..", "/{a}", "/a b"] {
            let wrong = |config: &mut Config| config.tracking.prefix = prefix.to_owned();
            assert_eq!(check(wrong), Ok(()), "off: {prefix}");
            let wrong = check(|config| {
                config.tracking.enabled = true;
                wrong(config);
            });
            assert!(wrong.unwrap_err().starts_with("tracking.prefix: "), "{prefix}");
        }
        assert_eq!(with(|tracking| tracking.listen = Some(SocketAddr::from(([127, 0, 0, 1], 1)))), Ok(()));
        let open = with(|tracking| tracking.listen = Some(SocketAddr::from(([0, 0, 0, 0], 1))));
        assert!(open.unwrap_err().starts_with("tracking.listen: 0.0.0.0:1 can be reached"));
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let open = |config: &mut Config| config.listen = SocketAddr::from(([0, 0, 0, 0], 7070));
        let error = check(open).unwrap_err();
        assert!(error.starts_with("listen: 0.0.0.0:7070 can be reached"), "{error}");
        let guarded = |config: &mut Config| {
            open(config);
            config.token = Some(Secret::new("0123456789abcdef"));
        };
        assert_eq!(check(guarded), Ok(()));
        let short = |config: &mut Config| config.token = Some(Secret::new("short"));
        assert_eq!(check(short), Ok(()), "on this machine only");
        let short_and_open = |config: &mut Config| {
            open(config);
            short(config);
        };
        assert!(check(short_and_open).unwrap_err().starts_with("token: "));
        let spaced = |config: &mut Config| config.token = Some(Secret::new("with space"));
        assert!(check(spaced).unwrap_err().starts_with("token: "));
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_key() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 6] = [
            ("kafka.brokers", |config| config.log = LogKind::Kafka),
            ("index.zone", |config| config.index.zone = "Europe/Olso".to_owned()),
            ("limits.batch_records_max", |config| config.limits.batch_records_max = 0),
            ("limits.in_flight_bytes_max", |config| {
                config.limits.in_flight_bytes_max = values::Size::mib(1);
            }),
            ("limits.record_bytes_max", |config| {
                config.limits.record_bytes_max = values::Size::mib(100);
            }),
            ("shutdown_grace_seconds", |config| config.shutdown_grace_seconds = 0),
        ];
        for (key, change) in cases {
            let error = check(change).unwrap_err();
            assert!(error.starts_with(&format!("{key}: ")), "{key}: {error}");
        }
    }
}
