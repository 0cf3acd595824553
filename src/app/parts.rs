//! The rooms' parts, made from the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use broker::log::kafka::{KafkaLog, KafkaOptions};
use broker::log::sled::{SledLog, SledOptions};
use broker::time::SystemClock;
use broker::{Catalog, Clock, Log, Sink};
use indexer::Indexer;
use indexer::archive::{Archive, ArchiveSettings, Compression};
use indexer::store::{ObjectStore, StoreSettings};
use ingest::Ingest;
use ingest::auth::Credentials;
use ingest::auth::oidc::{Issuer, OidcSettings};
use ingest::auth::pool::{Pool, PoolSettings};
use proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::config::{self, Config, LogKind, Role, Secret};
use crate::failure::{Failure, OrFail};

use super::fetch::HttpFetch;
use super::folder::member;

/// The largest record in Kafka: what a transform may make of an event, with its key and headers.
const KAFKA_RECORD_BYTES_MAX: usize = 8 << 20;

/// What the server is made of.
pub(super) struct Parts {
    pub(super) log: Arc<dyn Log>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) indexer: Arc<Indexer>,
    pub(super) archive: ArchiveParts,
    pub(super) ingest: Arc<Ingest>,
    /// The pool of users, where there is one.
    pub(super) pool: Option<Arc<Pool>>,
}

/// What each archive sink is made of.
#[derive(Clone)]
pub(super) struct ArchiveParts {
    objects: Arc<dyn ObjectStore>,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    settings: ArchiveSettings,
}

impl ArchiveParts {
    /// A new sink, with nothing staged.
    pub(super) fn sink(&self) -> Box<dyn Sink> {
        let Self { objects, catalog, clock, settings } = self.clone();
        Box::new(Archive::new(objects, catalog, clock, settings))
    }
}

/// Opens the log, the catalog and the object store. `stop` ends what would otherwise go on for ever,
/// such as a follower's stream.
pub(super) async fn open(config: &Config, token: Secret, stop: CancellationToken) -> Result<Parts, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = open_log(config, &clock).await?;
    let catalog = Catalog::open(log.clone(), clock.clone()).await.or_fail("open the catalog")?;
    let objects = indexer::store::open(&store_settings(config)).or_fail("open the object store")?;
    let settings = archive_settings(&config.archive);
    let archive =
        ArchiveParts { objects: objects.clone(), catalog: catalog.clone(), clock: clock.clone(), settings };
    let limits = ingest_limits(&config.limits);
    let credentials = Credentials::new(token.expose().to_owned(), catalog.clone(), clock.clone());
    let credentials = match issuer(&config.oidc, &clock)? {
        Some(issuer) => credentials.with_issuer(issuer),
        None => credentials,
    };
    let pool = pool(config, &token, (&catalog, &clock));
    let credentials = Arc::new(match &pool {
        Some(pool) => credentials.with_pool(pool.clone()),
        None => credentials,
    });
    let indexer = Indexer::new(indexer::Parts {
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        objects,
        cache_directory: config.data.join("cache"),
        limits: index_limits(config),
        zone: config.index.zone()?,
        shutdown: stop.clone(),
        webhooks: credentials.clone(),
        tables_directory: config.data.join("tables"),
        node: node(config)?,
        profiles: config.tracking.enabled,
    });
    let ingest = Ingest::new(ingest::Parts {
        implicit_datasets: config.implicit_datasets,
        log: log.clone(),
        catalog: catalog.clone(),
        clock: clock.clone(),
        credentials,
        limits,
        shutdown: stop,
    });
    Ok(Parts { log, clock, catalog, indexer, archive, ingest, pool })
}

/// The issuer whose tokens are taken, where one is configured.
fn issuer(settings: &config::Oidc, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Issuer>>, Failure> {
    let (Some(issuer), Some(audience)) = (&settings.issuer, &settings.audience) else { return Ok(None) };
    let settings = OidcSettings {
        issuer: issuer.clone(),
        audience: audience.clone(),
        jwks_url: settings.jwks_url.clone(),
        name_claim: settings.name_claim.clone(),
        administrator_role: settings.administrator_role.clone(),
        leeway: settings.leeway.0,
    };
    Ok(Some(Issuer::new(settings, Box::new(HttpFetch::new()?), clock.clone())))
}

/// The pool of users, where it is switched on.
fn pool(
    config: &Config,
    token: &Secret,
    (catalog, clock): (&Arc<Catalog>, &Arc<dyn Clock>),
) -> Option<Arc<Pool>> {
    let pool = &config.user_pool;
    let settings = PoolSettings {
        id: pool.id.clone(),
        url: pool.url(config.listen),
        clients: pool.clients.iter().map(str::to_owned).collect(),
        token_life: pool.token_life.0,
        refresh_life: pool.refresh_life.0,
        key_life: pool.key_life.0,
    };
    let make = || Pool::new(settings, token.expose().to_owned(), catalog.clone(), clock.clone());
    pool.enabled.then(make)
}

async fn open_log(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Log>, Failure> {
    match config.log {
        LogKind::Sled => open_sled(&config.data, &config.sled, clock).await,
        LogKind::Kafka => open_kafka(&config.data, &config.kafka).await,
    }
}

/// What this process is called in groups that it has alone.
fn node(config: &Config) -> Result<String, Failure> {
    match config.log {
        LogKind::Sled => Ok("local".to_owned()),
        LogKind::Kafka => member(&config.data),
    }
}

async fn open_sled(
    data: &Path,
    settings: &config::Sled,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Log>, Failure> {
    let mut options = SledOptions::at(data.join("log"));
    options.cache_bytes = settings.cache_bytes.0;
    options.queue_bytes_max = settings.queue_bytes_max.bytes();
    Ok(SledLog::open(options, clock.clone()).await?)
}

async fn open_kafka(data: &Path, settings: &config::Kafka) -> Result<Arc<dyn Log>, Failure> {
    let mut options = KafkaOptions::at(settings.brokers.clone().unwrap_or_default());
    options.properties = settings.properties.iter().map(|(key, value)| (key.into(), value.into())).collect();
    options.replication_factor =
        settings.replication_factor.map_or(-1, |copies| i32::try_from(copies).unwrap_or(i32::MAX));
    options.queue_bytes_max = settings.queue_bytes_max.bytes();
    options.record_bytes_max = KAFKA_RECORD_BYTES_MAX;
    options.member = Some(member(data)?);
    Ok(KafkaLog::open(options).await?)
}

impl Parts {
    /// The routes of the configured roles, gRPC and health among them.
    pub(super) async fn doors(&self, config: &Config) -> Router {
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut grpc = reflection().add_service(health);
        let mut http = Router::new();
        if config.roles.has(Role::Ingest) {
            let (ingest, streams) = (self.ingest.grpc_ingest(), self.ingest.grpc_streams());
            report(&reporter, &ingest).await;
            report(&reporter, &streams).await;
            grpc = grpc.add_service(ingest).add_service(streams);
            http = http.merge(self.ingest.router());
        }
        if config.roles.has(Role::Query) {
            let (events, tables) = (self.indexer.grpc(), self.indexer.grpc_tables());
            report(&reporter, &events).await;
            report(&reporter, &tables).await;
            grpc = grpc.add_service(events).add_service(tables);
            http = http.merge(self.indexer.router());
        }
        http.merge(grpc.prepare().into_axum_router().reset_fallback())
    }
}

/// Tells health checks that a service is here.
async fn report<S: NamedService>(reporter: &HealthReporter, _: &S) {
    reporter.set_serving::<S>().await;
}

/// Reflection in the version that there is now, and in the one before that many clients still use.
fn reflection() -> Routes {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let why = "the descriptors were compiled with this program";
    Routes::default()
        .add_service(builder().build_v1().expect(why))
        .add_service(builder().build_v1alpha().expect(why))
}

fn store_settings(config: &Config) -> StoreSettings {
    let options = config.objects.options.iter();
    let options: BTreeMap<String, String> = options.map(|(key, value)| (key.into(), value.into())).collect();
    StoreSettings { url: config.objects_location(), options }
}

fn archive_settings(settings: &config::Archive) -> ArchiveSettings {
    ArchiveSettings {
        object_bytes_max: settings.object_bytes_max.0,
        object_age_max: Duration::from_secs(settings.object_age_seconds),
        compression: match settings.compression {
            config::Compression::None => Compression::None,
            config::Compression::Gzip => Compression::Gzip,
            config::Compression::Zstd => Compression::Zstd,
        },
        ..ArchiveSettings::default()
    }
}

fn index_limits(config: &Config) -> indexer::Limits {
    let settings = &config.index;
    let query_wait_max = Duration::from_secs(settings.query_wait_seconds);
    let (cache_bytes, snapshot_age) = (config.tables.cache_bytes.0, config.tables.snapshot_age.0);
    indexer::Limits {
        tables: indexer::TableLimits { wait_max: query_wait_max, cache_bytes, snapshot_age },
        split_events_max: whole(settings.split_events_max),
        split_age_max: Duration::from_secs(settings.split_age_seconds),
        segment_events_max: whole(settings.segment_events_max),
        query_wait_max,
        cache_bytes_max: settings.cache_bytes_max.0,
        exports_max: settings.exports_max as usize,
        followers_max: settings.followers_max as usize,
        subscribers_max: settings.subscribers_max as usize,
        ..indexer::Limits::default()
    }
}

fn ingest_limits(limits: &config::Limits) -> ingest::Limits {
    ingest::Limits {
        body_bytes_max: limits.body_bytes_max.bytes(),
        decoded_body_bytes_max: limits.decoded_body_bytes_max.bytes(),
        record_bytes_max: limits.record_bytes_max.bytes(),
        batch_records_max: limits.batch_records_max as usize,
        key_bytes_max: limits.key_bytes_max.bytes(),
        in_flight_bytes_max: limits.in_flight_bytes_max.bytes(),
        body_time_max: limits.body_time_max.0,
    }
}

/// A count that is larger than this machine can hold is as good as the largest that it can.
fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
