//! Objects: their names, and their bytes as a pure function of their events.

use std::io::{self, BufRead, BufReader, Read, Write};

use broker::batch::View;
use broker::catalog::Stream;
use broker::record::Origin;
use broker::{Error, Kind, Offset, Partition, Result, ResultExt, Stage, Timestamp};
use bytes::Bytes;
use chrono::{Datelike, Timelike};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

/// Levels are fixed, and each object is compressed by one thread, so that a retry writes the same
/// bytes.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

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
pub(super) fn stem(stream: &Stream, first: &Identity, arrival: Timestamp) -> String {
    let arrival = arrival.to_utc();
    let (year, month, day, hour) = (arrival.year(), arrival.month(), arrival.day(), arrival.hour());
    let (folder, name) = (folder(stream), name_prefix(stream));
    format!(
        "{folder}/year={year:04}/month={month}/day={day}/hour={hour}/{name}{:05}-{:020}",
        first.partition.0, first.offset.0
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

/// Compresses the lines of one object. What comes out depends on the lines and on the steps they are
/// written in.
pub(super) enum Encoder {
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    None(Vec<u8>),
}

impl Encoder {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(Vec::new()),
            Compression::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Self::Gzip(flate2::GzBuilder::new().write(Vec::new(), level))
            }
            Compression::Zstd => {
                Self::Zstd(zstd_encoder().or_error(Kind::Internal, "begin to compress an object")?)
            }
        })
    }

    /// Takes the next lines. Blocks.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<()> {
        let written = match self {
            Self::Zstd(encoder) => encoder.write_all(lines),
            Self::Gzip(encoder) => encoder.write_all(lines),
            Self::None(out) => out.write_all(lines),
        };
        written.or_error(Kind::Internal, "compress object")
    }

    /// The object's bytes. Blocks.
    pub(super) fn finish(self) -> Result<Bytes> {
        let bytes = match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::None(out) => Ok(out),
        };
        bytes.map(Bytes::from).or_error(Kind::Internal, "compress object")
    }

    /// How many bytes have come out so far.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Zstd(encoder) => encoder.get_ref().capacity(),
            Self::Gzip(encoder) => encoder.get_ref().capacity(),
            Self::None(out) => out.capacity(),
        }
    }
}

fn zstd_encoder() -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// The lines of an object, from its bytes.
pub(super) fn lines(path: &Path, bytes: Bytes) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    let lines = decode(Compression::of(path)?, bytes)?;
    let path = path.clone();
    let damaged = move |error| Error::corrupt(format!("decompress object {path}")).with_source(error);
    Ok(lines.map(move |line| line.map_err(&damaged)))
}

/// The lines in an object's bytes.
pub(super) fn decode(
    compression: Compression,
    bytes: Bytes,
) -> Result<impl Iterator<Item = io::Result<Vec<u8>>>> {
    let bytes = io::Cursor::new(bytes);
    let decoder: Box<dyn Read> = match compression {
        Compression::None => Box::new(bytes),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Compression::Zstd => {
            Box::new(zstd::Decoder::new(bytes).or_error(Kind::Internal, "decompress object")?)
        }
    };
    Ok(BufReader::new(decoder).split(b'\n'))
}

/// Where an event stands and when it happened: what identifies a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Identity {
    partition: Partition,
    pub(super) offset: Offset,
    origin: Option<Origin>,
    timestamp: Timestamp,
}

impl Identity {
    pub(super) fn of((partition, offset): (Partition, Offset), event: &View<'_>) -> Self {
        Self { partition, offset, origin: event.origin, timestamp: event.time }
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
