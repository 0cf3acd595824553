//! The fields of a piece. Their numbers are the same in every piece, so that a query is parsed once
//! for all of them; a change of them is a new format version of the bundle.

use std::sync::LazyLock;

use tantivy::schema::{
    BytesOptions, Field, IndexRecordOption, JsonObjectOptions, NumericOptions, Schema, TextFieldIndexing,
    TextOptions,
};

pub(super) const TIME: &str = "time";
pub(super) const OFFSET: &str = "offset";
pub(super) const ORIGIN_PARTITION: &str = "origin_partition";
pub(super) const ORIGIN_OFFSET: &str = "origin_offset";
pub(super) const EVENT: &str = "event";
/// The analyzer of every string: words of letters and digits, in lower case.
pub(super) const WORDS: &str = "default";
const KEY: &str = "key";
const APART: &str = "apart";
const TEXT: &str = "text";
const VALUE: &str = "value";

/// A schema with the numbers of its fields.
#[derive(Clone)]
pub(super) struct Fields {
    pub(super) schema: Schema,
    /// The event's JSON, by path: terms of numbers, booleans, dates and words, and fast columns.
    pub(super) event: Field,
    /// By path, the words of strings that are no words in `event`: dates are instants there, and what
    /// lies below a name with a zero byte is left out.
    pub(super) apart: Field,
    /// Every string of the event, for words that name no path; only where strings stand at too many
    /// paths to look at each.
    pub(super) text: Field,
    pub(super) key: Field,
    pub(super) stored: Option<Stored>,
}

/// The fields that only a split has: a run of the live part answers them from its entries.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    /// Microseconds since 1970.
    pub(super) time: Field,
    pub(super) offset: Field,
    pub(super) origin_partition: Field,
    pub(super) origin_offset: Field,
    /// The event's bytes as they are.
    pub(super) value: Field,
}

/// What a published split holds: everything an answer needs.
pub(super) static OF_SPLITS: LazyLock<Fields> = LazyLock::new(|| {
    let key = BytesOptions::default().set_indexed().set_stored();
    let (mut builder, mut fields) = searchable(event().set_fast("raw"), key);
    let fast = NumericOptions::default().set_fast();
    fields.stored = Some(Stored {
        time: builder.add_i64_field(TIME, fast.clone()),
        offset: builder.add_u64_field(OFFSET, fast.clone()),
        origin_partition: builder.add_u64_field(ORIGIN_PARTITION, fast.clone()),
        origin_offset: builder.add_u64_field(ORIGIN_OFFSET, fast),
        value: builder.add_bytes_field(VALUE, BytesOptions::default().set_stored()),
    });
    Fields { schema: builder.build(), ..fields }
});

/// What a run of the live part holds: only what can be searched for.
pub(super) static OF_RUNS: LazyLock<Fields> = LazyLock::new(|| {
    let (builder, fields) = searchable(event().set_fast("raw"), BytesOptions::default().set_indexed());
    Fields { schema: builder.build(), ..fields }
});

/// The same without columns, which ranges and `*` are answered from, and nothing else.
pub(super) static OF_RUNS_BY_WORDS: LazyLock<Fields> = LazyLock::new(|| {
    let (builder, fields) = searchable(event(), BytesOptions::default().set_indexed());
    Fields { schema: builder.build(), ..fields }
});

fn searchable(event: JsonObjectOptions, key: BytesOptions) -> (tantivy::schema::SchemaBuilder, Fields) {
    let mut builder = Schema::builder();
    let event = builder.add_json_field(EVENT, event);
    let apart = builder.add_json_field(APART, self::event());
    let text = builder.add_text_field(TEXT, TextOptions::default().set_indexing_options(words()));
    let key = builder.add_bytes_field(KEY, key);
    (builder, Fields { schema: Schema::builder().build(), event, apart, text, key, stored: None })
}

/// Values by path, without columns.
fn event() -> JsonObjectOptions {
    JsonObjectOptions::default().set_indexing_options(words())
}

fn words() -> TextFieldIndexing {
    TextFieldIndexing::default()
        .set_tokenizer(WORDS)
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
}
