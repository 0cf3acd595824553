//! Who is whom, and what is known of them: the rows that profiles are put together from.
//!
//! Both are tables that have several rows of a record. Of an alias: whom an id became, and by whom an id is also known,
//! which is true as long as the first says so. Of a profile: each attribute by itself, so that of two ids that became one
//! the later of each attribute counts.

use std::collections::{BTreeMap, BTreeSet};

use broker::{Error, Result, Timestamp};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::row::{Row, Stamp};
use super::rows::Made;
use super::store::Tree;

/// The longest id, in bytes.
const ID_BYTES_MAX: usize = 4 << 10;
/// How many ids may have become one.
const IDS_MAX: usize = 10_000;
/// How many rows are read at once.
const ROWS_MAX: usize = 1_000;

const BECAME: u8 = b'b';
const KNOWN_AS: u8 = b'k';
const USER: u8 = b'u';
const ATTRIBUTE: u8 = b'a';

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alias {
    new_user_id: String,
    original_user_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described<'r> {
    user_id: String,
    #[serde(borrow, default)]
    attributes: Option<BTreeMap<String, &'r RawValue>>,
}

/// What all that is known of a user comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The id that the others became.
    pub(crate) id: String,
    /// All ids of the user.
    pub(crate) ids: BTreeSet<String>,
    /// The last value of each attribute, as it was sent.
    pub(crate) attributes: BTreeMap<String, Bytes>,
    /// When the last of them arrived.
    pub(crate) updated_at: Option<Timestamp>,
}

/// The rows of an alias.
pub(super) fn alias(record: &[u8]) -> Made {
    let alias: Alias = match serde_json::from_slice(record) {
        Ok(alias) => alias,
        Err(error) => return Made::Refused(error.to_string()),
    };
    let (new, old) = (alias.new_user_id, alias.original_user_id);
    if new.len() > ID_BYTES_MAX || old.len() > ID_BYTES_MAX {
        return Made::Refused(format!("an id has at most {ID_BYTES_MAX} bytes"));
    }
    if new == old {
        return Made::Rows(Vec::new());
    }
    let back = key(KNOWN_AS, &new, Some(&old));
    Made::Rows(vec![(key(BECAME, &old, None), Some(new.into())), (back, Some(Bytes::new()))])
}

/// The rows of what was told of a user.
pub(super) fn attributes(record: &[u8]) -> Made {
    let described: Described<'_> = match serde_json::from_slice(record) {
        Ok(described) => described,
        Err(error) => return Made::Refused(error.to_string()),
    };
    let id = described.user_id;
    if id.len() > ID_BYTES_MAX {
        return Made::Refused(format!("an id has at most {ID_BYTES_MAX} bytes"));
    }
    let mut rows = vec![(key(USER, &id, None), Some(Bytes::new()))];
    for (name, value) in described.attributes.unwrap_or_default() {
        if name.len() > ID_BYTES_MAX {
            return Made::Refused(format!("an attribute's name has at most {ID_BYTES_MAX} bytes"));
        }
        let value = Bytes::copy_from_slice(value.get().as_bytes());
        rows.push((key(ATTRIBUTE, &id, Some(&name)), Some(value)));
    }
    Made::Rows(rows)
}

fn key(tag: u8, id: &str, rest: Option<&str>) -> Bytes {
    let mut key = vec![tag];
    key.extend(u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend(id.as_bytes());
    key.extend(rest.unwrap_or_default().as_bytes());
    key.into()
}

/// The two tables.
pub(super) struct People<'t> {
    pub(super) aliases: &'t Tree,
    pub(super) attributes: &'t Tree,
    pub(super) now: Timestamp,
}

impl People<'_> {
    /// What is known of the user who has or had this id; none where nothing is. Blocks.
    pub(super) fn profile(&self, asked: &str) -> Result<Option<Profile>> {
        let id = self.last_id(asked)?;
        let ids = self.ids(&id)?;
        let (mut found, mut is_known) = (BTreeMap::<String, (Stamp, Row)>::new(), ids.len() > 1);
        for id in &ids {
            is_known |= self.attributes.get(&key(USER, id, None), self.now)?.is_some();
            self.each(self.attributes, &key(ATTRIBUTE, id, None), |name, row| {
                let known = found.get(&name).is_none_or(|(stamp, _)| *stamp < row.stamp);
                if known {
                    found.insert(name, (row.stamp, row));
                }
                Ok(())
            })?;
        }
        let updated_at = found.values().map(|(_, row)| row.arrival).max();
        let attributes = found.into_iter();
        let attributes = attributes.filter_map(|(name, (_, row))| Some((name, row.value?))).collect();
        Ok(is_known.then_some(Profile { id, ids, attributes, updated_at }))
    }

    /// Whom an id became in the end. Of ids that became one another it is whom the last of them became.
    fn last_id(&self, asked: &str) -> Result<String> {
        let (mut way, mut at) = (Vec::<(String, Stamp)>::new(), asked.to_owned());
        while let Some((next, stamp)) = self.became(&at)? {
            way.push((std::mem::replace(&mut at, next), stamp));
            if let Some(first) = way.iter().position(|(id, _)| *id == at) {
                let circle = &way[first..];
                let last = (0..circle.len()).max_by_key(|index| circle[*index].1).unwrap_or_default();
                return Ok(circle[(last + 1) % circle.len()].0.clone());
            }
            if way.len() > IDS_MAX {
                return Err(too_many());
            }
        }
        Ok(at)
    }

    fn became(&self, id: &str) -> Result<Option<(String, Stamp)>> {
        let Some(row) = self.aliases.get(&key(BECAME, id, None), self.now)? else { return Ok(None) };
        let next = String::from_utf8(row.value.unwrap_or_default().into());
        Ok(Some((next.map_err(|_| Error::corrupt("an id is no text"))?, row.stamp)))
    }

    /// Every id that became this one, over others or at once, and itself.
    fn ids(&self, id: &str) -> Result<BTreeSet<String>> {
        let (mut ids, mut ahead) = (BTreeSet::from([id.to_owned()]), vec![id.to_owned()]);
        while let Some(new) = ahead.pop() {
            self.each(self.aliases, &key(KNOWN_AS, &new, None), |old, _| {
                let is_so = self.became(&old)?.is_some_and(|(became, _)| became == new);
                if is_so && ids.insert(old.clone()) {
                    ahead.push(old);
                }
                if ids.len() > IDS_MAX { Err(too_many()) } else { Ok(()) }
            })?;
        }
        Ok(ids)
    }

    /// Shows what stands behind an id in keys, with the rows.
    fn each(
        &self,
        tree: &Tree,
        prefix: &[u8],
        mut each: impl FnMut(String, Row) -> Result<()>,
    ) -> Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let bounds = (ROWS_MAX, usize::MAX, usize::MAX);
            let listed = tree.list((prefix, after.as_deref()), self.now, bounds)?;
            for (key, row) in listed.rows {
                let rest = String::from_utf8(key[prefix.len()..].to_vec());
                each(rest.map_err(|_| Error::corrupt("a name is no text"))?, row)?;
            }
            after = listed.after;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

fn too_many() -> Error {
    Error::invalid("userId", format!("more than {IDS_MAX} ids became this one"))
}
