//! Builds pieces in memory. Blocking: 1 to 3 microseconds an event.

use std::path::PathBuf;
use std::sync::Arc;

use broker::{Entry, Error, Kind, Partition, Result, ResultExt};
use bytes::Bytes;
use tantivy::directory::{Directory, RamDirectory};
use tantivy::{Index, IndexSettings, SingleSegmentIndexWriter};

use super::Event;
use super::bundle::{self, Footer};
use super::document::Indexed;
use super::schema::{Fields, OF_RUNS, OF_RUNS_BY_WORDS, OF_SPLITS};
use super::segment::Segment;
use super::strings::PATHS_MAX;
use super::tree::{Paths, Tree};

/// What tantivy takes the first size of its table of terms from, which it doubles as it fills; a writer
/// of one segment is bound by nothing else of it. A short tail must not clear a table of megabytes.
const BUDGET_BYTES: usize = 1 << 20;
/// An index for searching only holds no positions.
const UNUSED: Partition = Partition(0);

/// An index of `entries`, which are in answer order, for searching only: a document is the entry of
/// the same number.
pub(crate) fn searchable(entries: &[Entry]) -> Result<Segment> {
    in_memory(&OF_RUNS, entries)
}

/// The same for questions without ranges and `*`, at two thirds of the price.
pub(crate) fn searchable_by_words(entries: &[Entry]) -> Result<Segment> {
    in_memory(&OF_RUNS_BY_WORDS, entries)
}

fn in_memory(fields: &'static Fields, entries: &[Entry]) -> Result<Segment> {
    let Written { directory, .. } =
        write(fields, || entries.iter().map(|entry| Ok(Event::of(UNUSED, entry))))?;
    let index = Index::open(directory).or_error(Kind::Internal, "open an index in memory")?;
    Segment::open(&index, entries.len())
}

/// The object of a split: the entries, which are in answer order, with everything an answer needs.
/// `footer` says what they are; it comes back with the files filled in.
pub(crate) fn build_split(entries: &[&Entry], footer: Footer) -> Result<(Bytes, Footer)> {
    let partition = footer.partition;
    pack(|| entries.iter().map(|entry| Ok(Event::of(partition, entry))), footer)
}

/// The object of a split of `events`, which are in answer order.
pub(super) fn pack<E>(events: impl Fn() -> E, footer: Footer) -> Result<(Bytes, Footer)>
where
    E: Iterator<Item = Result<Event>>,
{
    let Written { directory, index, is_json } = write(&OF_SPLITS, events)?;
    let metas = index.load_metas().or_error(Kind::Internal, "read a new segment")?;
    let mut files: Vec<PathBuf> = metas.list_segment_files().into_iter().collect();
    files.retain(|path| directory.exists(path).unwrap_or(false));
    files.push("meta.json".into());
    files.sort();
    let mut opened = Vec::with_capacity(files.len());
    for path in files {
        let file = directory.open_read(&path).or_error(Kind::Internal, "read a new segment")?;
        opened.push((path, file.read_bytes().or_error(Kind::Internal, "read a new segment")?));
    }
    let bytes = opened.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut packed = bundle::Packer::new(Footer { is_json, ..footer }, bytes);
    opened.iter().for_each(|(path, bytes)| packed.add(&path.to_string_lossy(), bytes));
    packed.finish()
}

/// A segment of all events. Those that come are gone through again where their strings turn out to
/// stand at too many paths, which the first few hundred events mostly tell.
fn write<E>(fields: &'static Fields, events: impl Fn() -> E) -> Result<Written>
where
    E: Iterator<Item = Result<Event>>,
{
    match write_narrow(fields, events())? {
        Some(written) => Ok(written),
        None => write_wide(fields, events()),
    }
}

/// Words are found by the paths they stand at; `None` if there are too many of those.
fn write_narrow(
    fields: &'static Fields,
    events: impl Iterator<Item = Result<Event>>,
) -> Result<Option<Written>> {
    let (mut writer, mut tree, mut paths) = (Writer::new(fields)?, Arc::default(), Paths::up_to(PATHS_MAX));
    for event in events {
        let event = event?;
        writer.read(&mut tree, &event, &mut paths);
        if paths.are_too_many() {
            return Ok(None);
        }
        writer.add(&tree, event)?;
    }
    writer.finish().map(Some)
}

/// Words are found in a field of their own.
fn write_wide(fields: &'static Fields, events: impl Iterator<Item = Result<Event>>) -> Result<Written> {
    let (mut writer, mut tree, mut paths) = (Writer::new(fields)?, Arc::default(), Paths::up_to(0));
    for event in events {
        let event = event?;
        writer.read(&mut tree, &event, &mut paths).list_strings();
        writer.add(&tree, event)?;
    }
    writer.finish()
}

struct Writer {
    fields: &'static Fields,
    directory: RamDirectory,
    segment: SingleSegmentIndexWriter<Indexed>,
    is_json: bool,
}

/// A segment in memory.
struct Written {
    directory: RamDirectory,
    index: Index,
    /// Whether every event is JSON.
    is_json: bool,
}

impl Writer {
    fn new(fields: &'static Fields) -> Result<Self> {
        let directory = RamDirectory::create();
        // Where nothing is stored, a thread of its own that compresses is only woken up for nothing.
        let docstore_compress_dedicated_thread = fields.stored.is_some();
        let settings = IndexSettings { docstore_compress_dedicated_thread, ..IndexSettings::default() };
        let builder = Index::builder().schema(fields.schema.clone()).settings(settings);
        let segment = builder.single_segment_index_writer(directory.clone(), BUDGET_BYTES).map_err(failed)?;
        Ok(Self { fields, directory, segment, is_json: true })
    }

    /// Reads an event in the place of the one before, which is indexed and gone.
    fn read<'t>(&mut self, tree: &'t mut Arc<Tree>, event: &Event, paths: &mut Paths) -> &'t mut Tree {
        let tree = Arc::make_mut(tree);
        tree.read(&event.value, paths);
        self.is_json &= tree.is_json();
        tree
    }

    fn add(&mut self, tree: &Arc<Tree>, event: Event) -> Result<()> {
        let document = Indexed { fields: self.fields, event, tree: Arc::clone(tree) };
        self.segment.add_document(document).map_err(failed)
    }

    fn finish(self) -> Result<Written> {
        let index = self.segment.finalize().map_err(failed)?;
        Ok(Written { directory: self.directory, index, is_json: self.is_json })
    }
}

fn failed(error: tantivy::TantivyError) -> Error {
    Error::new(Kind::Internal, "build an index segment").with_source(error)
}
