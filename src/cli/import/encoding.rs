//! Reads text that is not UTF-8 as if it were.

use std::io::{self, BufRead, Read};

use clap::ValueEnum;

/// How a file's text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// As it should be
    #[default]
    #[value(name = "utf-8")]
    Utf8,
    /// ISO 8859-1
    #[value(name = "latin-1")]
    Latin1,
    /// As older programs on Windows write it
    #[value(name = "windows-1252")]
    Windows1252,
}

/// What Windows has where ISO 8859-1 has control characters (0x80 to 0x9F); the five that it leaves
/// open stay control characters, as browsers do it.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

impl Encoding {
    fn decode(self, byte: u8) -> char {
        match (self, byte) {
            (Encoding::Windows1252, 0x80..=0x9f) => WINDOWS_1252[usize::from(byte - 0x80)],
            _ => char::from(byte),
        }
    }
}

/// A reader whose bytes are UTF-8. A byte order mark at the start is left out; UTF-8 itself passes
/// unchecked, since the server checks every record.
pub(super) struct Decoder<R> {
    input: R,
    encoding: Encoding,
    ready: Vec<u8>,
    taken: usize,
    started: bool,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(input: R, encoding: Encoding) -> Self {
        Self { input, encoding, ready: Vec::new(), taken: 0, started: false }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        let bytes = self.input.fill_buf()?;
        let count = bytes.len();
        if self.encoding == Encoding::Utf8 {
            self.ready.extend_from_slice(bytes);
        } else {
            let mut place = [0; 4];
            for byte in bytes {
                let text = self.encoding.decode(*byte).encode_utf8(&mut place);
                self.ready.extend_from_slice(text.as_bytes());
            }
        }
        self.input.consume(count);
        if !self.started {
            self.started = true;
            if self.ready.starts_with(b"\xef\xbb\xbf") {
                self.taken = 3;
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut ready = self.fill_buf()?;
        let count = ready.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Decoder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.ready.len() {
            self.refill()?;
        }
        Ok(&self.ready[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.ready.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], encoding: Encoding, expected: &str) {
        let mut text = String::new();
        Decoder::new(io::BufReader::with_capacity(8, bytes), encoding).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn other_encodings_become_utf_8() {
        check("Blåbærsyltetøy".as_bytes(), Encoding::Utf8, "Blåbærsyltetøy");
        check(b"Bl\xe5b\xe6r", Encoding::Latin1, "Blåbær");
        check(b"\x93100 \x80\x94", Encoding::Windows1252, "“100 €”");
    }

    #[test]
    fn a_byte_order_mark_is_left_out() {
        check(b"\xef\xbb\xbfa,b", Encoding::Utf8, "a,b");
    }
}
