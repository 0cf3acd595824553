//! Objects: their names, and their bytes as a pure function of their events.

use std::io::{self, BufRead, BufReader, Read, Write};

use broker::catalog::Stream;
use broker::log::Entry;
use broker::record::Origin;
use broker::{Error, Kind, Offset, Partition, Result, ResultExt, Stage, Timestamp};
use bytes::Bytes;
use chrono::{Datelike, Timelike};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::line;
use super::packed::Packed;

/// Levels are fixed, and each object is compressed by one thread, so that a retry writes the same
/// bytes.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;
/// How many bytes of lines are gathered before they are compressed.
const GATHERED_BYTES: usize = 128 << 10;

/// How objects are compressed; the end of their names tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `.ndjson.zst`: level 3, with a checksum.
    #[default]
    Zstd,
    /// `.ndjson.gz`: level 6, with neither name nor time in its header.
    Gzip,
    /// `.ndjson`.
    None,
}

impl Compression {
    pub(super) const ALL: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];

    fn extension(self) -> &'static str {
        match self {
            Compression::Zstd => ".ndjson.zst",
            Compression::Gzip => ".ndjson.gz",
            Compression::None => ".ndjson",
        }
    }

    fn of(path: &Path) -> Result<Self> {
        let name = path.filename().unwrap_or_default();
        let known = Self::ALL.into_iter().find(|compression| name.ends_with(compression.extension()));
        known.ok_or_else(|| Error::invalid("path", format!("{path} is no object of the archive")))
    }
}

/// The folder of all objects of a stream, of all its lives.
pub(super) fn folder(stream: &Stream) -> Path {
    let (confidentiality, name) = (stream.definition.confidentiality.name(), stream.name());
    Path::from(format!("processed/{confidentiality}/{}/version={}", name.dataset(), name.version()))
}

/// What the names of a stream's objects begin with, in this life of it.
fn name_prefix(stream: &Stream) -> String {
    format!("{}-{}-", stream.topic(Stage::Processed), stream.definition.incarnation)
}

/// An object's name without its extension: in the folder of its first event's arrival, the topic,
/// the stream's life, the partition and the first offset.
pub(super) fn stem(stream: &Stream, partition: Partition, first: &Entry) -> String {
    let arrival = first.record.arrival.to_utc();
    let (year, month, day, hour) = (arrival.year(), arrival.month(), arrival.day(), arrival.hour());
    let (folder, name) = (folder(stream), name_prefix(stream));
    format!(
        "{folder}/year={year:04}/month={month}/day={day}/hour={hour}/{name}{:05}-{:020}",
        partition.0, first.offset.0
    )
}

pub(super) fn path(stem: &str, compression: Compression) -> Path {
    Path::from(format!("{stem}{}", compression.extension()))
}

/// The partition and first offset in an object's name; none if it is not of this life of the
/// stream.
pub(super) fn parse_name(stream: &Stream, path: &Path) -> Option<(Partition, Offset)> {
    let compression = Compression::of(path).ok()?;
    let name = path.filename()?.strip_suffix(compression.extension())?;
    let (partition, offset) = name.strip_prefix(&name_prefix(stream))?.split_once('-')?;
    Some((Partition(partition.parse().ok()?), Offset(offset.parse().ok()?)))
}

/// Writes the events' lines and compresses them. Blocks.
pub(super) fn encode(partition: Partition, events: &Packed, compression: Compression) -> Result<Bytes> {
    let finish = |finished: io::Result<Vec<u8>>| finished.or_error(Kind::Internal, "compress object");
    let bytes = match compression {
        Compression::None => write_lines(partition, events, Vec::new()),
        Compression::Gzip => {
            let encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
            finish(write_lines(partition, events, encoder)?.finish())
        }
        Compression::Zstd => {
            let encoder = zstd_encoder().or_error(Kind::Internal, "compress object")?;
            finish(write_lines(partition, events, encoder)?.finish())
        }
    };
    bytes.map(Bytes::from)
}

fn zstd_encoder() -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

fn write_lines<W: Write>(partition: Partition, events: &Packed, mut out: W) -> Result<W> {
    let mut lines = Vec::with_capacity(GATHERED_BYTES);
    for entry in events.entries() {
        line::write(partition, &entry?, &mut lines);
        if lines.len() >= GATHERED_BYTES {
            out.write_all(&lines).or_error(Kind::Internal, "compress object")?;
            lines.clear();
        }
    }
    out.write_all(&lines).or_error(Kind::Internal, "compress object")?;
    Ok(out)
}

/// The lines of an object, from its bytes.
pub(super) fn lines(path: &Path, bytes: Bytes) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    let bytes = io::Cursor::new(bytes);
    let decoder: Box<dyn Read> = match Compression::of(path)? {
        Compression::None => Box::new(bytes),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Compression::Zstd => {
            Box::new(zstd::Decoder::new(bytes).or_error(Kind::Internal, "decompress object")?)
        }
    };
    let path = path.clone();
    let damaged = move |error| Error::corrupt(format!("decompress object {path}")).with_source(error);
    Ok(BufReader::new(decoder).split(b'\n').map(move |line| line.map_err(&damaged)))
}

/// Where an event stands and when it happened: what identifies a line.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Identity {
    partition: Partition,
    pub(super) offset: Offset,
    origin: Option<Origin>,
    timestamp: Timestamp,
}

impl Identity {
    pub(super) fn of(partition: Partition, entry: &Entry) -> Self {
        let record = &entry.record;
        Self { partition, offset: entry.offset, origin: record.origin, timestamp: record.time }
    }

    /// The first and the last line of an object. Blocks.
    pub(super) fn ends(path: &Path, bytes: Bytes) -> Result<(Self, Self)> {
        let parse = |line: &[u8]| {
            serde_json::from_slice(line)
                .or_error(Kind::Corrupt, "read a line of the object")
                .map_err(|error| error.context(format!("{path}")))
        };
        let mut lines = lines(path, bytes)?;
        let first = lines.next().ok_or_else(|| Error::corrupt(format!("{path}: the object is empty")))??;
        let mut last = first.clone();
        for line in lines {
            last = line?;
        }
        Ok((parse(&first)?, parse(&last)?))
    }
}
