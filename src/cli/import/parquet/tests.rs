//! Files are written here by the library's own writer, column by column.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::basic::{Compression, GzipLevel, ZstdLevel};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType,
    FloatType, Int32Type, Int64Type, Int96, Int96Type,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use indicatif::ProgressBar;
use rstest::rstest;

use super::*;

/// Writes one column of a row group: values, and the levels of those that are optional or repeated.
type Write = Box<dyn Fn(&mut SerializedRowGroupWriter<'_, File>)>;

fn column<T: DataType>(values: Vec<T::T>) -> Write {
    leveled::<T>(values, None, None)
}

fn leveled<T: DataType>(
    values: Vec<T::T>,
    definitions: Option<&'static [i16]>,
    repetitions: Option<&'static [i16]>,
) -> Write {
    Box::new(move |group| {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<T>().write_batch(&values, definitions, repetitions).unwrap();
        column.close().unwrap();
    })
}

fn texts(texts: &[&str]) -> Vec<ByteArray> {
    texts.iter().map(|text| ByteArray::from(*text)).collect()
}

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn write(schema: &str, compression: Compression, groups: &[Vec<Write>]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = Arc::new(parse_message_type(&format!("message rows {{ {schema} }}")).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut file =
        SerializedFileWriter::new(File::create(&path).unwrap(), schema, properties.into()).unwrap();
    for columns in groups {
        let mut group = file.next_row_group().unwrap();
        columns.iter().for_each(|column| column(&mut group));
        group.close().unwrap();
    }
    file.close().unwrap();
    Fixture { _folder: folder, path }
}

fn read(path: &Path, first: u64) -> Result<Vec<String>, String> {
    let rows = Rows::open(path, ProgressBar::hidden(), first).map_err(|failure| failure.to_string())?;
    rows.map(|row| row.map(|row| String::from_utf8(row).unwrap()).map_err(|failure| failure.to_string()))
        .collect()
}

/// One column, read back as the JSON of its field.
fn check(schema: &str, values: Write, expected: &[&str]) {
    let file = write(schema, Compression::UNCOMPRESSED, &[vec![values]]);
    let expected: Vec<String> = expected.iter().map(|value| format!("{{\"a\":{value}}}")).collect();
    assert_eq!(read(&file.path, 0).unwrap(), expected, "{schema}");
}

#[test]
fn numbers_keep_their_value_and_what_json_has_no_number_for_is_null() {
    check("required int32 a;", column::<Int32Type>(vec![-1, i32::MAX]), &["-1", "2147483647"]);
    check("required int32 a (INTEGER(8,true));", column::<Int32Type>(vec![-1]), &["-1"]);
    check("required int32 a (INTEGER(16,false));", column::<Int32Type>(vec![65_535]), &["65535"]);
    check("required int64 a;", column::<Int64Type>(vec![i64::MIN]), &["-9223372036854775808"]);
    check("required int64 a (INTEGER(64,false));", column::<Int64Type>(vec![-1]), &["18446744073709551615"]);
    check("required float a;", column::<FloatType>(vec![0.1, f32::NAN]), &["0.1", "null"]);
    let doubles = vec![0.1, -1e300, f64::NEG_INFINITY];
    check("required double a;", column::<DoubleType>(doubles), &["0.1", "-1e+300", "null"]);
    check("required boolean a;", column::<BoolType>(vec![true, false]), &["true", "false"]);
}

#[test]
fn decimals_are_numbers_as_long_as_a_reader_takes_all_their_digits() {
    let schema = "required int32 a (DECIMAL(9,2));";
    check(schema, column::<Int32Type>(vec![1_230, -5, 0]), &["12.30", "-0.05", "0.00"]);
    check("required int64 a (DECIMAL(15,0));", column::<Int64Type>(vec![-12]), &["-12"]);
    check("required int64 a (DECIMAL(18,1));", column::<Int64Type>(vec![12]), &["\"1.2\""]);
    let long = FixedLenByteArray::from(vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    let schema = "required fixed_len_byte_array(9) a (DECIMAL(21,3));";
    check(schema, column::<FixedLenByteArrayType>(vec![long]), &["\"-18446744073709551.616\""]);
}

#[test]
fn texts_are_escaped_and_nulls_are_kept() {
    let values = leveled::<ByteArrayType>(texts(&["ø\"\n", ""]), Some(&[1, 0, 1]), None);
    check("optional binary a (STRING);", values, &["\"ø\\\"\\n\"", "null", "\"\""]);
    check("required binary a (ENUM);", column::<ByteArrayType>(texts(&["RED"])), &["\"RED\""]);
    check("required binary a (JSON);", column::<ByteArrayType>(texts(&["{}"])), &["\"{}\""]);
    let uuid = FixedLenByteArray::from((0..16).collect::<Vec<u8>>());
    let expected = "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"";
    let schema = "required fixed_len_byte_array(16) a (UUID);";
    check(schema, column::<FixedLenByteArrayType>(vec![uuid]), &[expected]);
    let half = FixedLenByteArray::from(vec![0x00, 0x3e]);
    check(
        "required fixed_len_byte_array(2) a (FLOAT16);",
        column::<FixedLenByteArrayType>(vec![half]),
        &["1.5"],
    );
}

#[test]
fn times_are_rfc_3339_in_utc_with_the_digits_they_need() {
    let second = 978_310_020;
    let timestamps = |unit: &str| format!("required int64 a (TIMESTAMP({unit},true));");
    let millis = column::<Int64Type>(vec![second * 1_000, second * 1_000 + 7]);
    check(&timestamps("MILLIS"), millis, &["\"2001-01-01T00:47:00Z\"", "\"2001-01-01T00:47:00.007Z\""]);
    let micros = column::<Int64Type>(vec![second * 1_000_000 + 7]);
    check(&timestamps("MICROS"), micros, &["\"2001-01-01T00:47:00.000007Z\""]);
    let nanos = column::<Int64Type>(vec![-1, second * 1_000_000_000]);
    let expected = ["\"1969-12-31T23:59:59.999999999Z\"", "\"2001-01-01T00:47:00Z\""];
    check(&timestamps("NANOS"), nanos, &expected);
    let local = "required int64 a (TIMESTAMP(MILLIS,false));";
    check(local, column::<Int64Type>(vec![second * 1_000]), &["\"2001-01-01T00:47:00Z\""]);
    let mut old = Int96::new();
    old.set_data(7_000_000, 0, 2_440_589);
    check("required int96 a;", column::<Int96Type>(vec![old]), &["\"1970-01-02T00:00:00.007Z\""]);
    check("required int32 a (DATE);", column::<Int32Type>(vec![-1]), &["\"1969-12-31\""]);
    let time = "required int32 a (TIME(MILLIS,true));";
    check(time, column::<Int32Type>(vec![3_600_000, 1]), &["\"01:00:00\"", "\"00:00:00.001\""]);
    let time = "required int64 a (TIME(NANOS,true));";
    check(time, column::<Int64Type>(vec![1]), &["\"00:00:00.000000001\""]);
}

#[test]
fn lists_maps_and_structs_become_arrays_and_objects() {
    let list = "optional group a (LIST) { repeated group list { optional int32 element; } }";
    let values = leveled::<Int32Type>(vec![1, 2], Some(&[3, 2, 3, 1, 0]), Some(&[0, 1, 1, 0, 0]));
    check(list, values, &["[1,null,2]", "[]", "null"]);
    let repeated = leveled::<Int32Type>(vec![1, 2], Some(&[1, 1, 0]), Some(&[0, 1, 0]));
    check("repeated int32 a;", repeated, &["[1,2]", "[]"]);

    let map = "required group a (MAP) { repeated group key_value { required int32 key;
        optional int64 value (TIMESTAMP(NANOS,true)); } }";
    let keys = leveled::<Int32Type>(vec![7, 8], Some(&[1, 1, 0]), Some(&[0, 1, 0]));
    let values = leveled::<Int64Type>(vec![0], Some(&[2, 1, 0]), Some(&[0, 1, 0]));
    let file = write(map, Compression::UNCOMPRESSED, &[vec![keys, values]]);
    let expected = ["{\"a\":{\"7\":\"1970-01-01T00:00:00Z\",\"8\":null}}", "{\"a\":{}}"];
    assert_eq!(read(&file.path, 0).unwrap(), expected);

    let nested = "optional group a { required int32 b; optional group c { optional int32 d; } }
        required int32 e;";
    let b = leveled::<Int32Type>(vec![1, 2], Some(&[1, 1, 0]), None);
    let d = leveled::<Int32Type>(vec![3], Some(&[3, 1, 0]), None);
    let file = write(nested, Compression::UNCOMPRESSED, &[vec![b, d, column::<Int32Type>(vec![4, 5, 6])]]);
    let expected = [
        "{\"a\":{\"b\":1,\"c\":{\"d\":3}},\"e\":4}",
        "{\"a\":{\"b\":2,\"c\":null},\"e\":5}",
        "{\"a\":null,\"e\":6}",
    ];
    assert_eq!(read(&file.path, 0).unwrap(), expected);
}

#[test]
fn lists_of_old_writers_are_lists() {
    let two_levels = "required group a (LIST) { repeated int32 element; }";
    let values = leveled::<Int32Type>(vec![1, 2], Some(&[1, 1, 0]), Some(&[0, 1, 0]));
    check(two_levels, values, &["[1,2]", "[]"]);
    let structs = "required group a (LIST) { repeated group array { required int32 b; } }";
    let values = leveled::<Int32Type>(vec![1, 2], Some(&[1, 1, 0]), Some(&[0, 1, 0]));
    check(structs, values, &["[{\"b\":1},{\"b\":2}]", "[]"]);
}

/// Three row groups of 1,000, 0 and 500 rows.
fn three_groups(compression: Compression) -> Fixture {
    let numbers = |range: std::ops::Range<i32>| vec![column::<Int32Type>(range.collect())];
    write("required int32 a;", compression, &[numbers(0..1_000), numbers(0..0), numbers(1_000..1_500)])
}

#[rstest]
#[case(Compression::UNCOMPRESSED)]
#[case(Compression::SNAPPY)]
#[case(Compression::GZIP(GzipLevel::default()))]
#[case(Compression::LZ4)]
#[case(Compression::LZ4_RAW)]
#[case(Compression::ZSTD(ZstdLevel::default()))]
fn every_common_codec_is_read(#[case] compression: Compression) {
    let expected: Vec<String> = (0..1_500).map(|number| format!("{{\"a\":{number}}}")).collect();
    assert_eq!(read(&three_groups(compression).path, 0).unwrap(), expected);
}

#[test]
fn goes_on_at_any_row_of_any_group() {
    let file = three_groups(Compression::UNCOMPRESSED);
    for first in [1, 999, 1_000, 1_001, 1_499, 1_500, 2_000] {
        let rows = read(&file.path, first).unwrap();
        assert_eq!(rows.len() as u64, 1_500_u64.saturating_sub(first), "{first}");
        let expected = (first < 1_500).then(|| format!("{{\"a\":{first}}}"));
        assert_eq!(rows.first().cloned(), expected, "{first}");
    }
}

#[rstest]
#[case("required binary a;", "column a cannot become JSON: it holds bytes that are not marked as text")]
#[case("required fixed_len_byte_array(4) a;", "column a cannot become JSON: it holds bytes")]
#[case("required fixed_len_byte_array(12) a (INTERVAL);", "column a cannot become JSON: an interval")]
#[case("required group a { required int32 b; required binary c (BSON); }", "column a.c cannot become JSON")]
#[case(
    "required group a (MAP) { repeated group key_value { required group key { required int32 b; }
        required int32 value; } }",
    "column a cannot become JSON: a key of JSON is a text"
)]
fn a_column_that_cannot_be_json_is_refused_by_name_before_the_first_row(
    #[case] schema: &str,
    #[case] message: &str,
) {
    let file = write(schema, Compression::UNCOMPRESSED, &[]);
    let refused = Rows::open(&file.path, ProgressBar::hidden(), 0).err().unwrap();
    assert!(refused.to_string().starts_with(message), "{refused}");
    assert_eq!(refused.exit(), Exit::Usage);
}

#[test]
fn a_file_that_is_no_whole_parquet_is_refused_with_its_reason() {
    let file = three_groups(Compression::SNAPPY);
    let whole = fs::read(&file.path).unwrap();
    let shown = file.path.display();
    let with = |bytes: &[u8]| {
        fs::write(&file.path, bytes).unwrap();
        read(&file.path, 0).unwrap_err()
    };
    assert_eq!(with(b"{\"a\":1}"), format!("{shown} is not a Parquet file"));
    assert_eq!(with(b""), format!("{shown} is not a Parquet file"));
    for length in [4, 7, 11, whole.len() / 2, whole.len() - 1] {
        let message = with(&whole[..length]);
        assert_eq!(message, format!("{shown} is truncated: its footer is missing"), "{length}");
    }
    let encrypted = [&whole[..whole.len() - 4], &b"PARE"[..]].concat();
    assert_eq!(with(&encrypted), format!("{shown} is encrypted"));
    let mut hole = whole.clone();
    hole[4..200].fill(0xff);
    assert!(with(&hole).starts_with(&format!("{shown} is damaged: ")));
    let cut_inside = [&whole[..100], &whole[whole.len() - 300..]].concat();
    assert!(with(&cut_inside).starts_with(&format!("{shown} is damaged: ")));
}
