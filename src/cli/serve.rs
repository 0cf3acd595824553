//! `headwater serve`: the server.

use clap::Args;

use super::Settings;
use crate::config::{Config, load};
use crate::failure::Failure;

/// Flags that win over the file and the environment.
#[derive(Args, Debug, Default)]
pub(crate) struct Serve {
    /// Where HTTP and gRPC are served [default: 127.0.0.1:7070; env: HEADWATER_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Which log keeps the records: sled or kafka [default: sled; env: HEADWATER_LOG]
    #[arg(long, value_name = "LOG")]
    log: Option<String>,
    /// The Kafka brokers, several with commas [env: HEADWATER_KAFKA__BROKERS]
    #[arg(long, value_name = "HOST:PORT")]
    kafka_brokers: Option<String>,
    /// Which parts run: ingest, router, sinks, query [default: all; env: HEADWATER_ROLES]
    #[arg(long, value_name = "LIST")]
    roles: Option<String>,
    /// Where objects lie: s3://…, gs://…, az://… or a folder [default: DATA/objects; env:
    /// HEADWATER_OBJECTS__URL]
    #[arg(long, value_name = "URL")]
    objects: Option<String>,
    /// How the program's own log is written: text or json [default: text; env:
    /// HEADWATER_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What the program's own log holds [default: info; env: HEADWATER_LOG_LEVEL]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

impl Serve {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let config = self.config(settings)?;
        config.check()?;
        crate::app::serve(config)
    }

    fn config(self, settings: &Settings) -> Result<Config, Failure> {
        let mut overrides = settings.overrides();
        overrides.set("--listen", "listen", self.listen);
        overrides.set("--log", "log", self.log);
        overrides.set("--kafka-brokers", "kafka.brokers", self.kafka_brokers);
        overrides.set("--roles", "roles", self.roles);
        overrides.set("--objects", "objects.url", self.objects);
        overrides.set("--log-format", "log_format", self.log_format);
        overrides.set("--log-level", "log_level", self.log_level);
        settings.assign(&mut overrides);
        load(&overrides).map(|loaded| loaded.config)
    }
}
