//! Requests that are signed with an API key by Signature Version 4, which the clients of some services that are
//! stood in for do by themselves. Only what such a client sends is taken: the signature in `Authorization`, with the
//! body, the time and what is asked for covered.
//!
//! A signature can be sent again for as long as it is taken; there is no nonce in it.

use std::time::Duration;

use broker::access::{Denial, Peer};
use broker::{Principal, Timestamp};
use chrono::NaiveDateTime;
use hmac::{Hmac, Mac as _};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, Uri};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::attempts::Subject;
use super::{Credentials, keys};

const SCHEME: &str = "AWS4-HMAC-SHA256";
const END: &str = "aws4_request";
const DATE: &str = "x-amz-date";
/// How far a signature's time may be from ours.
const SKEW: Duration = Duration::from_secs(300);

const NOT_VALID: Denial = Denial::Wrong("this signature is not valid");
const OTHER_TIME: Denial = Denial::Expired("the signature's time is more than 300 s from ours");

/// A request as a signature covers it.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'r> {
    pub(crate) method: &'r Method,
    /// As it was sent, with what a surface's paths have before them.
    pub(crate) uri: &'r Uri,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) body: &'r [u8],
    /// The headers that have to be covered beside the host and the time.
    pub(crate) covered: &'r [&'r str],
}

/// What stands in `Authorization`.
struct Signature<'r> {
    key: &'r str,
    /// The day, the region, the service and what ends them.
    scope: &'r str,
    headers: &'r str,
    mac: &'r str,
}

/// Whether a request presents such a signature.
pub(crate) fn is_presented(headers: &HeaderMap) -> bool {
    presented(headers).is_some()
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut presented = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (presented.next(), presented.next()) else { return None };
    only.to_str().ok()?.trim().strip_prefix(SCHEME)
}

impl Credentials {
    /// Who signed a request.
    pub(crate) fn holder_of_signature(&self, signed: Signed<'_>, peer: Peer) -> Result<Principal, Denial> {
        let holder = self.check_signature(signed);
        holder.map_err(|denial| self.failed(denial, "signature", (Subject::Address(peer.0), None)))
    }

    fn check_signature(&self, signed: Signed<'_>) -> Result<Principal, Denial> {
        let signature = presented(signed.headers).and_then(Signature::read).ok_or(NOT_VALID)?;
        let at = signed.headers.get(DATE).and_then(|value| value.to_str().ok()).ok_or(NOT_VALID)?;
        let (holder, secret) = self.signing_holder(signature.key).ok_or(NOT_VALID)?;
        let expected = signature.of(signed, at, &secret).ok_or(NOT_VALID)?;
        if !bool::from(expected.as_bytes().ct_eq(signature.mac.as_bytes())) {
            return Err(NOT_VALID);
        }
        let time = time_of(at).filter(|_| at.get(..8) == signature.scope.get(..8)).ok_or(NOT_VALID)?;
        let off = Duration::from_micros(self.clock.now().micros().abs_diff(time.micros()));
        if off > SKEW { Err(OTHER_TIME) } else { Ok(holder) }
    }
}

impl<'r> Signature<'r> {
    /// Reads `Credential=KEY/SCOPE, SignedHeaders=A;B, Signature=MAC`.
    fn read(text: &'r str) -> Option<Self> {
        let part = |name: &str| {
            let mut parts = text.split(',').filter_map(|part| part.trim().strip_prefix(name));
            parts.next().filter(|_| parts.next().is_none())
        };
        let (key, scope) = part("Credential=")?.split_once('/')?;
        let key =
            key.as_bytes().strip_prefix(keys::PREFIX).and_then(|id| str::from_utf8(id).ok()).unwrap_or(key);
        let is_scope = scope.split('/').count() == 4 && scope.ends_with(END);
        let signature = Self { key, scope, headers: part("SignedHeaders=")?, mac: part("Signature=")? };
        is_scope.then_some(signature)
    }

    /// What the signature has to be.
    fn of(&self, signed: Signed<'_>, at: &str, secret: &str) -> Option<String> {
        let names: Vec<&str> = self.headers.split(';').collect();
        let mut covered = [HOST.as_str(), DATE].into_iter().chain(signed.covered.iter().copied());
        if !covered.all(|name| names.contains(&name)) {
            return None;
        }
        let mut request = format!("{}\n{}\n", signed.method, signed.uri.path());
        request.push_str(signed.uri.query().unwrap_or_default());
        request.push('\n');
        for name in names {
            request.push_str(&format!("{name}:{}\n", signed.value(name)?));
        }
        request.push_str(&format!("\n{}\n{:x}", self.headers, Sha256::digest(signed.body)));
        let text = format!("{SCHEME}\n{at}\n{}\n{:x}", self.scope, Sha256::digest(request));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in self.scope.split('/') {
            key = mac(&key, part)?;
        }
        Some(mac(&key, &text)?.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Signed<'_> {
    /// The values of a header as they are covered: without what is around them, and with one space for several.
    fn value(&self, name: &str) -> Option<String> {
        let mut values = Vec::new();
        for value in self.headers.get_all(name) {
            values.push(value.to_str().ok()?.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        }
        if values.is_empty() && name == HOST.as_str() {
            values.push(self.uri.authority()?.to_string());
        }
        (!values.is_empty()).then(|| values.join(","))
    }
}

fn mac(key: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac.finalize().into_bytes().to_vec())
}

/// An instant such as `20150830T123600Z`.
fn time_of(text: &str) -> Option<Timestamp> {
    let time = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok()?;
    Timestamp::from_utc(time.and_utc()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    /// The example of the scheme's own description: a list of users, asked for in 2015.
    const EXAMPLE: &str = " Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                           SignedHeaders=content-type;host;x-amz-date, \
                           Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pairs = [
            ("content-type", "application/x-www-form-urlencoded;  charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            (DATE, "20150830T123600Z"),
        ];
        for (name, value) in pairs {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    fn expected(uri: &str, headers: &HeaderMap, covered: &[&str]) -> Option<String> {
        let uri: Uri = uri.parse().unwrap();
        let signed = Signed { method: &Method::GET, uri: &uri, headers, body: b"", covered };
        Signature::read(EXAMPLE)?.of(signed, "20150830T123600Z", SECRET)
    }

    #[test]
    fn the_published_example_is_right() {
        let signature = Signature::read(EXAMPLE).unwrap();
        assert_eq!(signature.key, "AKIDEXAMPLE");
        let uri = "/?Action=ListUsers&Version=2010-05-08";
        assert_eq!(expected(uri, &headers(), &[]).as_deref(), Some(signature.mac));
        assert_ne!(expected("/?Action=ListUsers", &headers(), &[]).as_deref(), Some(signature.mac));
    }

    #[test]
    fn what_has_to_be_covered_and_is_not_is_refused() {
        assert_eq!(expected("/", &headers(), &["x-amz-target"]), None);
        let mut headers = headers();
        headers.remove("host");
        assert_eq!(expected("/", &headers, &[]), None);
        assert!(expected("http://iam.amazonaws.com/", &headers, &[]).is_some(), "it stands in the address");
    }

    #[test]
    fn what_is_no_signature_is_not_read() {
        for text in [
            "",
            " Credential=A, SignedHeaders=host, Signature=00",
            " Credential=A/20150830/r/s/other, SignedHeaders=host, Signature=00",
            " Credential=A/20150830/s/aws4_request, SignedHeaders=host, Signature=00",
            " Credential=A/20150830/r/s/aws4_request, Signature=00",
            " Credential=A/20150830/r/s/aws4_request, SignedHeaders=host",
            " Credential=A/20150830/r/s/aws4_request, SignedHeaders=host, Signature=0, Signature=1",
        ] {
            assert!(Signature::read(text).is_none(), "{text}");
        }
        assert!(time_of("20150830T123600Z").is_some());
        for text in ["", "20150830", "2015-08-30T12:36:00Z", "20150830T126100Z"] {
            assert!(time_of(text).is_none(), "{text}");
        }
    }
}
