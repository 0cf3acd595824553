//! Events as they are read, beside what `serde_json` makes of them.

use serde_json::{Value, json};

use super::*;

fn read(event: &str) -> (Tree, Paths) {
    let (mut tree, mut paths) = (Tree::default(), Paths::up_to(4));
    tree.read(br#"{"of":"the event before","b":[{}]}"#, &mut Paths::up_to(4));
    tree.read(event.as_bytes(), &mut paths);
    (tree, paths)
}

fn json_of(tree: &Tree, node: Node) -> Value {
    let text = |span| tree.text(span).to_owned();
    match node {
        Node::Null => Value::Null,
        Node::Bool(value) => json!(value),
        Node::I64(value) => json!(value),
        Node::U64(value) => json!(value),
        Node::F64(value) => json!(value),
        Node::Text(span) | Node::Date(_, span) | Node::Hidden(span) => json!(text(span)),
        Node::Array(span) => tree.members(span).iter().map(|item| json_of(tree, item.node)).collect(),
        Node::Object(span) => {
            let members = tree.members(span).iter();
            assert!(members.clone().is_sorted_by_key(|member| tree.text(member.name)));
            members.map(|member| (text(member.name), json_of(tree, member.node))).collect()
        }
    }
}

#[test]
fn what_cannot_be_read_is_null_and_the_rest_is_kept() {
    for (event, wanted) in [
        (r#"{"a":1,"b":[true,"x"]}"#, json!({"a": 1, "b": [true, "x"]})),
        (r#"{"a":1e999,"b":{"c":2}}"#, json!({"a": null, "b": {"c": 2}})),
        (r#"{"a":"\ud800","b":[1e999,3]}"#, json!({"a": null, "b": [null, 3]})),
        (r#"{"a":1} {"b":2}"#, json!(null)),
        ("not JSON", json!(null)),
        ("", json!(null)),
        (r#" "text" "#, json!("text")),
        ("-0.0", json!(-0.0)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        (r#"[[],{},"",[null,{"\u00e9\n":"\ud83d\ude00"}]]"#, json!([[], {}, "", [null, {"é\n": "😀"}]])),
    ] {
        let (tree, _) = read(event);
        assert_eq!(json_of(&tree, tree.root()), wanted, "{event}");
    }
}

#[test]
fn members_are_read_as_a_map_holds_them() {
    for event in [
        r#"{"b":1,"a":{"z":1,"y":[{"d":1,"c":2}]},"b":{"a":2}}"#,
        r#"{"a":"first","a":"second","a":["third"],"":0}"#,
        r#"{"2001-01-05T00:00:00Z":"2001-01-05T00:00:00Z","n\u0000":{"x":["y"]}}"#,
    ] {
        let (tree, _) = read(event);
        assert_eq!(json_of(&tree, tree.root()), serde_json::from_str::<Value>(event).unwrap(), "{event}");
    }
}

#[test]
fn strings_that_are_no_words_are_told_apart() {
    for (event, wanted) in [
        (r#"{"a":"2001-01-05T00:00:00Z"}"#, true),
        (r#"{"a":["2001-01-05t01:00:00.5+01:00"]}"#, true),
        (r#"{"a":"2001-01-05"}"#, false),
        (r#"{"a":"2001-01-05 00:00:00"}"#, false),
        (r#"{"a":"2001-02-30T00:00:00Z"}"#, false),
        (r#"{"a":"12001-01-05T00:00:00Z"}"#, false),
        (r#"{"n\u0000":[{"b":"x"}]}"#, true),
        (r#"{"b":"n\u0000"}"#, false),
    ] {
        assert_eq!(read(event).0.has_words_apart(), wanted, "{event}");
    }
}

#[test]
fn paths_of_strings_are_counted_up_to_a_number() {
    for (event, wanted) in [
        (r#"{"a":"x","b":["x","y",["z"]],"c":{"a":"x"},"d":1,"e":null}"#, 3),
        (r#"{"a":"x","b":["2001-01-05T00:00:00Z","x"],"c":["2001-01-05T00:00:00Z"]}"#, 4),
        (r#"{"a":"1","b":"2","c":"3","d":"4","e":"5","f":"6","g":"7"}"#, 5),
    ] {
        let (_, paths) = read(event);
        assert_eq!((paths.known.len(), paths.are_too_many()), (wanted, wanted > 4), "{event}");
    }
}

#[test]
fn strings_are_listed_in_the_order_of_names() {
    let (mut tree, _) = read(r#"{"c":["2","3"],"a":"first","b":{"n\u0000":"1"},"a":"0","d":4}"#);
    assert!(tree.strings().is_empty());
    tree.list_strings();
    let strings: Vec<&str> = tree.strings().iter().map(|span| tree.text(*span)).collect();
    assert_eq!(strings, ["0", "1", "2", "3"]);
}

#[test]
fn deep_nesting_ends_in_null() {
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(matches!(read(&deep).0.root(), Node::Array(_)));
}
