//! Values with a unit or a secret in them, as the configuration writes and reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::Role;

/// What is printed in place of a secret.
pub(crate) const HIDDEN: &str = "***";

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Hides a text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// A number of bytes; written as a number or as a text such as `64 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Size {
    /// So many kibibytes.
    pub(crate) const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many mebibytes.
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// As a length in memory; the largest one where it does not fit.
    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = split_unit(text);
        let (_, factor) = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(if unit.is_empty() { "B" } else { unit }))
            .ok_or(())?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*factor).map(Self).ok_or(());
        }
        let bytes = number.parse::<f64>().map_err(|_| ())? * *factor as f64;
        if (0.0..1e18).contains(&bytes) { Ok(Self(bytes as u64)) } else { Err(()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        let (name, factor) = SIZE_UNITS[..5].iter().rev().find(fits).unwrap_or(&SIZE_UNITS[0]);
        write!(f, "{} {name}", self.0 / factor)
    }
}

/// A length of time; written as a number of seconds or as a text such as `10 s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

const SPAN_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    /// So many seconds.
    pub(crate) const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }
}

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = split_unit(text);
        let unit = if unit.is_empty() { "s" } else { unit };
        let (_, millis) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or(())?;
        let count = number.parse::<f64>().map_err(|_| ())? * *millis as f64;
        if (0.0..1e15).contains(&count) { Ok(Self(Duration::from_millis(count as u64))) } else { Err(()) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let fits = |(_, millis): &&(&str, u64)| all >= *millis && all.is_multiple_of(*millis);
        let (name, millis) = SPAN_UNITS.iter().rev().find(fits).unwrap_or(&SPAN_UNITS[0]);
        write!(f, "{} {name}", all / millis)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..end].trim(), &text[end..])
}

/// Takes a number, or a text that `T` reads.
struct NumberOrText<T> {
    expected: &'static str,
    number: fn(u64) -> T,
}

impl<T: FromStr> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.number)(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let positive = u64::try_from(number);
        positive.map(self.number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number of bytes or a size such as \"64 MiB\"";
        deserializer.deserialize_any(NumberOrText { expected, number: Size })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number of seconds or a time such as \"10 s\"";
        deserializer.deserialize_any(NumberOrText { expected, number: Span::seconds })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Settings that are handed on to a library by name. Those whose name speaks of a secret are never
/// printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Properties(BTreeMap<String, Scalar>);

impl Properties {
    /// Names and values, in the order of names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.0.as_str()))
    }

    fn shown(&self) -> BTreeMap<&str, &str> {
        let show = |(name, value)| (name, if is_secret(name) { HIDDEN } else { value });
        self.iter().map(show).collect()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

/// Whether the value of a setting with this name is kept out of sight.
fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 8] =
        ["password", "secret", "token", "key", "credential", "sas", "jaas", "oauthbearer.config"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| match *word {
        "sas" => name.split(['_', '.']).any(|part| part == "sas"),
        word => name.contains(word),
    })
}

/// A text, a number or a truth value, kept as text.
#[derive(Clone, PartialEq, Eq)]
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor).map(Self)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or true or false")
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

/// Names; written as a list, or as one text with commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Names(BTreeSet<String>);

impl Names {
    /// These names.
    pub(crate) fn of<const N: usize>(names: [&str; N]) -> Self {
        Self(names.map(str::to_owned).into())
    }

    /// Each of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor).map(Self)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = BTreeSet<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(names.map(str::to_owned).collect())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = list.next_element()? {
            names.insert(name);
        }
        Ok(names)
    }
}

/// Which parts of the server run in this process; written as a list, or as one text with commas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Roles(BTreeSet<Role>);

impl Roles {
    /// Every part.
    pub(crate) fn all() -> Self {
        Self(Role::ALL.into_iter().collect())
    }

    /// Whether a part runs.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether no part runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RolesVisitor).map(Self)
    }
}

struct RolesVisitor;

impl<'de> Visitor<'de> for RolesVisitor {
    type Value = BTreeSet<Role>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ingest, router, sinks and query")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| Role::deserialize(de::value::StrDeserializer::new(name))).collect()
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut roles = BTreeSet::new();
        while let Some(role) = list.next_element()? {
            roles.insert(role);
        }
        Ok(roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5 kib", 1_536),
            ("2 GB", 2_000_000_000),
            (" 7 B ", 7),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "64 miles", "99999999999 TiB", "1e400"] {
            assert_eq!(text.parse::<Size>(), Err(()), "{text}");
        }
    }

    #[test]
    fn sizes_and_spans_are_written_in_the_largest_exact_unit_and_read_back() {
        for (bytes, text) in [(0, "0 B"), (1_000, "1000 B"), (1 << 20, "1 MiB"), (1_536, "1536 B")] {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)));
        }
        for (millis, text) in [(0, "0 ms"), (1_500, "1500 ms"), (10_000, "10 s"), (86_400_000, "1 d")] {
            let span = Span(Duration::from_millis(millis));
            assert_eq!(span.to_string(), text);
            assert_eq!(text.parse::<Span>(), Ok(span));
        }
    }

    #[test]
    fn names_of_secrets_are_known() {
        for name in ["sasl.password", "ssl.key.pem", "aws_secret_access_key", "azure_storage_sas_key", "sas"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["security.protocol", "sasl.mechanism", "aws_region", "linger.ms"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
