//! Builds pieces in memory. Blocking: 1 to 3 microseconds an event.

use std::path::PathBuf;

use broker::{Entry, Error, Kind, Partition, Result, ResultExt};
use bytes::Bytes;
use tantivy::directory::{Directory, RamDirectory};
use tantivy::schema::TantivyDocument;
use tantivy::{Index, SingleSegmentIndexWriter};

use super::bundle::{self, Footer};
use super::schema::{Fields, OF_RUNS, OF_SPLITS};
use super::segment::Segment;
use super::{Event, document};

/// What tantivy may take before it would cut a second segment; a writer of one segment never does.
const BUDGET_BYTES: usize = 256 << 20;
/// An index for searching only holds no positions.
const UNUSED: Partition = Partition(0);

/// An index of `entries`, which are in answer order, for searching only: a document is the entry of
/// the same number.
pub(crate) fn searchable(entries: &[Entry]) -> Result<Segment> {
    let (directory, _) = write(&OF_RUNS, entries.iter().map(|entry| Ok(Event::of(UNUSED, entry))))?;
    let index = Index::open(directory).or_error(Kind::Internal, "open an index in memory")?;
    Segment::open(&index, entries.len())
}

/// The object of a split: `entries`, which are in answer order, with everything an answer needs.
/// `footer` says what they are; it comes back with the files filled in.
pub(crate) fn build_split(entries: &[Entry], footer: Footer) -> Result<(Bytes, Footer)> {
    let partition = footer.partition;
    pack(entries.iter().map(|entry| Ok(Event::of(partition, entry))), footer)
}

/// The object of a split of `events`, which are in answer order.
pub(super) fn pack(events: impl Iterator<Item = Result<Event>>, footer: Footer) -> Result<(Bytes, Footer)> {
    let (directory, index) = write(&OF_SPLITS, events)?;
    let metas = index.load_metas().or_error(Kind::Internal, "read a new segment")?;
    let mut files: Vec<PathBuf> = metas.list_segment_files().into_iter().collect();
    files.retain(|path| directory.exists(path).unwrap_or(false));
    files.push("meta.json".into());
    files.sort();
    let mut packed = bundle::Packer::new(footer);
    for path in files {
        let file = directory.open_read(&path).or_error(Kind::Internal, "read a new segment")?;
        let bytes = file.read_bytes().or_error(Kind::Internal, "read a new segment")?;
        packed.add(&path.to_string_lossy(), &bytes);
    }
    packed.finish()
}

fn write(fields: &Fields, events: impl Iterator<Item = Result<Event>>) -> Result<(RamDirectory, Index)> {
    let directory = RamDirectory::create();
    let builder = Index::builder().schema(fields.schema.clone());
    let failed = |error| Error::new(Kind::Internal, "build an index segment").with_source(error);
    let mut writer: SingleSegmentIndexWriter =
        builder.single_segment_index_writer(directory.clone(), BUDGET_BYTES).map_err(failed)?;
    for event in events {
        writer.add_document(document_of(fields, &event?)).map_err(failed)?;
    }
    let index = writer.finalize().map_err(failed)?;
    Ok((directory, index))
}

fn document_of(fields: &Fields, event: &Event) -> TantivyDocument {
    let parsed = document::parse(&event.value);
    let mut document = TantivyDocument::new();
    document.add_field_value(fields.event, &parsed);
    document::each_string(&parsed, &mut |text| document.add_text(fields.text, text));
    if let Some(key) = &event.key {
        document.add_bytes(fields.key, key);
    }
    if let Some(stored) = fields.stored {
        document.add_i64(stored.time, event.position.time.micros());
        document.add_u64(stored.offset, event.position.offset.0);
        if let Some(origin) = event.origin {
            document.add_u64(stored.origin_partition, u64::from(origin.partition.0));
            document.add_u64(stored.origin_offset, origin.offset.0);
        }
        document.add_bytes(stored.value, &event.value);
    }
    document
}
