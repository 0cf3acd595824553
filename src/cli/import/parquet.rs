//! Parquet as JSON objects: a record a row, a field a column, in the file's order (ADR 0060).
//!
//! Row groups are read one after the other and pages one at a time, so that memory does not grow with
//! the file. What cannot become JSON is refused before the first row is read.

mod shape;
#[cfg(test)]
mod tests;
mod value;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::parquet::basic::Compression;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::RowGroupMetaData;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::{ReaderIter, TreeBuilder};
use indicatif::ProgressBar;

use self::shape::Group;
use crate::failure::{Exit, Failure, OrFail};

/// What a Parquet file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// What it ends with where its footer is encrypted.
const MAGIC_ENCRYPTED: &[u8; 4] = b"PARE";
/// The bar is moved every so many rows.
const ROWS_BETWEEN_MOVES: u64 = 256;

/// The rows of a file.
pub(super) struct Rows {
    path: PathBuf,
    file: SerializedFileReader<File>,
    shape: Group,
    bar: ProgressBar,
    /// The row group that `rows` comes from; the first one where there is none yet.
    group: usize,
    rows: Option<ReaderIter>,
    /// Rows of this group that were read.
    read: u64,
    failed: bool,
}

/// Whether a file begins like Parquet, whatever it is called.
pub(super) fn is_parquet(path: &Path) -> Result<bool, Failure> {
    let mut file = File::open(path).or_fail(format!("open {}", path.display()))?;
    let mut first = Vec::new();
    file.by_ref().take(4).read_to_end(&mut first).or_fail(format!("read {}", path.display()))?;
    Ok(first == MAGIC)
}

impl Rows {
    /// Opens a file at its row number `first`, of which the groups before are not read. The bar is
    /// over the bytes of the file.
    pub(super) fn open(path: &Path, bar: ProgressBar, first: u64) -> Result<Self, Failure> {
        check_ends(path)?;
        let input = File::open(path).or_fail(format!("open {}", path.display()))?;
        let file = SerializedFileReader::new(input).map_err(|error| broken(path, &error))?;
        let metadata = file.metadata();
        let shape = Group::of(metadata.file_metadata().schema())?;
        metadata.row_groups().iter().try_for_each(check_codecs)?;
        let path = path.to_owned();
        let mut rows = Self { path, file, shape, bar, group: 0, rows: None, read: 0, failed: false };
        rows.pass_over(first)?;
        Ok(rows)
    }

    fn pass_over(&mut self, first: u64) -> Result<(), Failure> {
        let mut left = first;
        while let Some(group) = self.group().filter(|group| rows_of(group) <= left) {
            left -= rows_of(group);
            self.group += 1;
        }
        for _ in 0..left {
            self.next_row()?;
        }
        Ok(())
    }

    fn group(&self) -> Option<&RowGroupMetaData> {
        self.file.metadata().row_groups().get(self.group)
    }

    fn next_row(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        while self.group < self.file.num_row_groups() {
            if self.rows.is_none() {
                self.rows = Some(self.read_group().map_err(|error| broken(&self.path, &error))?);
                self.read = 0;
            }
            if let Some(row) = self.rows.as_mut().and_then(Iterator::next) {
                let row = row.map_err(|error| broken(&self.path, &error))?;
                self.count_row();
                return self.shape.object(&row).map(Some);
            }
            self.rows = None;
            self.group += 1;
        }
        Ok(None)
    }

    fn read_group(&self) -> Result<ReaderIter, ParquetError> {
        let group = self.file.get_row_group(self.group)?;
        let schema = self.file.metadata().file_metadata().schema_descr_ptr();
        TreeBuilder::new().as_iter(schema, &*group)
    }

    /// Moves the bar to the share of the file's row groups that was read.
    fn count_row(&mut self) {
        self.read += 1;
        if !self.read.is_multiple_of(ROWS_BETWEEN_MOVES) {
            return;
        }
        let groups = self.file.metadata().row_groups();
        let before: u64 = groups[..self.group].iter().map(bytes_of).sum();
        let group = &groups[self.group];
        let share = self.read as f64 / rows_of(group).max(1) as f64;
        self.bar.set_position(before + (bytes_of(group) as f64 * share) as u64);
    }
}

impl Iterator for Rows {
    type Item = Result<Vec<u8>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.next_row();
        self.failed = row.is_err();
        row.transpose()
    }
}

/// Tells a file that is none of Parquet from one that was cut off: the footer stands at the end.
fn check_ends(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let doing = || format!("read {shown}");
    if !is_parquet(path)? {
        return Err(Failure::new(Exit::Usage, format!("{shown} is not a Parquet file")));
    }
    let mut last = [0; 4];
    let mut file = File::open(path).or_fail(doing())?;
    file.seek(SeekFrom::End(-4)).or_fail(doing())?;
    file.read_exact(&mut last).or_fail(doing())?;
    let length = file.stream_position().or_fail(doing())?;
    match &last {
        MAGIC_ENCRYPTED => Err(Failure::new(Exit::Usage, format!("{shown} is encrypted"))),
        // A footer has at least its own length and the four bytes behind that.
        MAGIC if length >= 12 => Ok(()),
        _ => Err(Failure::new(Exit::Usage, format!("{shown} is truncated: its footer is missing"))),
    }
}

fn check_codecs(group: &RowGroupMetaData) -> Result<(), Failure> {
    let is_known = |codec| {
        matches!(
            codec,
            Compression::UNCOMPRESSED
                | Compression::SNAPPY
                | Compression::GZIP(_)
                | Compression::LZ4
                | Compression::LZ4_RAW
                | Compression::ZSTD(_)
        )
    };
    match group.columns().iter().find(|column| !is_known(column.compression())) {
        None => Ok(()),
        Some(column) => {
            let (name, codec) = (column.column_path().string(), column.compression());
            let message = format!(
                "column {name} is compressed with {codec}; those that are read are snappy, gzip, lz4 and zstd"
            );
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

fn rows_of(group: &RowGroupMetaData) -> u64 {
    group.num_rows().try_into().unwrap_or(0)
}

fn bytes_of(group: &RowGroupMetaData) -> u64 {
    group.compressed_size().try_into().unwrap_or(0)
}

fn broken(path: &Path, error: &ParquetError) -> Failure {
    Failure::new(Exit::Failure, format!("{} is damaged: {error}", path.display()))
}
