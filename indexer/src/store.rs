//! Opens object stores by URL: a local folder, S3 and what speaks its protocol, Google Cloud
//! Storage, Azure.
//!
//! Whatever the store, a put has reached its disk when it returns, and of several puts that may
//! only create, exactly one wins. Secrets appear neither in `Debug` nor in errors. The environment
//! is not read here: what is not in the settings is not set.

mod local;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, Kind, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut, S3CopyIfNotExists};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, PutMode, PutOptions, RetryConfig};

pub use local::LocalObjects;
pub use object_store::ObjectStore;

/// How often a request is repeated before its error is told.
pub const RETRIES_MAX: usize = 4;
/// How long after a request's beginning it may still be repeated.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request may take, where the options do not say otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connecting may take, where the options do not say otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The object that tells that a store can be written to. It is put once and never read.
const WRITABLE: &str = ".writable";
const WRITABLE_TEXT: &str = "Headwater can write here.\n";

/// Options whose values may be shown; every other value is taken for a secret.
const SHOWN: [&str; 8] =
    ["endpoint", "region", "default_region", "bucket", "allow_http", "timeout", "account_name", "role_arn"];

/// Which object store, and how to reach it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreSettings {
    /// A folder's path or `file://` URL, `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`.
    pub url: String,
    /// Options under the names that crate `object_store` gives them, such as `aws_endpoint`,
    /// `aws_access_key_id`, `aws_secret_access_key` or `allow_http`.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: BTreeMap<&str, &str> = self
            .options
            .iter()
            .map(|(key, value)| (key.as_str(), if is_secret(key) { "…" } else { value.as_str() }))
            .collect();
        let url = if Location::parse(&self.url).is_ok() { self.url.as_str() } else { "…" };
        f.debug_struct("StoreSettings").field("url", &url).field("options", &options).finish()
    }
}

/// Whether an option's value must not be shown; its name may begin with the provider's.
fn is_secret(key: &str) -> bool {
    let providers = ["aws_", "google_", "azure_storage_", "azure_"];
    let bare = providers.iter().find_map(|provider| key.strip_prefix(provider)).unwrap_or(key);
    !SHOWN.contains(&bare)
}

/// Opens a store; all paths within it are relative to the URL's prefix. Nothing is asked of a
/// remote store yet, so one that does not answer shows up with the first request. A local folder
/// is made where it is missing. `Invalid`, naming `url` or the option, if the settings are wrong.
pub fn open(settings: &StoreSettings) -> Result<Arc<dyn ObjectStore>> {
    let location = Location::parse(&settings.url)?;
    let Location::Remote { provider, prefix } = location else {
        return open_local(&settings.options, location);
    };
    let opened = match provider {
        Provider::S3 => open_s3(settings, prefix),
        Provider::Google => open_google(settings, prefix),
        Provider::Azure => open_azure(settings, prefix),
    };
    opened.map_err(|error| refuse(settings, &error))
}

enum Location {
    Folder(PathBuf),
    Remote { provider: Provider, prefix: Path },
}

enum Provider {
    S3,
    Google,
    Azure,
}

impl Location {
    fn parse(url: &str) -> Result<Self> {
        if url.is_empty() {
            return Err(Error::invalid("url", "the object store's url is empty"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Ok(Location::Folder(PathBuf::from(url)));
        };
        let provider = match scheme {
            "file" => return Ok(Location::Folder(PathBuf::from(rest))),
            "s3" => Provider::S3,
            "gs" => Provider::Google,
            "az" => Provider::Azure,
            _ => {
                let message = "an object store's url is a folder or begins with file, s3, gs or az";
                return Err(Error::invalid("url", message));
            }
        };
        // Refused without naming them: people put secrets there.
        if rest.contains(['@', '?', '#']) {
            let message = "credentials and parameters go into the store's options, not its url";
            return Err(Error::invalid("url", message));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Error::invalid("url", "the object store's url names no bucket"));
        }
        let prefix = Path::parse(prefix.trim_end_matches('/'))
            .map_err(|error| Error::invalid("url", format!("read the url's prefix: {error}")))?;
        Ok(Location::Remote { provider, prefix })
    }
}

fn open_local(options: &BTreeMap<String, String>, location: Location) -> Result<Arc<dyn ObjectStore>> {
    let Location::Folder(folder) = location else {
        return Err(Error::internal("open a remote store as a folder"));
    };
    if let Some(key) = options.keys().next() {
        return Err(Error::invalid(key, "a local folder takes no options"));
    }
    Ok(Arc::new(LocalObjects::open(&folder)?))
}

fn open_s3(settings: &StoreSettings, prefix: Path) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new()
        .with_url(&settings.url)
        .with_client_options(client())
        .with_retry(retry())
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    for (key, value) in &settings.options {
        builder = builder.with_config(key.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()?, value);
    }
    Ok(under(builder.with_conditional_put(S3ConditionalPut::ETagMatch).build()?, prefix))
}

fn open_google(settings: &StoreSettings, prefix: Path) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_url(&settings.url)
        .with_client_options(client())
        .with_retry(retry());
    for (key, value) in &settings.options {
        builder = builder.with_config(key.to_ascii_lowercase().parse::<GoogleConfigKey>()?, value);
    }
    Ok(under(builder.build()?, prefix))
}

fn open_azure(settings: &StoreSettings, prefix: Path) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_url(&settings.url)
        .with_client_options(client())
        .with_retry(retry());
    for (key, value) in &settings.options {
        builder = builder.with_config(key.to_ascii_lowercase().parse::<AzureConfigKey>()?, value);
    }
    Ok(under(builder.build()?, prefix))
}

fn under<T: ObjectStore>(store: T, prefix: Path) -> Arc<dyn ObjectStore> {
    if prefix.as_ref().is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) }
}

fn client() -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

/// Builders quote what they cannot read, so the values of options are taken out of their words.
fn refuse(settings: &StoreSettings, error: &object_store::Error) -> Error {
    if let object_store::Error::UnknownConfigurationKey { key, .. } = error {
        return Error::invalid(key, "the object store has no such option");
    }
    let mut message = error.to_string();
    for (_, value) in settings.options.iter().filter(|(key, value)| is_secret(key) && !value.is_empty()) {
        message = message.replace(value.as_str(), "…");
    }
    Error::invalid("options", format!("open object store: {message}"))
}

/// Tells whether objects can be put there, by putting one of that name if it is not there yet.
pub(crate) async fn check_writable(store: &dyn ObjectStore) -> Result<()> {
    let path = Path::from(WRITABLE);
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(&path, WRITABLE_TEXT.into(), options).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(failed) => Err(error("put", &path, failed)),
    }
}

/// What a failed request means to us. Refused credentials may be mended while the worker retries,
/// so they are `Unavailable`, told without the server's words: those quote the request.
pub fn error(doing: &str, path: &Path, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let doing = format!("{doing} {path}");
    match error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            Error::unavailable(format!("{doing}: the object store refused the credentials"))
        }
        Store::NotFound { .. } => Error::not_found(doing).with_source(error),
        Store::AlreadyExists { .. } | Store::Precondition { .. } => {
            Error::new(Kind::Conflict, doing).with_source(error)
        }
        Store::NotSupported { .. } | Store::NotImplemented { .. } | Store::InvalidPath { .. } => {
            Error::internal(doing).with_source(error)
        }
        error => Error::unavailable(doing).with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn settings(url: &str, options: &[(&str, &str)]) -> StoreSettings {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        StoreSettings { url: url.to_owned(), options: options.collect() }
    }

    #[tokio::test]
    async fn a_folder_is_made_and_opened_by_path_and_by_url() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let by_path = open(&settings(path.to_str().unwrap(), &[])).unwrap();
        by_path.put(&Path::from("x/y"), "event".into()).await.unwrap();
        let by_url = open(&settings(&format!("file://{}", path.display()), &[])).unwrap();
        let read = by_url.get(&Path::from("x/y")).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, "event");
        assert_eq!(std::fs::read(path.join("x/y")).unwrap(), b"event");
    }

    #[tokio::test]
    async fn a_store_tells_whether_it_can_be_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects");
        let store = open(&settings(path.to_str().unwrap(), &[])).unwrap();
        check_writable(&*store).await.unwrap();
        check_writable(&*store).await.unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(&path, "no folder").unwrap();
        assert_eq!(check_writable(&*store).await.unwrap_err().kind(), Kind::Unavailable);
    }

    #[test]
    fn remote_stores_open_without_being_asked_and_with_their_prefix() {
        let keys =
            [("aws_access_key_id", "id"), ("aws_secret_access_key", "s3cret"), ("region", "eu-west-1")];
        let store = open(&settings("s3://events/headwater/", &keys)).unwrap();
        assert_eq!(store.to_string(), "PrefixObjectStore(headwater)");
        let store = open(&settings("s3://events", &keys)).unwrap();
        assert_eq!(store.to_string(), "AmazonS3(events)");
        let key = [("azure_storage_account_name", "name"), ("azure_storage_account_key", "c2VjcmV0")];
        let store = open(&settings("az://events/a/b", &key)).unwrap();
        assert_eq!(store.to_string(), "PrefixObjectStore(a/b)");
        assert!(open(&settings("gs://events", &[("google_skip_signature", "true")])).is_ok());
    }

    #[test]
    fn wrong_settings_name_the_field_and_keep_secrets() {
        let secret = "s3cret-s3cret";
        let with_secret = [("aws_secret_access_key", secret), ("aws_request_payer", secret)];
        for (settings, field) in [
            (settings("", &[]), "url"),
            (settings("ftp://host/x", &[]), "url"),
            (settings("s3:///prefix", &[]), "url"),
            (settings(&format!("s3://id:{secret}@events/x"), &[]), "url"),
            (settings(&format!("az://events/x?sig={secret}"), &[]), "url"),
            (settings("s3://events", &[("aws_secret", secret)]), "aws_secret"),
            (settings("/nowhere/headwater", &[("aws_token", secret)]), "aws_token"),
            (settings("s3://events", &with_secret), "options"),
        ] {
            let error = open(&settings).err().unwrap();
            assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some(field)), "{error}");
            let shown = format!("{error} {error:?} {settings:?}");
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn settings_show_what_is_no_secret() {
        let shown = settings(
            "s3://events/x",
            &[("aws_endpoint", "http://127.0.0.1:1"), ("aws_access_key_id", "id"), ("token", "t0ken")],
        );
        assert_eq!(
            format!("{shown:?}"),
            r#"StoreSettings { url: "s3://events/x", options: {"aws_access_key_id": "…", "aws_endpoint": "http://127.0.0.1:1", "token": "…"} }"#
        );
    }
}
