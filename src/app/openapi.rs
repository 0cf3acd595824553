//! What the server is as OpenAPI, at `/openapi.json`, and a page to try it at `/docs/`.

use axum::Router;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ComponentsBuilder, OpenApi as Api};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use crate::config::{Role, Roles};

const DOCUMENT: &str = "/openapi.json";
const PAGE: &str = "/docs";
/// What of it everybody may see.
pub(super) const OPEN_PATHS: [&str; 3] = [DOCUMENT, PAGE, "/docs/"];
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(description = "A streaming broker: durable ingest, transforms, an archive and queries by date."),
    paths(healthz, readyz, metrics),
    modifiers(&Credentials)
)]
struct Own;

/// Everything asks for a bearer that does not say otherwise.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, api: &mut Api) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, an access token, or the configured token"))
            .build();
        let mut components = api.components.take().unwrap_or_else(|| ComponentsBuilder::new().build());
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
        for (name, parameter) in [("webhook", "token"), ("subscription", "webhook_token")] {
            let token = ApiKeyValue::with_description(parameter, "A webhook token");
            components.add_security_scheme(name, SecurityScheme::ApiKey(ApiKey::Query(token)));
        }
        let write_key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("An API key as the name, which is a library's write key"))
            .build();
        let raw_token = ApiKey::Header(ApiKeyValue::with_description(
            "authorization",
            "A token or an API key as it is, without a word before it",
        ));
        components.add_security_scheme("rawToken", SecurityScheme::ApiKey(raw_token));
        components.add_security_scheme("writeKey", SecurityScheme::Http(write_key));
        api.components = Some(components);
        api.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    }
}

#[allow(dead_code, reason = "the route is a closure")]
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "server",
    summary = "Says that the process is alive",
    security(()),
    responses((status = 200, description = "It is", body = String, content_type = "text/plain"))
)]
fn healthz() {}

#[allow(dead_code, reason = "the route is a closure")]
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    summary = "Says whether requests are taken",
    security(()),
    responses(
        (status = 200, description = "They are", body = String, content_type = "text/plain"),
        (status = 503, description = "The process stops", body = String, content_type = "text/plain"),
    )
)]
fn readyz() {}

#[allow(dead_code, reason = "the route is a closure")]
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    summary = "Counts, in Prometheus' text format",
    responses(
        (status = 200, description = "The counts", body = String, content_type = "text/plain"),
        (status = "4XX", description = "The request is refused", body = proto::problem::ProblemBody),
    )
)]
fn metrics() {}

/// The document and its page, of the doors that these roles have, and of other surfaces.
pub(super) fn router(roles: &Roles, surfaces: Vec<Api>) -> Router {
    SwaggerUi::new(PAGE).url(DOCUMENT, document(roles, surfaces)).into()
}

fn document(roles: &Roles, surfaces: Vec<Api>) -> Api {
    let mut api = Own::openapi();
    if roles.has(Role::Ingest) {
        api.merge(ingest::http::openapi());
    }
    if roles.has(Role::Query) {
        api.merge(indexer::openapi());
    }
    surfaces.into_iter().for_each(|surface| api.merge(surface));
    api
}
