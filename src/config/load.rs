//! Puts the layers of the configuration on each other, and says which of them is wrong and where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use figment::error::Kind as Wrong;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::values::Secret;
use super::{Config, Kafka, Objects, Tracking, UserPool, Vehicles, surroundings};
use crate::failure::{Exit, Failure, OrFail};

/// Read if no other file is named and it is there.
const FILE_DEFAULT: &str = "headwater.toml";
/// Sections whose keys are names of somebody else's, with dots in them.
const OPEN_SECTIONS: [&str; 2] = ["kafka.properties.", "objects.options."];
/// The section of a file that holds what each environment has more or otherwise.
const ENVIRONMENTS: &str = "environments";

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    file: Option<PathBuf>,
    environment: Option<String>,
    values: Vec<(String, String, String)>,
}

impl Overrides {
    /// Names the file.
    pub(crate) fn file(&mut self, path: Option<&Path>) {
        self.file = path.map(Path::to_owned);
    }

    /// Names the environment whose part of the file counts.
    pub(crate) fn environment(&mut self, name: Option<&str>) {
        self.environment = name.map(str::to_owned);
    }

    /// Sets a key, if there is a value, and remembers which flag did it.
    pub(crate) fn set(&mut self, flag: &str, key: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.values.push((flag.to_owned(), key.to_owned(), value.into()));
        }
    }
}

/// The configuration, and where each key that is not at its default came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// By the key's full path.
    pub(crate) origins: BTreeMap<String, String>,
}

/// Reads file and environment, adds the flags, and checks the types and names of all keys.
pub(crate) fn load(overrides: &Overrides) -> Result<Loaded, Failure> {
    let file = overrides.file.clone().or_else(surroundings::config_file);
    let path = match file {
        Some(path) => Some(path),
        None => Some(PathBuf::from(FILE_DEFAULT)).filter(|path| path.exists()),
    };
    let file = match path {
        Some(path) => {
            let text = fs::read_to_string(&path).or_fail(format!("read configuration {}", path.display()))?;
            File::read(&path, &text)?
        }
        None => File::default(),
    };
    let environment = overrides.environment.clone().or_else(surroundings::environment);
    let mut layers = file.layers(environment.as_deref())?;
    for (name, value) in surroundings::overrides() {
        layers.push(Layer::variable(&name, &value));
    }
    for (flag, key, value) in &overrides.values {
        layers.push(Layer::text(flag.clone(), key, value));
    }
    merge(layers)
}

fn merge(layers: Vec<Layer>) -> Result<Loaded, Failure> {
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    // Lossy, since the environment and flags hold nothing but text.
    let config = figment.extract_lossy::<Config>().map_err(|error| explain(error, &figment))?;
    let mut origins = BTreeMap::new();
    if let Ok(value) = figment.find_value("") {
        collect_origins(&figment, &value, "", &mut origins);
    }
    Ok(Loaded { config, origins })
}

/// A configuration file: what holds always, and what each environment has more or otherwise.
#[derive(Default)]
struct File {
    always: Option<Layer>,
    environments: BTreeMap<String, Layer>,
}

impl File {
    fn read(path: &Path, text: &str) -> Result<Self, Failure> {
        let mut keys: Dict = Toml::from_str(text).map_err(|error| {
            Failure::new(Exit::Usage, format!("read configuration {}: {error}", path.display()))
        })?;
        let origin = path.display().to_string();
        let mut environments = BTreeMap::new();
        for (name, keys) in section(&mut keys, ENVIRONMENTS)? {
            let Value::Dict(_, keys) = keys else {
                let failure = Failure::new(Exit::Usage, "an environment is a table of keys");
                return Err(failure.with_field(format!("{ENVIRONMENTS}.{name}")));
            };
            let origin = format!("{origin} [{ENVIRONMENTS}.{name}]");
            environments.insert(name, Layer { origin, keys });
        }
        let file = Self { always: Some(Layer { origin, keys }), environments };
        // What is wrong in an environment shows up wherever the file is read, not on the day it is needed.
        file.environments.keys().try_for_each(|name| merge(file.layers(Some(name))?).map(drop))?;
        Ok(file)
    }

    /// The layers for an environment, or for none.
    fn layers(&self, environment: Option<&str>) -> Result<Vec<Layer>, Failure> {
        let mut layers: Vec<Layer> = self.always.iter().cloned().collect();
        let Some(name) = environment else { return Ok(layers) };
        let layer = self.environments.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.environments.keys().map(String::as_str).collect();
            let message = match known.as_slice() {
                [] => format!("there is no environment {name}: the configuration file describes none"),
                known => format!("there is no environment {name}, there are {}", known.join(", ")),
            };
            Failure::new(Exit::Usage, message).with_field("environment")
        })?;
        layers.push(layer.clone());
        Ok(layers)
    }
}

/// Takes a section out of a file's keys; an empty one where it is not there.
fn section(keys: &mut Dict, name: &str) -> Result<Dict, Failure> {
    match keys.remove(name) {
        None => Ok(Dict::new()),
        Some(Value::Dict(_, section)) => Ok(section),
        Some(_) => Err(Failure::new(Exit::Usage, "this is a section").with_field(name)),
    }
}

/// One source of keys.
#[derive(Clone)]
struct Layer {
    origin: String,
    keys: Dict,
}

impl Layer {
    fn variable(name: &str, value: &str) -> Self {
        let mut key = name.to_ascii_lowercase().replace("__", ".");
        if let Some(property) = key.strip_prefix(OPEN_SECTIONS[0]) {
            key = format!("{}{}", OPEN_SECTIONS[0], property.replace('_', "."));
        }
        Self::text(format!("environment variable HEADWATER_{name}"), &key, value)
    }

    fn text(origin: String, key: &str, value: &str) -> Self {
        let mut parts = split(key).into_iter().rev();
        let last = parts.next().unwrap_or_default();
        let leaf = Dict::from([(last.to_owned(), Value::from(value))]);
        let keys = parts.fold(leaf, |inner, part| Dict::from([(part.to_owned(), Value::from(inner))]));
        Self { origin, keys }
    }
}

/// Cuts a key at its dots, but leaves names of somebody else's whole.
fn split(key: &str) -> Vec<&str> {
    let open = OPEN_SECTIONS.iter().find_map(|section| Some((*section, key.strip_prefix(section)?)));
    match open {
        Some((section, name)) => section.trim_end_matches('.').split('.').chain([name]).collect(),
        None => key.split('.').collect(),
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.keys.clone())]))
    }
}

fn collect_origins(figment: &Figment, value: &Value, path: &str, origins: &mut BTreeMap<String, String>) {
    if let Some(dict) = value.as_dict() {
        for (key, inner) in dict {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            collect_origins(figment, inner, &path, origins);
        }
    } else if let Some(metadata) = figment.get_metadata(value.tag()) {
        origins.insert(path.to_owned(), metadata.name.to_string());
    }
}

/// Turns the first thing that is wrong into a sentence with the key, its origin and, for a key that
/// does not exist, the nearest one that does.
fn explain(error: figment::Error, figment: &Figment) -> Failure {
    let path = error.path.join(".");
    let message = match &error.kind {
        Wrong::UnknownField(..) => match nearest(&path) {
            Some(known) => format!("unknown key; the nearest known one is `{known}`"),
            None => "unknown key".to_owned(),
        },
        Wrong::UnknownVariant(name, known) => format!("`{name}` is none of {}", known.join(", ")),
        Wrong::InvalidType(found, expected) | Wrong::InvalidValue(found, expected) => {
            format!("found {found}, expected {expected}")
        }
        other => other.to_string(),
    };
    let found = figment.find_metadata(&path).or(error.metadata.as_ref());
    let origin = found.map(|metadata| format!(" (from {})", metadata.name)).unwrap_or_default();
    Failure::new(Exit::Usage, message + &origin).with_field(path)
}

/// The known key that looks most like `key`: the one of the same name in another section, or the
/// one with the fewest letters to change.
fn nearest(key: &str) -> Option<String> {
    let known = known_keys();
    let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    if let Some(moved) = known.iter().find(|known| name(known) == name(key)) {
        return Some(moved.clone());
    }
    let distance = |known: &String| {
        let whole = strsim::damerau_levenshtein(known, key);
        whole.min(strsim::damerau_levenshtein(&name(known), &name(key)) + 1)
    };
    let best = known.iter().min_by_key(|known| (distance(known), (*known).clone()))?;
    (distance(best) <= key.len().div_ceil(2)).then(|| best.clone())
}

/// The full path of every key, sections of somebody else's names included.
pub(super) fn known_keys() -> Vec<String> {
    let listen = Some(Config::default().listen);
    let whole = Config {
        token: Some(Secret::new("")),
        kafka: Kafka { brokers: Some(String::new()), replication_factor: Some(1), ..Kafka::default() },
        objects: Objects { url: Some(String::new()), ..Objects::default() },
        tracking: Tracking { listen, ..Tracking::default() },
        vehicles: Vehicles { listen, ..Vehicles::default() },
        user_pool: UserPool { listen, url: Some(String::new()), ..UserPool::default() },
        ..Config::default()
    };
    let value = Value::serialize(&whole).expect("the configuration holds texts, numbers and maps only");
    let mut keys = Vec::new();
    let sections = value.as_dict().into_iter().flatten();
    for (key, value) in sections {
        match value.as_dict() {
            Some(section) => keys.extend(section.keys().map(|inner| format!("{key}.{inner}"))),
            None => keys.push(key.clone()),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::values::{Size, Span};
    use super::super::{LogKind, Role};
    use super::*;

    fn file(text: &str) -> Layer {
        parse(text).unwrap().always.unwrap()
    }

    fn parse(text: &str) -> Result<File, Failure> {
        File::read(Path::new("headwater.toml"), text)
    }

    const WITH_ENVIRONMENTS: &str = r#"
        log_level = "warn"
        [limits]
        batch_records_max = 100
        [environments.staging]
        log_level = "debug"
        limits.key_bytes_max = 99
        [environments.production]
        kafka.properties."linger.ms" = 7
        log = "kafka"
    "#;

    #[test]
    fn an_environment_adds_to_what_holds_always() {
        let file = parse(WITH_ENVIRONMENTS).unwrap();
        let loaded = |name| merge(file.layers(name).unwrap()).unwrap();
        assert_eq!(loaded(None).config.log_level, "warn");
        let staging = loaded(Some("staging"));
        assert_eq!((&*staging.config.log_level, staging.config.log), ("debug", LogKind::Sled));
        let limits = &staging.config.limits;
        assert_eq!((limits.batch_records_max, limits.key_bytes_max), (100, Size(99)));
        assert_eq!(staging.origins["log_level"], "headwater.toml [environments.staging]");
        assert_eq!(staging.origins["limits.batch_records_max"], "headwater.toml");
        let production = loaded(Some("production")).config;
        assert_eq!((&*production.log_level, production.log), ("warn", LogKind::Kafka));
        assert_eq!(production.kafka.properties.iter().collect::<Vec<_>>(), [("linger.ms", "7")]);
    }

    #[test]
    fn an_environment_that_is_not_described_is_refused() {
        let refused = |text, name| {
            let layers = parse(text).unwrap().layers(Some(name));
            layers.err().unwrap().to_string()
        };
        let told = refused(WITH_ENVIRONMENTS, "stagin");
        assert_eq!(told, "environment: there is no environment stagin, there are production, staging");
        let told = refused("log = \"sled\"", "staging");
        assert!(told.ends_with("the configuration file describes none"), "{told}");
        assert!(File::default().layers(Some("staging")).is_err());
    }

    #[test]
    fn what_is_wrong_in_an_environment_is_told_whichever_is_used() {
        let refused = |text| parse(text).err().unwrap().to_string();
        let told = refused("[environments.staging]\nlog_levle = \"warn\"");
        assert_eq!(
            told,
            "log_levle: unknown key; the nearest known one is `log_level` (from headwater.toml [environments.staging])"
        );
        assert_eq!(refused("environments = 5"), "environments: this is a section");
        assert_eq!(
            refused("[environments]\nstaging = 5"),
            "environments.staging: an environment is a table of keys"
        );
        let told = refused("[environments.a]\nenvironments.b.log = \"kafka\"");
        assert!(told.starts_with("environments: unknown key"), "{told}");
    }

    fn refused(layers: Vec<Layer>) -> String {
        merge(layers).unwrap_err().to_string()
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let text = "listen = \"127.0.0.1:1\"\ndata = \"from-file\"\nlog = \"kafka\"";
        let loaded = merge(vec![
            file(text),
            Layer::variable("LISTEN", "127.0.0.1:2"),
            Layer::variable("DATA", "from-env"),
            Layer::text("--listen".into(), "listen", "127.0.0.1:3"),
        ])
        .unwrap();
        assert_eq!(loaded.config.listen.port(), 3);
        assert_eq!(loaded.config.data, PathBuf::from("from-env"));
        assert_eq!(loaded.config.log, LogKind::Kafka);
        assert_eq!(loaded.origins["listen"], "--listen");
        assert_eq!(loaded.origins["data"], "environment variable HEADWATER_DATA");
        assert_eq!(loaded.origins["log"], "headwater.toml");
    }

    #[test]
    fn variables_hold_numbers_sizes_times_lists_and_tokens_as_text() {
        let loaded = merge(vec![
            Layer::variable("SHUTDOWN_GRACE_SECONDS", "7"),
            Layer::variable("LIMITS__BODY_BYTES_MAX", "1 MiB"),
            Layer::variable("LIMITS__HEADER_TIME_MAX", "1500 ms"),
            Layer::variable("ROLES", "ingest, query"),
            Layer::variable("TOKEN", "0123456789"),
            Layer::variable("KAFKA__REPLICATION_FACTOR", "3"),
            Layer::variable("KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_ssl"),
            Layer::variable("OBJECTS__OPTIONS__AWS_REGION", "eu-west-1"),
        ])
        .unwrap();
        let config = loaded.config;
        assert_eq!(config.shutdown_grace_seconds, 7);
        assert_eq!(config.limits.body_bytes_max, Size::mib(1));
        assert_eq!(config.limits.header_time_max, Span(Duration::from_millis(1_500)));
        assert!(config.roles.has(Role::Query) && !config.roles.has(Role::Router));
        assert_eq!(config.token.unwrap().expose(), "0123456789");
        assert_eq!(config.kafka.replication_factor, Some(3));
        let properties: Vec<_> = config.kafka.properties.iter().collect();
        assert_eq!(properties, [("security.protocol", "sasl_ssl")]);
        let options: Vec<_> = config.objects.options.iter().collect();
        assert_eq!(options, [("aws_region", "eu-west-1")]);
    }

    #[test]
    fn properties_of_the_file_may_be_numbers() {
        let text = "kafka.properties.\"linger.ms\" = 5\nkafka.properties.\"enable.metrics.push\" = false";
        let config = merge(vec![file(text)]).unwrap().config;
        let properties: Vec<_> = config.kafka.properties.iter().collect();
        assert_eq!(properties, [("enable.metrics.push", "false"), ("linger.ms", "5")]);
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        for (text, key, known) in [
            ("lisen = \"x\"", "lisen", "listen"),
            ("[kafka]\nbroker = \"x\"", "kafka.broker", "kafka.brokers"),
            ("[limits]\nbody_byte_max = 1", "limits.body_byte_max", "limits.body_bytes_max"),
            ("object_age_seconds = 1", "object_age_seconds", "archive.object_age_seconds"),
            ("[archive]\nlog_level = \"info\"", "archive.log_level", "log_level"),
        ] {
            let expected =
                format!("{key}: unknown key; the nearest known one is `{known}` (from headwater.toml)");
            assert_eq!(refused(vec![file(text)]), expected);
        }
        let error = refused(vec![Layer::variable("KAFKA__BROKR", "x")]);
        assert!(error.starts_with("kafka.brokr: unknown key"), "{error}");
        assert!(error.ends_with("(from environment variable HEADWATER_KAFKA__BROKR)"), "{error}");
    }

    #[test]
    fn wrong_values_are_refused_with_key_and_origin() {
        for (text, message) in [
            ("log = \"redis\"", "log: `redis` is none of sled, kafka (from headwater.toml)"),
            (
                "[limits]\nbody_bytes_max = \"big\"",
                "limits.body_bytes_max: found string \"big\", expected a number of bytes or a size such as \
                 \"64 MiB\" (from headwater.toml)",
            ),
            ("[limits]\nbatch_records_max = -1", "limits.batch_records_max: "),
            ("listen = \"here\"", "listen: "),
            ("kafka = 3", "kafka: "),
            ("roles = [\"ingest\", \"cook\"]", "roles.1: `cook` is none of"),
        ] {
            let error = refused(vec![file(text)]);
            assert!(error.starts_with(message), "{error}");
            assert!(error.ends_with("(from headwater.toml)"), "{error}");
        }
        let error = refused(vec![Layer::variable("SHUTDOWN_GRACE_SECONDS", "soon")]);
        assert!(error.starts_with("shutdown_grace_seconds: found"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_with_its_line() {
        let failure = parse("data = \n").err().unwrap();
        assert!(failure.to_string().contains("line 1"), "{failure}");
    }

    #[test]
    fn secrets_are_never_printed() {
        let text = "token = \"very-secret-1\"\n[kafka.properties]\n\"sasl.password\" = \"very-secret-2\"\n\
                    [objects.options]\naws_secret_access_key = \"very-secret-3\"";
        let config = merge(vec![file(text)]).unwrap().config;
        let printed = format!("{config:?} {}", toml::to_string(&config).unwrap());
        assert!(!printed.contains("very-secret"), "{printed}");
        assert!(printed.contains("***"));
    }
}
