//! What is wrong with one field of a request, as clients of the event stream API know it from FastAPI:
//! status 422 with `{"detail":[{"loc":["query","page"],"msg":…,"type":…}]}`.

use serde::Serialize;
use serde_json::{Value, json};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// Where it is: `body`, `query` or `path`, and names or places below.
    pub loc: Vec<Value>,
    /// For people.
    pub msg: String,
    /// For programs.
    pub r#type: &'static str,
    /// What `msg` was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

/// A body of `{"detail": …}`.
#[derive(Clone, Debug, Serialize)]
pub struct Detail<T> {
    /// Faults, or a text.
    pub detail: T,
}

impl Fault {
    /// Something is wrong at a place.
    pub fn new(loc: &[&str], msg: impl Into<String>, r#type: &'static str) -> Self {
        let loc = loc.iter().map(|step| Value::from(*step)).collect();
        Self { loc, msg: msg.into(), r#type, ctx: None }
    }

    /// Something is not there.
    pub fn missing(loc: &[&str]) -> Self {
        Self::new(loc, "field required", "value_error.missing")
    }

    /// The same, with what its text was made of.
    #[must_use]
    pub fn with_ctx(self, ctx: Value) -> Self {
        Self { ctx: Some(ctx), ..self }
    }

    /// What is wrong with a dataset's id in a path, which is `^[a-z0-9-]*$` of 3 to 70 characters.
    pub fn of_dataset_id(id: &str) -> Option<Self> {
        const LOC: &[&str] = &["path", "dataset_id"];
        if id.len() < 3 {
            let fault = Self::new(
                LOC,
                "ensure this value has at least 3 characters",
                "value_error.any_str.min_length",
            );
            return Some(fault.with_ctx(json!({"limit_value": 3})));
        }
        if id.len() > 70 {
            let fault = Self::new(
                LOC,
                "ensure this value has at most 70 characters",
                "value_error.any_str.max_length",
            );
            return Some(fault.with_ctx(json!({"limit_value": 70})));
        }
        let is_known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if id.bytes().all(is_known) {
            return None;
        }
        let fault = Self::new(LOC, "string does not match regex \"^[a-z0-9-]*$\"", "value_error.str.regex");
        Some(fault.with_ctx(json!({"pattern": "^[a-z0-9-]*$"})))
    }
}
