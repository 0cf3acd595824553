//! What a request to the collector of user events may be, and the words for what is wrong with it: those of
//! [marshmallow](https://marshmallow.readthedocs.io/), whose error maps its clients know.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// How many things that are wrong are told of one object or list.
const FAULTS_MAX: usize = 50;

/// What a field holds.
pub(super) enum Held {
    Text,
    Whole,
    Object,
    /// A list of objects of this form.
    List(&'static Form),
}

/// What becomes of a field that is not there.
pub(super) enum Absent {
    Refused,
    LeftOut,
    /// This is written in its place.
    Written(&'static str),
}

/// A field of a form.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) held: Held,
    pub(super) absent: Absent,
}

/// The fields that an object has, and no others.
pub(super) struct Form(pub(super) &'static [Field]);

/// An object in the order of its text; of a name that stands twice the last value counts.
pub(super) struct Object<'b>(Vec<(Cow<'b, str>, &'b RawValue)>);

impl<'b> Object<'b> {
    /// The text of a field's value.
    pub(super) fn get(&self, name: &str) -> Option<&'b str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// Names and the texts of values, as they stand.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'b str)> {
        self.0.iter().map(|(name, value)| (&**name, value.get()))
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Object<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    pairs.push((name, value));
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Pairs).map(Object)
    }
}

/// A name, which stays in the text where it has no escapes.
#[derive(Deserialize)]
struct Name<'b>(#[serde(borrow)] Cow<'b, str>);

impl Form {
    /// The object that a text is, if it is as this says.
    pub(super) fn read<'b>(&self, text: &'b str) -> Result<Object<'b>, Faults> {
        let Ok(object) = serde_json::from_str::<Object<'b>>(text) else {
            return Err(Faults::of("_schema", "Invalid input type."));
        };
        let mut faults = Vec::new();
        for field in self.0 {
            let fault = match object.get(field.name) {
                None if matches!(field.absent, Absent::Refused) => {
                    Some(Faults::said("Missing data for required field."))
                }
                None => None,
                Some(value) => field.held.check(value).err(),
            };
            faults.extend(fault.map(|fault| (Key::Name(field.name.to_owned()), fault)));
        }
        for (name, _) in &object.0 {
            let is_known = self.0.iter().any(|field| field.name == name);
            if !is_known && faults.len() < FAULTS_MAX {
                faults.push((Key::Name(name.clone().into_owned()), Faults::said("Unknown field.")));
            }
        }
        if faults.is_empty() { Ok(object) } else { Err(Faults::Below(faults)) }
    }

    /// The object that was [read](Form::read), with what is written in the place of what is absent.
    pub(super) fn write(&self, object: &Object<'_>) -> Vec<u8> {
        let mut record = Record::new();
        for Field { name, absent, .. } in self.0 {
            let value = match (object.get(name), absent) {
                (Some(value), _) => value,
                (None, Absent::Written(value)) => *value,
                (None, Absent::Refused | Absent::LeftOut) => continue,
            };
            record.put(name, value);
        }
        record.finish()
    }
}

/// An object that is written field by field.
pub(super) struct Record(String);

impl Record {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a field; its value is JSON already.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&serde_json::Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(value);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push('}');
        self.0.into_bytes()
    }
}

impl Held {
    fn check(&self, text: &str) -> Result<(), Faults> {
        let first = text.as_bytes().first().copied().unwrap_or_default();
        if text == "null" {
            return Err(Faults::said("Field may not be null."));
        }
        match self {
            Held::Text if first != b'"' => Err(Faults::said("Not a valid string.")),
            Held::Whole if !is_whole(text) => Err(Faults::said("Not a valid integer.")),
            Held::Object if first != b'{' => Err(Faults::said("Not a valid mapping type.")),
            Held::Text | Held::Whole | Held::Object => Ok(()),
            Held::List(form) => check_list(form, text),
        }
    }
}

fn is_whole(text: &str) -> bool {
    text.trim_start_matches('-').bytes().all(|c| c.is_ascii_digit())
}

fn check_list(form: &Form, text: &str) -> Result<(), Faults> {
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Faults::said("Not a valid list."))?;
    let wrong = items.iter().enumerate().filter_map(|(index, item)| {
        let fault = form.read(item.get()).err()?;
        Some((Key::Index(index), fault))
    });
    let faults: Vec<_> = wrong.take(FAULTS_MAX).collect();
    if faults.is_empty() { Ok(()) } else { Err(Faults::Below(faults)) }
}

/// What is wrong with a value. Shown as Python shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Faults {
    /// With itself.
    Said(&'static str),
    /// With what it holds.
    Below(Vec<(Key, Faults)>),
}

/// The name of a field, or the index of an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Name(String),
    Index(usize),
}

impl Faults {
    fn said(message: &'static str) -> Self {
        Faults::Said(message)
    }

    fn of(name: &str, message: &'static str) -> Self {
        Faults::Below(vec![(Key::Name(name.to_owned()), Faults::said(message))])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Faults::Said(message) => write!(f, "['{message}']"),
            Faults::Below(below) => {
                f.write_char('{')?;
                for (number, (key, faults)) in below.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    match key {
                        Key::Name(name) => write!(f, "{comma}{}: {faults}", Quoted(name))?,
                        Key::Index(index) => write!(f, "{comma}{index}: {faults}")?,
                    }
                }
                f.write_char('}')
            }
        }
    }
}

/// A text in quotes, as Python's `repr` has it.
struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') && !self.0.contains('"') { '"' } else { '\'' };
        f.write_char(quote)?;
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                c if c == quote => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char(quote)
    }
}

impl Serialize for Faults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Faults::Said(message) => [message].serialize(serializer),
            Faults::Below(below) => serializer.collect_map(below.iter().map(|(key, faults)| match key {
                Key::Name(name) => (name.clone(), faults),
                Key::Index(index) => (index.to_string(), faults),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    static EVENT: Form = Form(&[Field { name: "n", held: Held::Whole, absent: Absent::LeftOut }]);
    static FORM: Form = Form(&[
        Field { name: "id", held: Held::Text, absent: Absent::Refused },
        Field { name: "events", held: Held::List(&EVENT), absent: Absent::Refused },
        Field { name: "more", held: Held::Object, absent: Absent::Written("{}") },
    ]);

    #[rstest]
    #[case::not_an_object("[]", "{'_schema': ['Invalid input type.']}")]
    #[case::missing(
        "{}",
        "{'id': ['Missing data for required field.'], 'events': ['Missing data for required field.']}"
    )]
    #[case::null(r#"{"id":null,"events":[]}"#, "{'id': ['Field may not be null.']}")]
    #[case::number(r#"{"id":5,"events":[]}"#, "{'id': ['Not a valid string.']}")]
    #[case::no_list(r#"{"id":"a","events":{}}"#, "{'events': ['Not a valid list.']}")]
    #[case::no_object(r#"{"id":"a","events":[],"more":[]}"#, "{'more': ['Not a valid mapping type.']}")]
    #[case::unknown(
        r#"{"it's":1,"a\n":2,"id":"a","events":[]}"#,
        "{\"it's\": ['Unknown field.'], 'a\\n': ['Unknown field.']}"
    )]
    #[case::below(
        r#"{"id":"a","events":[{},{"n":"10"},7,{"n":10.0},{"n":true},{"n":1e2}]}"#,
        "{'events': {1: {'n': ['Not a valid integer.']}, 2: {'_schema': ['Invalid input type.']}, \
         3: {'n': ['Not a valid integer.']}, 4: {'n': ['Not a valid integer.']}, \
         5: {'n': ['Not a valid integer.']}}}"
    )]
    fn what_is_wrong_is_told_in_the_words_that_clients_know(#[case] text: &str, #[case] told: &str) {
        assert_eq!(FORM.read(text).err().unwrap().to_string(), told);
    }

    #[test]
    fn the_last_of_two_values_counts_and_values_stay_as_they_are() {
        let object = FORM.read(r#"{"id":1,"\u0069d":"b","events":[ {"n":-10} ],"more":{"x": 1.0}}"#).ok();
        let object = object.unwrap();
        assert_eq!((object.get("id"), object.get("more")), (Some("\"b\""), Some(r#"{"x": 1.0}"#)));
        assert_eq!(object.get("other"), None);
        assert_eq!(FORM.write(&object), br#"{"id":"b","events":[ {"n":-10} ],"more":{"x": 1.0}}"#);
        let short = FORM.read(r#"{"events":[],"id":"b"}"#).ok().unwrap();
        assert_eq!(FORM.write(&short), br#"{"id":"b","events":[],"more":{}}"#);
    }

    #[test]
    fn only_so_much_is_told() {
        let unknown: Vec<String> = (0..1_000).map(|n| format!("\"x{n}\":1")).collect();
        let told = FORM.read(&format!("{{{}}}", unknown.join(","))).err().unwrap().to_string();
        assert_eq!(told.matches("Unknown field.").count(), FAULTS_MAX - 2);
        let json = serde_json::to_value(FORM.read(r#"{"id":"a","events":[1]}"#).err().unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"events": {"0": {"_schema": ["Invalid input type."]}}}));
    }
}
