//! Reading many whole documents of a split, rising, as an export does.
//!
//! A document that is asked for by its number costs a search for its block. One after the other,
//! each block is found and decompressed once.

use broker::{Error, Kind, Result, ResultExt};
use tantivy::schema::Field;
use tantivy::schema::document::{
    DeserializeError, DocumentDeserialize, DocumentDeserializer, ValueDeserialize, ValueDeserializer,
};
use tantivy::store::StoreReader;
use tantivy::{DocAddress, Searcher};

use super::schema::OF_SPLITS;
use super::segment::Split;

/// Blocks that are kept decompressed where documents are asked for by their numbers.
const BLOCKS_KEPT: usize = 2;

/// What is stored of an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
}

/// The stored documents of a split, opened for one reader.
pub(crate) struct Documents {
    store: StoreReader,
}

impl Documents {
    pub(crate) fn of(split: &Split) -> Result<Self> {
        let store = split.segment().reader().get_store_reader(BLOCKS_KEPT);
        Ok(Self { store: store.or_error(Kind::Corrupt, "open the documents of a split")? })
    }

    /// The document of a number.
    pub(crate) fn get(&self, document: u32) -> Result<Stored> {
        checked(self.store.get(document))
    }

    /// The documents from `first` on. Those before it are read as well.
    pub(crate) fn each_from(&self, first: u32) -> impl Iterator<Item = Result<Stored>> + '_ {
        self.store.iter(None).skip(first as usize).map(checked)
    }
}

/// The document of a number, from the blocks that are kept for all readers.
pub(super) fn read(searcher: &Searcher, document: u32) -> Result<Stored> {
    checked(searcher.doc(DocAddress::new(0, document)))
}

fn checked(read: tantivy::Result<Found>) -> Result<Stored> {
    let Found { key, value } = read.or_error(Kind::Corrupt, "read a document of a split")?;
    let value = value.ok_or_else(|| Error::corrupt("a document of a split has no value"))?;
    Ok(Stored { key, value })
}

/// What stands in the document store.
#[derive(Default)]
struct Found {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl DocumentDeserialize for Found {
    fn deserialize<'de, D: DocumentDeserializer<'de>>(mut document: D) -> Result<Self, DeserializeError> {
        let of_value = OF_SPLITS.stored.map(|stored| stored.value);
        let mut found = Self::default();
        while let Some((field, Raw(bytes))) = document.next_field::<Raw>()? {
            let place = match field {
                field if Some(field) == of_value => &mut found.value,
                field if field == OF_SPLITS.key => &mut found.key,
                field => return Err(unknown(field)),
            };
            *place = Some(bytes);
        }
        Ok(found)
    }
}

fn unknown(field: Field) -> DeserializeError {
    DeserializeError::custom(format!("field {} is not one of those that are stored", field.field_id()))
}

struct Raw(Vec<u8>);

impl ValueDeserialize for Raw {
    fn deserialize<'de, D: ValueDeserializer<'de>>(value: D) -> Result<Self, DeserializeError> {
        value.deserialize_bytes().map(Self)
    }
}
