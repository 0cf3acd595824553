//! Cuts a stream of JSON into its values, byte for byte, without holding more than one of them.
//! Whether a value is valid is the server's to say.

use std::io::{self, BufRead, Read};

use crate::failure::{Exit, Failure, OrFail};

/// The longest record that is read; a server's own limit is lower.
pub(super) const RECORD_BYTES_MAX: usize = 64 << 20;

/// The elements of one JSON array, or JSON values one after the other.
pub(super) struct Values<R> {
    input: R,
    place: Place,
    is_array: bool,
    count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    AfterValue,
    End,
}

impl<R: BufRead> Values<R> {
    /// The elements of one array.
    pub(super) fn of_array(input: R) -> Self {
        Self { input, place: Place::Start, is_array: true, count: 0 }
    }

    /// Values with nothing but white space between them.
    pub(super) fn in_sequence(input: R) -> Self {
        Self { input, place: Place::Start, is_array: false, count: 0 }
    }

    fn next_value(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let has_value = if self.is_array { self.enter_element()? } else { self.peek()?.is_some() };
        if !has_value {
            self.place = Place::End;
            return Ok(None);
        }
        let value = self.value()?;
        self.count += 1;
        self.place = Place::AfterValue;
        Ok(Some(value))
    }

    /// Goes to the next element's first byte; false behind the array's last one.
    fn enter_element(&mut self) -> Result<bool, Failure> {
        let found = self.peek()?;
        self.skip_if(found.is_some());
        match (self.place, found) {
            (Place::Start, Some(b'[')) if self.peek()? == Some(b']') => self.skip_if(true),
            (Place::Start, Some(b'[')) | (Place::AfterValue, Some(b',')) => return Ok(true),
            (Place::AfterValue, Some(b']')) => {}
            (_, found) => return Err(self.unexpected(found)),
        }
        match self.peek()? {
            None => Ok(false),
            found => Err(self.unexpected(found)),
        }
    }

    fn value(&mut self) -> Result<Vec<u8>, Failure> {
        let mut value = Vec::new();
        let mut scan = Scan::default();
        self.peek()?;
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return if scan.is_whole_at_end() && !value.is_empty() && !self.is_array {
                    Ok(value)
                } else {
                    Err(self.unexpected(None))
                };
            }
            let (count, is_whole) = scan.take(bytes, &mut value);
            self.input.consume(count);
            if is_whole && !value.is_empty() {
                return Ok(value);
            }
            if is_whole {
                let found = self.peek()?;
                return Err(self.unexpected(found));
            }
            if value.len() > RECORD_BYTES_MAX {
                return Err(too_long(self.count));
            }
        }
    }

    /// The next byte that is not white space, still to be read.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let found = bytes.get(blank).copied();
            self.input.consume(blank);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    fn skip_if(&mut self, there: bool) {
        if there {
            self.input.consume(1);
        }
    }

    fn unexpected(&self, found: Option<u8>) -> Failure {
        let found = match found {
            Some(byte) => format!("`{}` is out of place", byte.escape_ascii()),
            None => "the file ends too early".to_owned(),
        };
        let wanted = if self.is_array { "a JSON array" } else { "JSON values" };
        Failure::new(Exit::Usage, format!("the file is not {wanted}: {found} after {} records", self.count))
    }
}

/// Where in a value the reader stands.
#[derive(Default)]
struct Scan {
    depth: u32,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Moves the bytes of a value; says how many were used and whether the value is whole. Line ends
    /// outside of texts become spaces, so that a value stays on one line.
    fn take(&mut self, bytes: &[u8], value: &mut Vec<u8>) -> (usize, bool) {
        for (index, byte) in bytes.iter().copied().enumerate() {
            let at_top = self.depth == 0 && !self.in_text;
            if at_top && (matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace()) {
                return (index, true);
            }
            let is_line_end = !self.in_text && matches!(byte, b'\n' | b'\r');
            value.push(if is_line_end { b' ' } else { byte });
            if self.step(byte) {
                return (index + 1, true);
            }
        }
        (bytes.len(), false)
    }

    /// Takes one byte in; true if it closed the value.
    fn step(&mut self, byte: u8) -> bool {
        if self.in_text {
            let closes = byte == b'"' && !self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
            self.in_text = !closes;
            return closes && self.depth == 0;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// Whether the end of the file may end the value: it is a number, true, false or null.
    fn is_whole_at_end(&self) -> bool {
        self.depth == 0 && !self.in_text
    }
}

impl<R: BufRead> Iterator for Values<R> {
    type Item = Result<Vec<u8>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place == Place::End {
            return None;
        }
        let next = self.next_value();
        if next.is_err() {
            self.place = Place::End;
        }
        next.transpose()
    }
}

/// The lines of NDJSON, without those that are blank.
pub(super) struct Lines<R> {
    input: R,
    count: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, count: 0 }
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.input).take(RECORD_BYTES_MAX as u64 + 1);
            if limited.read_until(b'\n', &mut line).or_fail("read the file")? == 0 {
                return Ok(None);
            }
            if line.len() > RECORD_BYTES_MAX {
                return Err(too_long(self.count));
            }
            let text = line.trim_ascii();
            if !text.is_empty() {
                self.count += 1;
                return Ok(Some(text.to_vec()));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Vec<u8>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

fn too_long(count: u64) -> Failure {
    Failure::new(Exit::Usage, format!("record {count} is longer than {RECORD_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// Reads with a buffer of every small size, so that every cut falls everywhere.
    fn read(text: &str, array: bool) -> Result<Vec<String>, String> {
        let with = |size: usize| -> Result<Vec<String>, String> {
            let input = BufReader::with_capacity(size, text.as_bytes());
            let values = if array { Values::of_array(input) } else { Values::in_sequence(input) };
            let strings = values.map(|value| value.map(|value| String::from_utf8(value).unwrap()));
            strings.collect::<Result<_, _>>().map_err(|failure| failure.to_string())
        };
        let first = with(1);
        for size in 2..16 {
            assert_eq!(with(size), first, "a buffer of {size} bytes");
        }
        first
    }

    #[test]
    fn an_array_is_cut_into_its_elements_byte_for_byte() {
        let text = " [ {\"a\": [1, {\"b\":2}] } ,\"x,]\\\"\\\\\",\n 1.50,null ,[[]]]\n";
        let expected = ["{\"a\": [1, {\"b\":2}] }", "\"x,]\\\"\\\\\"", "1.50", "null", "[[]]"];
        assert_eq!(read(text, true).unwrap(), expected);
        assert_eq!(read("[]", true).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn values_on_several_lines_become_one_line() {
        assert_eq!(read("[{\n\"a\":\r\n1}]", true).unwrap(), ["{ \"a\":  1}"]);
        assert_eq!(read("{\n\"a\":1}{\"a\":2} 3\n4", false).unwrap(), ["{ \"a\":1}", "{\"a\":2}", "3", "4"]);
    }

    #[test]
    fn a_broken_array_is_refused_with_its_place() {
        for (text, message) in [
            ("", "the file is not a JSON array: the file ends too early after 0 records"),
            ("{}", "the file is not a JSON array: `{` is out of place after 0 records"),
            ("[1,2", "the file is not a JSON array: the file ends too early after 1 records"),
            ("[1,{\"a\":", "the file is not a JSON array: the file ends too early after 1 records"),
            ("[1 2]", "the file is not a JSON array: `2` is out of place after 1 records"),
            ("[1,]", "the file is not a JSON array: `]` is out of place after 1 records"),
            ("[1]]", "the file is not a JSON array: `]` is out of place after 1 records"),
        ] {
            assert_eq!(read(text, true).unwrap_err(), message, "{text}");
        }
        let message = "the file is not JSON values: `}` is out of place after 1 records";
        assert_eq!(read("{} }", false).unwrap_err(), message);
    }

    #[test]
    fn lines_are_trimmed_and_blank_ones_left_out() {
        let text: &[u8] = b"{\"a\":1}\r\n\n  \n{\"a\":2}";
        let lines: Vec<Vec<u8>> = Lines::new(text).map(Result::unwrap).collect();
        assert_eq!(lines, [b"{\"a\":1}", b"{\"a\":2}"]);
    }
}
