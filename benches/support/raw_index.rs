//! tantivy with nothing around it: flights with a typed schema, written by one writer into one segment.

use std::path::Path;

use serde::Deserialize;
use tantivy::directory::{Directory, MmapDirectory, RamDirectory};
use tantivy::schema::{
    BytesOptions, Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::{Index, SingleSegmentIndexWriter, TantivyDocument};

use super::flights::Flight;

/// What the writer may take before it would cut a second segment; it never does.
const BUDGET_BYTES: usize = 1 << 30;

/// The column that answers are ordered by: microseconds.
pub(crate) const TIME: &str = "time";

/// The schema with its fields: numbers as columns, airports as terms and columns, and the event as it is.
#[derive(Clone)]
pub(crate) struct RawIndex {
    schema: Schema,
    pub(crate) time: Field,
    pub(crate) origin: Field,
    /// Words of every text, where they are searched for.
    pub(crate) text: Option<Field>,
    pub(crate) value: Field,
    destination: Field,
    delay: Field,
    distance: Field,
}

/// What is indexed of a flight, read without a copy.
#[derive(Deserialize)]
struct Indexed<'a> {
    delay: i64,
    distance: i64,
    #[serde(borrow)]
    origin: &'a str,
    #[serde(borrow)]
    destination: &'a str,
}

impl RawIndex {
    /// Every field by itself.
    pub(crate) fn typed() -> Self {
        let mut builder = Schema::builder();
        let number = || NumericOptions::default().set_fast();
        let word = TextFieldIndexing::default()
            .set_tokenizer("raw")
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::Basic);
        let word = TextOptions::default().set_indexing_options(word).set_fast("raw");
        Self {
            time: builder.add_i64_field(TIME, number()),
            delay: builder.add_i64_field("delay", number()),
            distance: builder.add_i64_field("distance", number()),
            origin: builder.add_text_field("origin", word.clone()),
            destination: builder.add_text_field("destination", word),
            value: builder.add_bytes_field("value", BytesOptions::default().set_stored()),
            text: None,
            schema: builder.build(),
        }
    }

    /// The same, and the words of all texts in one field.
    pub(crate) fn with_text() -> Self {
        let typed = Self::typed();
        let mut builder = Schema::builder();
        for (_, entry) in typed.schema.fields() {
            builder.add_field(entry.clone());
        }
        let words = TextFieldIndexing::default()
            .set_tokenizer("default")
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let text = builder.add_text_field("text", TextOptions::default().set_indexing_options(words));
        Self { text: Some(text), schema: builder.build(), ..typed }
    }

    /// One segment in memory.
    pub(crate) fn in_memory<'a>(&self, flights: impl IntoIterator<Item = &'a Flight>) -> Index {
        self.build(RamDirectory::create(), flights)
    }

    /// One segment in a folder.
    pub(crate) fn in_folder<'a>(
        &self,
        folder: &Path,
        flights: impl IntoIterator<Item = &'a Flight>,
    ) -> Index {
        std::fs::create_dir_all(folder).expect("make the folder");
        self.build(MmapDirectory::open(folder).expect("open the folder"), flights)
    }

    fn build<'a>(&self, to: impl Directory, flights: impl IntoIterator<Item = &'a Flight>) -> Index {
        let builder = Index::builder().schema(self.schema.clone());
        let writer = builder.single_segment_index_writer(to, BUDGET_BYTES);
        let mut writer: SingleSegmentIndexWriter = writer.expect("open the writer");
        for flight in flights {
            writer.add_document(self.document(flight)).expect("add a document");
        }
        writer.finalize().expect("write the segment")
    }

    fn document(&self, flight: &Flight) -> TantivyDocument {
        let event: Indexed<'_> = serde_json::from_slice(&flight.value).expect("a flight is JSON");
        let mut document = TantivyDocument::new();
        document.add_i64(self.time, flight.time.micros());
        document.add_i64(self.delay, event.delay);
        document.add_i64(self.distance, event.distance);
        document.add_text(self.origin, event.origin);
        document.add_text(self.destination, event.destination);
        document.add_bytes(self.value, &flight.value);
        if let Some(text) = self.text {
            document.add_text(text, event.origin);
            document.add_text(text, event.destination);
        }
        document
    }
}
