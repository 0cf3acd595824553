//! Documents that have all of some words, each at any of some paths.
//!
//! They are found a window of documents at a time: the rarest word marks where it stands, and each other
//! word keeps what it has as well. tantivy's own union of postings is a window too, but one that is asked
//! bit by bit; for words that stand at several paths this one takes a third of the time.

use tantivy::postings::BlockSegmentPostings;
use tantivy::query::{EmptyScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError, Term};

/// How many words of 64 bits a window has.
const LANES: usize = 64;
const WINDOW: u32 = 64 * LANES as u32;
/// Up to so many documents of a window are looked up one by one in the postings of a further word.
const FEW: u32 = 24;

/// Every one of these words, each by one of its terms.
#[derive(Clone, Debug)]
pub(super) struct EveryWord(pub(super) Vec<Vec<Term>>);

impl Query for EveryWord {
    fn weight(&self, _scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for EveryWord {
    fn scorer(&self, reader: &SegmentReader, _boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut words = Vec::with_capacity(self.0.len());
        for terms in &self.0 {
            let mut postings = Vec::with_capacity(terms.len());
            for term in terms {
                let index = reader.inverted_index(term.field())?;
                let block = index.read_block_postings(term, IndexRecordOption::Basic)?;
                postings.extend(block.map(|block| Postings { block, place: 0 }));
            }
            words.push(postings);
        }
        let documents = |postings: &Vec<Postings>| -> u64 {
            postings.iter().map(|postings| u64::from(postings.block.doc_freq())).sum()
        };
        words.sort_by_key(documents);
        let cost = words.first().map_or(0, documents);
        if cost == 0 {
            return Ok(Box::new(EmptyScorer));
        }
        let mut found = Found { words, window: [0; LANES], start: 0, lane: LANES, doc: 0, cost };
        found.begin(0);
        Ok(Box::new(found))
    }

    fn explain(&self, _reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        Err(TantivyError::InvalidArgument(format!("document {doc} has no rank")))
    }
}

/// The documents, in their order.
struct Found {
    /// The postings of each word, the rarest first.
    words: Vec<Vec<Postings>>,
    /// What is left of the window that begins at `start`.
    window: [u64; LANES],
    start: DocId,
    /// The first lane that is not empty.
    lane: usize,
    doc: DocId,
    cost: u64,
}

impl Found {
    /// Goes to the first document at or past `target`, which no window was made for yet.
    fn begin(&mut self, target: DocId) -> DocId {
        self.start = target;
        loop {
            let first = self.words[0].iter_mut().map(|postings| postings.reach(self.start)).min();
            self.start = first.unwrap_or(TERMINATED);
            if self.start >= TERMINATED {
                self.lane = LANES;
                self.doc = TERMINATED;
                return TERMINATED;
            }
            self.fill();
            if self.is_at_document() {
                return self.doc;
            }
            self.start += WINDOW;
        }
    }

    fn fill(&mut self) {
        self.window = [0; LANES];
        self.lane = 0;
        let (first, rest) = self.words.split_at_mut(1);
        mark(&mut first[0], self.start, &mut self.window);
        for postings in rest {
            let count: u32 = self.window.iter().map(|lane| lane.count_ones()).sum();
            if count <= FEW {
                keep_each(postings, self.start, &mut self.window);
            } else {
                let mut marks = [0; LANES];
                mark(postings, self.start, &mut marks);
                self.window.iter_mut().zip(marks).for_each(|(lane, marks)| *lane &= marks);
            }
        }
    }

    /// Takes the next document out of the window, if there is one.
    fn is_at_document(&mut self) -> bool {
        while let Some(lane) = self.window.get_mut(self.lane) {
            if *lane != 0 {
                self.doc = self.start + 64 * self.lane as u32 + lane.trailing_zeros();
                *lane &= *lane - 1;
                return true;
            }
            self.lane += 1;
        }
        false
    }
}

/// The documents of a term, a block at a time. Behind those of the last one stands [`TERMINATED`].
struct Postings {
    block: BlockSegmentPostings,
    /// The next document's place in the block.
    place: usize,
}

impl Postings {
    /// The first document at or past `target`, which never falls.
    fn reach(&mut self, target: DocId) -> DocId {
        if self.block.doc(self.place) < target {
            self.place = self.block.seek(target);
        }
        self.block.doc(self.place)
    }

    /// Marks the documents of the window.
    fn mark(&mut self, start: DocId, window: &mut [u64; LANES]) {
        self.reach(start);
        loop {
            let docs = self.block.docs();
            let left = docs.get(self.place..).unwrap_or_default();
            let inside = left.partition_point(|doc| doc - start < WINDOW);
            for doc in &left[..inside] {
                let bit = (doc - start) as usize;
                window[bit / 64] |= 1 << (bit % 64);
            }
            self.place += inside;
            if inside < left.len() || docs.is_empty() {
                return;
            }
            self.block.advance();
            self.place = 0;
        }
    }
}

/// Marks the documents of the window that are in any of the postings.
fn mark(postings: &mut [Postings], start: DocId, window: &mut [u64; LANES]) {
    postings.iter_mut().for_each(|postings| postings.mark(start, window));
}

/// Keeps the marks of documents that are in any of the postings.
fn keep_each(postings: &mut [Postings], start: DocId, window: &mut [u64; LANES]) {
    for (number, lane) in (0..).zip(window) {
        let mut left = *lane;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            let doc = start + 64 * number + left.trailing_zeros();
            if !postings.iter_mut().any(|postings| postings.reach(doc) == doc) {
                *lane &= !bit;
            }
            left &= !bit;
        }
    }
}

impl DocSet for Found {
    fn advance(&mut self) -> DocId {
        if self.doc == TERMINATED || self.is_at_document() {
            return self.doc;
        }
        self.begin(self.start + WINDOW)
    }

    fn seek(&mut self, target: DocId) -> DocId {
        if self.doc >= target {
            return self.doc;
        }
        let place = target - self.start;
        if place >= WINDOW {
            return self.begin(target);
        }
        let lane = (place / 64) as usize;
        if lane > self.lane {
            self.lane = lane;
        }
        self.window[lane] &= u64::MAX << (place % 64);
        self.advance()
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn count_including_deleted(&mut self) -> u32 {
        let mut count = 0;
        while self.doc != TERMINATED {
            count += 1 + self.window[self.lane..].iter().map(|lane| lane.count_ones()).sum::<u32>();
            self.begin(self.start + WINDOW);
        }
        count
    }

    fn size_hint(&self) -> u32 {
        u32::try_from(self.cost).unwrap_or(u32::MAX)
    }

    fn cost(&self) -> u64 {
        self.cost
    }
}

impl Scorer for Found {
    fn score(&mut self) -> Score {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use broker::{Entry, Offset, Record, Timestamp};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use crate::split::{Order, Segment, Take, Terms, searchable};

    /// How often each word stands in an event, of a thousand.
    const WORDS: [(&str, u32); 5] =
        [("rare", 1), ("some", 30), ("often", 300), ("most", 900), ("all", 1_000)];
    const EVENTS: u32 = 12_000;

    fn piece(random: &mut StdRng) -> (Segment, Vec<Vec<&'static str>>) {
        let mut events = Vec::new();
        for _ in 0..EVENTS {
            let words = WORDS.iter().filter(|(_, share)| random.random_range(0..1_000) < *share);
            events.push(words.map(|(word, _)| *word).collect::<Vec<_>>());
        }
        let value = |words: &Vec<&str>, random: &mut StdRng| {
            let at = |word: &&str| format!("\"{word}\":{{\"at\":\"{word}\"}}");
            let cut = random.random_range(0..=words.len());
            let members: Vec<String> = words[cut..].iter().map(at).collect();
            format!("{{\"a\":\"{}\",\"b\":{{{}}}}}", words[..cut].join(" "), members.join(","))
        };
        let entries: Vec<Entry> = (0..)
            .zip(&events)
            .map(|(offset, words)| Entry {
                offset: Offset(offset),
                record: Record::new(value(words, random), Timestamp::MIN),
            })
            .collect();
        (searchable(&entries).unwrap(), events)
    }

    #[test]
    fn documents_with_every_word_are_found_from_anywhere_on() {
        let mut random = StdRng::seed_from_u64(7);
        let (piece, events) = piece(&mut random);
        for number in 0..120 {
            let count = random.random_range(1..=3);
            let words: Vec<&str> = (0..count).map(|_| WORDS[random.random_range(0..5)].0).collect();
            let excluded = if number % 3 == 0 { Some(WORDS[random.random_range(0..4)].0) } else { None };
            let start = random.random_range(0..EVENTS);
            let holds = |event: &Vec<&str>| {
                words.iter().all(|word| event.contains(word))
                    && excluded.is_none_or(|excluded| !event.contains(&excluded))
            };
            let wanted: Vec<u32> = (0..)
                .zip(&events)
                .filter(|(at, event)| *at >= start && holds(event))
                .map(|(at, _)| at)
                .collect();
            let minus = excluded.map_or(String::new(), |excluded| format!(" -{excluded}"));
            let q = format!("{}{minus}", words.join(" "));
            let terms = Terms::parse(Some(&q), None).unwrap().unwrap();
            let take = Take { order: Order::Ascending, limit: usize::MAX };
            assert_eq!(piece.find(&terms, start..EVENTS, take).unwrap(), wanted, "{q} from {start}");
            assert_eq!(piece.count(&terms, start..EVENTS).unwrap(), wanted.len() as u64, "{q} from {start}");
        }
    }
}
