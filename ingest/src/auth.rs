//! The bearer token in front of everything but the paths that are named open.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use proto::problem::{Kind, Problem};
use subtle::ConstantTimeEq as _;

use crate::linger::{is_grpc, linger};

/// The token that callers must present as `Authorization: Bearer TOKEN`.
#[derive(Clone)]
pub struct Bearer(Arc<Rules>);

struct Rules {
    token: String,
    open: Vec<String>,
}

impl Bearer {
    /// Everything is closed to who does not present `token`. An empty token opens to nobody.
    pub fn new(token: String) -> Self {
        Self(Arc::new(Rules { token, open: Vec::new() }))
    }

    /// The same, but these paths are open to everybody. One that ends with `/` opens what lies
    /// below it, any other opens itself alone.
    #[must_use]
    pub fn open(self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let open = paths.into_iter().map(Into::into).collect();
        Self(Arc::new(Rules { token: self.0.token.clone(), open }))
    }

    fn is_open(&self, path: &str) -> bool {
        self.0.open.iter().any(|open| path == open || (open.ends_with('/') && path.starts_with(open)))
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let mut presented = headers.get_all(AUTHORIZATION).iter();
        let (Some(only), None) = (presented.next(), presented.next()) else {
            return false;
        };
        let (scheme, token) = only.as_bytes().split_at(only.len().min(7));
        scheme.eq_ignore_ascii_case(b"bearer ") && self.is_token(token.trim_ascii())
    }

    /// Takes a time that depends on what was presented, not on the token.
    fn is_token(&self, presented: &[u8]) -> bool {
        let token = self.0.token.as_bytes();
        if token.is_empty() {
            return false;
        }
        let mut is_same = presented.len().ct_eq(&token.len());
        for (byte, known) in presented.iter().zip(token.iter().cycle()) {
            is_same &= byte.ct_eq(known);
        }
        is_same.into()
    }
}

/// Puts the token in front of every route of `router` and of its fallbacks, those of unknown paths
/// too, and reads what is left of the bodies that any of them refuses. Routes that are added later
/// are not covered.
pub fn layer(router: Router, bearer: Bearer) -> Router {
    router.layer(from_fn_with_state(bearer, check)).layer(from_fn(linger))
}

async fn check(State(bearer): State<Bearer>, request: Request, next: Next) -> Response {
    if bearer.is_open(request.uri().path()) || bearer.admits(request.headers()) {
        return next.run(request).await;
    }
    let message = "present the token as authorization: Bearer TOKEN".to_owned();
    let problem = Problem { kind: Kind::Unauthenticated, message, field: Some("authorization".to_owned()) };
    if is_grpc(request.headers()) {
        return problem.into_status().into_http();
    }
    let mut response: Response = problem.into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http::StatusCode;
    use rstest::rstest;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(path: &str, headers: &[(&str, &str)]) -> Response {
        let router =
            Router::new().route("/known", get(|| async { "in" })).route("/healthz", get(|| async {}));
        let bearer = Bearer::new("s3cret".to_owned()).open(["/healthz", "/grpc.health.v1.Health/"]);
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        layer(router, bearer).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[rstest]
    #[case::right("/known", &[("authorization", "Bearer s3cret")], StatusCode::OK)]
    #[case::scheme_in_any_case("/known", &[("authorization", "bEARER s3cret")], StatusCode::OK)]
    #[case::unknown_path_with_token("/unknown", &[("authorization", "Bearer s3cret")], StatusCode::NOT_FOUND)]
    #[case::open("/healthz", &[], StatusCode::OK)]
    #[case::below_open("/grpc.health.v1.Health/Check", &[], StatusCode::NOT_FOUND)]
    #[case::beside_open("/healthz/x", &[], StatusCode::UNAUTHORIZED)]
    #[case::missing("/known", &[], StatusCode::UNAUTHORIZED)]
    #[case::unknown_path("/unknown", &[], StatusCode::UNAUTHORIZED)]
    #[case::wrong("/known", &[("authorization", "Bearer s3creT")], StatusCode::UNAUTHORIZED)]
    #[case::shorter("/known", &[("authorization", "Bearer s3cre")], StatusCode::UNAUTHORIZED)]
    #[case::longer("/known", &[("authorization", "Bearer s3crets3cret")], StatusCode::UNAUTHORIZED)]
    #[case::empty("/known", &[("authorization", "Bearer ")], StatusCode::UNAUTHORIZED)]
    #[case::basic("/known", &[("authorization", "Basic s3cret")], StatusCode::UNAUTHORIZED)]
    #[case::twice(
        "/known", &[("authorization", "Bearer s3cret"), ("authorization", "Bearer x")], StatusCode::UNAUTHORIZED
    )]
    #[tokio::test]
    async fn lets_in_who_presents_the_token(
        #[case] path: &str,
        #[case] headers: &[(&str, &str)],
        #[case] status: StatusCode,
    ) {
        let response = ask(path, headers).await;
        assert_eq!(response.status(), status);
        if status == StatusCode::UNAUTHORIZED {
            assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
            let problem = response.extensions().get::<Problem>().unwrap();
            assert_eq!(problem.kind, Kind::Unauthenticated);
        }
    }

    #[tokio::test]
    async fn refuses_grpc_with_its_own_status_in_the_headers() {
        let response =
            ask("/headwater.v1.Ingest/Append", &[("content-type", "application/grpc+proto")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "16");
        assert!(response.extensions().get::<Problem>().is_none());
    }

    #[test]
    fn an_empty_token_opens_to_nobody() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
        assert!(!Bearer::new(String::new()).admits(&headers));
    }
}
