//! The header `Prefer` (RFC 7240), of which `return` is understood here. What is not understood is
//! ignored, as that RFC wants it.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preference an answer follows.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// What it says in a minimal answer.
pub(super) const RETURN_MINIMAL: HeaderValue = HeaderValue::from_static("return=minimal");

/// Whether the client asks for as little as there is to say. The first `return` counts.
pub(super) fn wants_minimal(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split(',')).filter_map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=')?;
        Some((name.trim(), value.trim().trim_matches('"')))
    });
    let mut returns = preferences.filter(|(name, _)| name.eq_ignore_ascii_case("return"));
    returns.next().is_some_and(|(_, value)| value == "minimal")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&'static str], expected: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        assert_eq!(wants_minimal(&headers), expected, "{values:?}");
    }

    #[test]
    fn the_first_return_counts_and_all_else_is_ignored() {
        check(&[], false);
        check(&["return=minimal"], true);
        check(&["Return = \"minimal\""], true);
        check(&["respond-async, wait=10", "handling=lenient,return=minimal; foo=bar"], true);
        check(&["return=representation", "return=minimal"], false);
        check(&["return=minimal", "return=representation"], true);
        check(&["return", "minimal", "return=MINIMAL", ",;="], false);
    }
}
