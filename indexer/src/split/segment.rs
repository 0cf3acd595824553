//! Searching a piece: which documents of a range match, and what stands in them.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use broker::{Error, Kind, Offset, Origin, Partition, Result, ResultExt};
use bytes::Bytes;
use tantivy::columnar::{Column, ColumnValues};
use tantivy::query::{EnableScoring, Scorer};
use tantivy::{
    COLLECT_BLOCK_BUFFER_LEN, DocSet, Index, ReloadPolicy, Searcher, SegmentReader, TERMINATED, TantivyError,
};

use super::bundle::{Bundle, Footer};
use super::documents::{self, Stored};
use super::schema::{OF_SPLITS, OFFSET, ORIGIN_OFFSET, ORIGIN_PARTITION, TIME};
use super::strings::Strings;
use super::times::{Times, values};
use super::{Event, Order, Position, Take, Terms};

/// How many documents the newest-first search looks at first; each further step is four times as
/// wide.
const STEP_DOCUMENTS: u32 = 4_096;
/// Blocks of 16 KiB of the document store that one split keeps decompressed.
const STORE_BLOCKS: usize = 32;

/// An opened index of one segment.
pub(crate) struct Segment {
    searcher: Searcher,
    /// Read when somebody first looks for words without a path.
    strings: OnceLock<Strings>,
}

impl Segment {
    pub(super) fn open(index: &Index, documents: usize) -> Result<Self> {
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_BLOCKS)
            .try_into()
            .or_error(Kind::Internal, "open an index segment")?;
        let searcher = reader.searcher();
        let found: u32 = searcher.segment_readers().iter().map(tantivy::SegmentReader::max_doc).sum();
        if searcher.segment_readers().len() != 1 || found as usize != documents {
            return Err(Error::corrupt(format!(
                "an index segment has {found} documents in {} segments, not {documents} in one",
                searcher.segment_readers().len()
            )));
        }
        Ok(Self { searcher, strings: OnceLock::new() })
    }

    pub(super) fn reader(&self) -> &SegmentReader {
        self.searcher.segment_reader(0)
    }

    /// Whether it has what `terms` ask for.
    pub(crate) fn answers(&self, terms: &Terms) -> bool {
        !terms.has_ranges() || self.searcher.schema().get_field_entry(OF_SPLITS.event).is_fast()
    }

    /// Where its strings are found.
    pub(super) fn strings(&self) -> Result<&Strings, TantivyError> {
        if let Some(strings) = self.strings.get() {
            return Ok(strings);
        }
        let read = Strings::of(self.reader())?;
        Ok(self.strings.get_or_init(|| read))
    }

    /// The documents of `range` that match, ordered as wanted.
    pub(crate) fn find(&self, terms: &Terms, range: Range<u32>, take: Take) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        match take.order {
            Order::Ascending => self.each(terms, range, |document| {
                found.push(document);
                found.len() < take.limit
            })?,
            Order::Descending => {
                let (mut end, mut step) = (range.end, STEP_DOCUMENTS);
                while end > range.start && found.len() < take.limit {
                    let start = end.saturating_sub(step).max(range.start);
                    let mut part = Vec::new();
                    self.each(terms, start..end, |document| {
                        part.push(document);
                        true
                    })?;
                    found.extend(part.into_iter().rev());
                    (end, step) = (start, step.saturating_mul(4));
                }
                found.truncate(take.limit);
            }
        }
        Ok(found)
    }

    /// How many documents of `range` match.
    pub(crate) fn count(&self, terms: &Terms, range: Range<u32>) -> Result<u64> {
        let take = Take { order: Order::Ascending, limit: 0 };
        Ok(self.find_and_count(terms, range, 0..0, take)?.1)
    }

    /// The documents of `wanted` that match, ordered as wanted, and how many of `range` do, which
    /// `wanted` is a part of; all in one pass.
    pub(crate) fn find_and_count(
        &self,
        terms: &Terms,
        range: Range<u32>,
        wanted: Range<u32>,
        take: Take,
    ) -> Result<(Vec<u32>, u64)> {
        let mut found = VecDeque::new();
        if range.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let mut documents = self.documents(terms, range.start)?;
        let mut block = [TERMINATED; COLLECT_BLOCK_BUFFER_LEN];
        let mut count = 0;
        loop {
            // Of the first ones no more are looked for; the last ones are known at the end.
            let is_found = take.limit == 0 || take.order == Order::Ascending && found.len() == take.limit;
            if is_found && range.end >= self.reader().max_doc() {
                count += u64::from(documents.count_including_deleted());
                break;
            }
            let filled = documents.fill_buffer(&mut block);
            let inside = block[..filled].partition_point(|document| *document < range.end);
            count += inside as u64;
            let block = &block[..if is_found { 0 } else { inside }];
            for &document in block.iter().filter(|document| wanted.contains(document)) {
                match take.order {
                    Order::Ascending if found.len() == take.limit => break,
                    Order::Descending if found.len() == take.limit => drop(found.pop_front()),
                    _ => {}
                }
                found.push_back(document);
            }
            if inside < COLLECT_BLOCK_BUFFER_LEN {
                break;
            }
        }
        Ok(match take.order {
            Order::Ascending => (found.into(), count),
            Order::Descending => (found.into_iter().rev().collect(), count),
        })
    }

    /// Calls `found` with the matching documents of `range`, rising, while it answers true.
    pub(crate) fn each(
        &self,
        terms: &Terms,
        range: Range<u32>,
        mut found: impl FnMut(u32) -> bool,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut documents = self.documents(terms, range.start)?;
        // A block at a time: each step of the whole condition by itself would be a virtual call.
        let mut block = [TERMINATED; COLLECT_BLOCK_BUFFER_LEN];
        loop {
            let filled = documents.fill_buffer(&mut block);
            for &document in &block[..filled] {
                if document >= range.end || !found(document) {
                    return Ok(());
                }
            }
            if filled < block.len() {
                return Ok(());
            }
        }
    }

    /// The matching documents from `start` on.
    fn documents(&self, terms: &Terms, start: u32) -> Result<Box<dyn Scorer>> {
        let failed = |error| Error::new(Kind::Internal, "search the index").with_source(error);
        let query = terms.query(self).map_err(failed)?;
        let scoring = EnableScoring::disabled_from_searcher(&self.searcher);
        let weight = query.weight(scoring).map_err(failed)?;
        let mut documents = weight.scorer(self.reader(), 1.0).map_err(failed)?;
        if documents.doc() < start {
            documents.seek(start);
        }
        Ok(documents)
    }
}

/// A published split, opened.
pub(crate) struct Split {
    segment: Segment,
    footer: Arc<Footer>,
    times: Times,
    offset: Arc<dyn ColumnValues<u64>>,
    origin: Option<(Column<u64>, Column<u64>)>,
}

impl Split {
    /// Opens a file that holds a split's object. Blocking.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bundle = Bundle::open(path)?;
        let footer = Arc::clone(&bundle.footer);
        let damaged = |error| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Error::corrupt(format!("split {name}: the segment cannot be opened")).with_source(error)
        };
        let index = Index::open(bundle).map_err(damaged)?;
        let segment = Segment::open(&index, footer.count as usize)?;
        let columns = segment.reader().fast_fields();
        let times = Times::of(columns.i64(TIME).map_err(damaged)?, footer.count);
        let offset = values(columns.u64(OFFSET).map_err(damaged)?);
        let origin_partition = columns.column_opt::<u64>(ORIGIN_PARTITION).map_err(damaged)?;
        let origin_offset = columns.column_opt::<u64>(ORIGIN_OFFSET).map_err(damaged)?;
        Ok(Self { segment, footer, times, offset, origin: origin_partition.zip(origin_offset) })
    }

    /// What it covers.
    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Its searchable fields.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// When each document was.
    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    /// Where a document stands.
    pub(crate) fn position(&self, document: u32) -> Position {
        let time = self.times.of_document(document);
        let offset = Offset(self.offset.get_val(document));
        Position { time, partition: self.footer.partition, offset }
    }

    /// Reads a whole document.
    pub(crate) fn event(&self, document: u32) -> Result<Event> {
        let Stored { key, value } = documents::read(&self.segment.searcher, document)?;
        Ok(Event {
            position: self.position(document),
            origin: self.origin(document),
            key: key.map(Bytes::from),
            value: value.into(),
        })
    }

    /// The raw event that a document was made from.
    pub(crate) fn origin(&self, document: u32) -> Option<Origin> {
        let (partition, offset) = self.origin.as_ref()?;
        let partition = Partition(u32::try_from(partition.first(document)?).ok()?);
        Some(Origin { partition, offset: Offset(offset.first(document)?) })
    }
}
