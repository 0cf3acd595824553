//! Small JSON bodies, and the faults of their fields in pydantic's words.

use axum::extract::Request;
use proto::fault::Fault;
use serde_json::{Value, json};

use super::Refusal;
use crate::Ingest;
use crate::body::BodyLimit;

const BODY: BodyLimit = BodyLimit { name: "setting_bytes_max", bytes_max: 16 << 10 };

/// The body of a request; none where there is none. What its content type says is not looked at.
pub(super) async fn read(ingest: &Ingest, request: Request) -> Result<Option<Value>, Refusal> {
    let (head, body) = request.into_parts();
    let (body, _charge) = ingest.read_body(&head.headers, body, BODY).await?;
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&body).map_err(|error| not_json(&body, &error))?))
}

/// The fault of a body that is no JSON.
pub(super) fn not_json(body: &[u8], error: &serde_json::Error) -> Fault {
    let before = body.split(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let position = before.map(|line| line.len() + 1).sum::<usize>() + error.column().saturating_sub(1);
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let msg = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    let ctx = json!({"msg": msg, "pos": position, "lineno": error.line(), "colno": error.column()});
    let fault = Fault::new(&["body"], format!("{msg}: {place} (char {position})"), "value_error.jsondecode");
    let loc = vec!["body".into(), position.into()];
    Fault { loc, ..fault }.with_ctx(ctx)
}

/// A field of a body that must be an object where there is one.
pub(super) fn field<'b>(body: Option<&'b Value>, name: &str) -> Result<Option<&'b Value>, Refusal> {
    let Some(body) = body else { return Ok(None) };
    let fields = body.as_object();
    let fault = || Fault::new(&["body"], "value is not a valid dict", "type_error.dict");
    Ok(fields.ok_or_else(fault)?.get(name))
}

/// A truth value of the body: one, or a word or number for one.
pub(super) fn boolean(name: &str, value: &Value) -> Result<bool, Refusal> {
    boolean_at(&["body", name], value)
}

/// A truth value that stands at a place.
pub(super) fn boolean_at(loc: &[&str], value: &Value) -> Result<bool, Refusal> {
    const TRUE: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
    const FALSE: [&str; 6] = ["0", "off", "f", "false", "n", "no"];
    let word = match value {
        Value::Bool(value) => return Ok(*value),
        Value::Null => return Err(none(loc).into()),
        Value::String(word) => word.to_lowercase(),
        Value::Number(number) => number.to_string(),
        Value::Array(_) | Value::Object(_) => String::new(),
    };
    if TRUE.contains(&&*word) {
        return Ok(true);
    }
    if FALSE.contains(&&*word) {
        return Ok(false);
    }
    Err(Fault::new(loc, "value could not be parsed to a boolean", "type_error.bool").into())
}

/// A text of the body, or a number as one.
pub(super) fn text(name: &str, value: &Value) -> Result<String, Refusal> {
    let loc = &["body", name];
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Err(none(loc).into()),
        _ => Err(Fault::new(loc, "str type expected", "type_error.str").into()),
    }
}

fn none(loc: &[&str]) -> Fault {
    Fault::new(loc, "none is not an allowed value", "type_error.none.not_allowed")
}
