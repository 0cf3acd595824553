//! A dataset's id from its title.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// The longest id that is made of a title alone.
const CHARACTERS_MAX: usize = 64;

/// Lower case, letters folded to ASCII, every run of anything else one dash, none of them outside; at most 64
/// characters. Empty where the title holds no letter or digit that can be folded.
pub(super) fn slug(title: &str) -> String {
    let mut slug = String::new();
    for c in title.to_lowercase().nfkd().filter(|c| !is_combining_mark(*c)) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if let Some(letters) = letters(c) {
            slug.push_str(letters);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    // Only ASCII stands in it.
    slug.truncate(CHARACTERS_MAX);
    slug.trim_end_matches('-').to_owned()
}

/// Letters that are no plain letter with a mark.
fn letters(c: char) -> Option<&'static str> {
    Some(match c {
        'æ' | 'œ' => "e",
        'ø' => "o",
        'ð' | 'đ' => "d",
        'ł' => "l",
        'ß' => "ss",
        'þ' => "th",
        'ı' => "i",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_ids() {
        let special = r"  Tittel på datasett 42 med spesialtegn :+*/\_[](){} og norske tegn ÆØÅ  ";
        let long = "å".repeat(70);
        for (title, expected) in [
            (special, "tittel-pa-datasett-42-med-spesialtegn-og-norske-tegn-eoa"),
            ("Antall besøkende på gjenbruksstasjoner", "antall-besokende-pa-gjenbruksstasjoner"),
            ("Crème brûlée, Straße", "creme-brulee-strasse"),
            ("--a--", "a"),
            ("", ""),
            (" +/ ", ""),
            ("日本", ""),
            (&long, &"a".repeat(64)),
            (&format!("{} b", "a".repeat(63)), &"a".repeat(63)),
        ] {
            assert_eq!(slug(title), expected, "{title}");
        }
    }
}
