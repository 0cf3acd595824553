//! CSV with a header line as JSON objects. Columns keep their order and their names.
//!
//! With types inferred, a column becomes numbers if every cell that is not empty is a JSON number
//! that a reader takes exactly (so `02134`, `1e5` and `+1` keep a column text), and truth values if
//! every such cell is `true` or `false`; an empty cell of such a column becomes `null`. Numbers keep
//! their digits as they were written. Inferring is the default, since a column of numbers is what
//! range queries and sums need, and the rule changes no value that could be meant as text.

use std::io::Read;

use csv::{ReaderBuilder, StringRecord};

use crate::failure::{Exit, Failure};

/// What a column's cells become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Text,
    Number,
    Truth,
}

/// Rows as JSON objects.
pub(super) struct Rows<R> {
    reader: csv::Reader<R>,
    names: Vec<String>,
    columns: Vec<Column>,
    row: StringRecord,
}

/// Looks at every row for what its columns hold.
pub(super) fn infer<R: Read>(input: R, delimiter: u8) -> Result<Vec<Column>, Failure> {
    let mut reader = reader(input, delimiter);
    let count = reader.headers().map_err(failed)?.len();
    let mut seen = vec![Seen::default(); count];
    let mut row = StringRecord::new();
    while reader.read_record(&mut row).map_err(failed)? {
        row.iter()
            .zip(&mut seen)
            .filter(|(cell, _)| !cell.is_empty())
            .for_each(|(cell, seen)| seen.add(cell));
    }
    Ok(seen.into_iter().map(Seen::column).collect())
}

#[derive(Clone, Copy, Default)]
struct Seen {
    cells: u64,
    numbers: u64,
    truths: u64,
}

impl Seen {
    fn add(&mut self, cell: &str) {
        self.cells += 1;
        self.numbers += u64::from(is_number(cell));
        self.truths += u64::from(matches!(cell, "true" | "false"));
    }

    fn column(self) -> Column {
        match self {
            Seen { cells: 0, .. } => Column::Text,
            Seen { cells, numbers, .. } if cells == numbers => Column::Number,
            Seen { cells, truths, .. } if cells == truths => Column::Truth,
            _ => Column::Text,
        }
    }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?` that fits: an integer in 64 bits, a fraction in 15 digits.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !all_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return false;
    }
    match fraction {
        None => cell.parse::<i64>().is_ok(),
        Some(fraction) => all_digits(fraction) && whole.len() + fraction.len() <= 15,
    }
}

impl<R: Read> Rows<R> {
    /// Rows with these columns; all text where none are given.
    pub(super) fn new(input: R, delimiter: u8, columns: Option<Vec<Column>>) -> Result<Self, Failure> {
        let mut reader = reader(input, delimiter);
        let names = names(reader.headers().map_err(failed)?)?;
        let columns = columns.unwrap_or_else(|| vec![Column::Text; names.len()]);
        Ok(Self { reader, names, columns, row: StringRecord::new() })
    }

    fn object(&self) -> Vec<u8> {
        let mut object = Vec::with_capacity(self.row.as_slice().len() * 2);
        let mut before = b'{';
        for ((name, column), cell) in self.names.iter().zip(&self.columns).zip(&self.row) {
            object.push(before);
            object.extend_from_slice(name.as_bytes());
            object.push(b':');
            match column {
                Column::Number | Column::Truth if cell.is_empty() => object.extend_from_slice(b"null"),
                Column::Number | Column::Truth => object.extend_from_slice(cell.as_bytes()),
                Column::Text => object.extend_from_slice(json_text(cell).as_bytes()),
            }
            before = b',';
        }
        object.push(b'}');
        object
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Vec<u8>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.read_record(&mut self.row) {
            Ok(true) => Some(Ok(self.object())),
            Ok(false) => None,
            Err(error) => Some(Err(failed(error))),
        }
    }
}

fn reader<R: Read>(input: R, delimiter: u8) -> csv::Reader<R> {
    ReaderBuilder::new().delimiter(delimiter).from_reader(input)
}

/// The columns' names as JSON texts; a column without a name is called by its number.
fn names(headers: &StringRecord) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::with_capacity(headers.len());
    for (index, header) in headers.iter().enumerate() {
        let name = match header.trim() {
            "" => json_text(&format!("column_{}", index + 1)),
            header => json_text(header),
        };
        if names.contains(&name) {
            let message = format!("two columns are called {name}");
            return Err(Failure::new(Exit::Usage, message));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(Failure::new(Exit::Usage, "the file has no header line"));
    }
    Ok(names)
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn failed(error: csv::Error) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, columns: Option<Vec<Column>>) -> Result<Vec<String>, String> {
        let rows = Rows::new(text.as_bytes(), b',', columns).map_err(|failure| failure.to_string())?;
        let strings = rows.map(|row| row.map(|row| String::from_utf8(row).unwrap()));
        strings.collect::<Result<_, _>>().map_err(|failure| failure.to_string())
    }

    fn inferred(text: &str) -> Vec<String> {
        rows(text, Some(infer(text.as_bytes(), b',').unwrap())).unwrap()
    }

    #[test]
    fn headers_with_blanks_and_signs_become_field_names() {
        let text = "Airport Name,Cost Total $\n\"O'HARE, \"\"INTL\"\"\",1200\n";
        let expected = [r#"{"Airport Name":"O'HARE, \"INTL\"","Cost Total $":1200}"#];
        assert_eq!(inferred(text), expected);
        let as_text = [r#"{"Airport Name":"O'HARE, \"INTL\"","Cost Total $":"1200"}"#];
        assert_eq!(rows(text, None).unwrap(), as_text);
    }

    #[test]
    fn a_column_is_numbers_only_if_all_its_cells_are() {
        let text = "id,speed,zip,ok,note\n1,1.50,02134,true,\n-2,,10001,false,\n";
        let expected = [
            r#"{"id":1,"speed":1.50,"zip":"02134","ok":true,"note":""}"#,
            r#"{"id":-2,"speed":null,"zip":"10001","ok":false,"note":""}"#,
        ];
        assert_eq!(inferred(text), expected);
    }

    #[test]
    fn only_numbers_that_a_reader_takes_exactly_are_numbers() {
        for cell in ["0", "-1", "10", "9223372036854775807", "0.5", "-12.340"] {
            assert!(is_number(cell), "{cell}");
            assert!(serde_json::from_str::<serde_json::Number>(cell).is_ok(), "{cell}");
        }
        for cell in
            ["", "-", "01", "+1", "1e5", ".5", "5.", "NaN", "9223372036854775808", "0.1234567890123456", " 1"]
        {
            assert!(!is_number(cell), "{cell}");
        }
    }

    #[test]
    fn files_that_make_no_objects_are_refused() {
        assert!(rows("a,a\n1,2\n", None).unwrap_err().contains("two columns are called \"a\""));
        assert!(rows("a,b\n1\n", None).unwrap_err().contains("line: 2"));
        assert!(rows("", None).unwrap_err().contains("no header line"));
        assert_eq!(rows("a,\n1,2\n", None).unwrap(), [r#"{"a":"1","column_2":"2"}"#]);
    }
}
