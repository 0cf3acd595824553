//! The names of splits in object storage.
//!
//! ```text
//! index/{confidentiality}/{dataset}/version={v}/{life}-{partition}-{first offset}.split
//! index/{confidentiality}/{dataset}/version={v}/{life}-{partition}-{first offset}-{end}.split
//! ```
//! The second is a split that was merged from others. Its end stands in its name, so that it is
//! beside the first of its parts, and so that whoever merges the same parts names them alike.

use broker::catalog::Stream;
use broker::{Offset, Partition, StreamName};
use object_store::path::Path as Location;

use crate::split::Footer;

/// The folder of all splits.
pub(super) const INDEX: &str = "index";

/// What the name of a split's object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SplitName {
    pub(crate) partition: Partition,
    pub(crate) first: Offset,
    /// Where it ends, if it was merged.
    pub(crate) merged_end: Option<Offset>,
}

impl SplitName {
    /// The name of the split that a footer describes.
    pub(crate) fn of(footer: &Footer) -> Self {
        let merged_end = footer.is_merged.then_some(footer.end_offset);
        Self { partition: footer.partition, first: footer.first_offset, merged_end }
    }
}

/// Where the splits of one life of a stream lie.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(super) location: Location,
    pub(super) incarnation: u64,
}

impl Folder {
    pub(crate) fn of(stream: &Stream) -> Self {
        let definition = &stream.definition;
        let (dataset, version) = (stream.name().dataset(), stream.name().version());
        let confidentiality = definition.confidentiality.name();
        let location = Location::from(format!("{INDEX}/{confidentiality}/{dataset}/version={version}"));
        Self { location, incarnation: definition.incarnation }
    }

    /// The object of a split.
    pub(crate) fn split(&self, name: SplitName) -> Location {
        let Self { location, incarnation } = self;
        let SplitName { partition, first, merged_end } = name;
        let end = merged_end.map(|end| format!("-{:020}", end.0)).unwrap_or_default();
        Location::from(format!("{location}/{incarnation:020}-{:05}-{:020}{end}.split", partition.0, first.0))
    }

    /// Reads an object's name back; `None` if it is not a split of this life.
    pub(crate) fn read(&self, location: &Location) -> Option<SplitName> {
        let (incarnation, name) = read_file(location)?;
        (incarnation == self.incarnation).then_some(name)
    }
}

/// The stream, its life and the name of a split, from the object's full name; `None` if it is none.
pub(super) fn read(location: &Location) -> Option<(StreamName, u64, SplitName)> {
    let parts: Vec<_> = location.parts().collect();
    let [index, _, dataset, version, _] = &parts[..] else { return None };
    let version = version.as_ref().strip_prefix("version=")?;
    let stream = StreamName::new(dataset.as_ref(), version).ok().filter(|_| index.as_ref() == INDEX)?;
    let (incarnation, name) = read_file(location)?;
    Some((stream, incarnation, name))
}

fn read_file(location: &Location) -> Option<(u64, SplitName)> {
    let name = location.filename()?.strip_suffix(".split")?;
    let numbers: Option<Vec<u64>> = name.split('-').map(|part| part.parse().ok()).collect();
    let (incarnation, partition, first, merged_end) = match numbers?[..] {
        [incarnation, partition, first] => (incarnation, partition, first, None),
        [incarnation, partition, first, end] => (incarnation, partition, first, Some(Offset(end))),
        _ => return None,
    };
    let partition = Partition(u32::try_from(partition).ok()?);
    Some((incarnation, SplitName { partition, first: Offset(first), merged_end }))
}
