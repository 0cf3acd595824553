//! What the doors are, as OpenAPI: the operations that stand at the handlers, those of paths that lead to the same
//! handler, and shapes that are read by hand.

#![allow(dead_code, reason = "shapes of what is read or written by hand")]

use serde_json::Value;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, OpenApi as Api, Required};
use utoipa::{OpenApi, ToSchema};

use super::{
    access, collector, dead_letters, event_streams, metadata, records, streams, token, webhook_tokens,
    webhooks,
};

/// A place in a topic.
#[derive(ToSchema)]
pub(super) struct Place {
    partition: u32,
    offset: u64,
}

/// What is sent to create an event stream; other fields are not looked at.
#[derive(ToSchema)]
pub(super) struct StreamDraft {
    #[schema(default = true)]
    create_raw: Option<bool>,
}

/// What is sent to switch a sink on; other fields are not looked at.
#[derive(ToSchema)]
pub(super) struct SinkDraft {
    /// `s3` or `elasticsearch`, in any case.
    #[schema(pattern = "^(s3|elasticsearch)$")]
    r#type: String,
}

/// What is sent to say whether one can subscribe; other fields are not looked at.
#[derive(ToSchema)]
pub(super) struct SubscribableDraft {
    enabled: bool,
}

/// A refusal of the event stream API: a text, or what is wrong with which field.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum StreamRefusal {
    /// A text; `null` for what is not there.
    Message {
        #[schema(required)]
        message: Option<String>,
    },
    /// A text, or `loc`, `msg` and `type` of each field that is wrong.
    Detail {
        #[schema(required)]
        detail: Value,
    },
}

/// What is exchanged for an access token.
#[derive(ToSchema)]
pub(super) struct TokenRequest {
    /// `password` or `client_credentials`; not in JSON.
    grant_type: Option<String>,
    username: Option<String>,
    password: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Why there is no access token.
#[derive(ToSchema)]
pub(super) struct TokenRefusal {
    error: String,
    error_description: String,
}

#[derive(OpenApi)]
#[openapi(paths(
    streams::create,
    streams::list,
    streams::show,
    streams::change,
    streams::delete,
    records::append,
    dead_letters::list,
    dead_letters::replay,
    access::whoami,
    access::create_user,
    access::list_users,
    access::show_user,
    access::change_user,
    access::delete_user,
    access::set_password,
    access::create_key,
    access::list_keys,
    access::delete_key,
    access::list_grants,
    access::set_grant,
    access::delete_grant,
    token::issue,
    webhook_tokens::create,
    webhook_tokens::list,
    webhook_tokens::delete,
    webhooks::create,
    webhooks::list,
    webhooks::remove,
    webhooks::authorize,
    collector::take,
    collector::take_from_webhook,
    event_streams::create,
    event_streams::show,
    event_streams::replace,
    event_streams::remove,
    event_streams::list_sinks,
    event_streams::create_sink,
    event_streams::show_sink,
    event_streams::remove_sink,
    event_streams::show_subscribable,
    event_streams::set_subscribable,
    event_streams::events::append,
))]
struct Documented;

/// What the doors are.
pub fn openapi() -> Api {
    let mut api = Documented::openapi();
    for path in &token::PATHS[1..] {
        alias(&mut api, token::PATHS[0], path);
    }
    alias(&mut api, "/event/{dataset}/{version}", "/events/{dataset}/{version}");
    alias(&mut api, "/webhook/event/{dataset}/{version}", "/webhook/events/{dataset}/{version}");
    api.paths.paths.extend(metadata::documented::paths());
    api
}

/// The same operations at another path.
pub(super) fn alias(api: &mut Api, from: &str, to: &str) {
    let Some(mut item) = api.paths.paths.get(from).cloned() else { return };
    if let Some(post) = &mut item.post {
        let suffix: String = to.split(['/', '{', '}']).filter(|part| !part.is_empty()).collect();
        post.operation_id = post.operation_id.take().map(|id| format!("{id}At{suffix}"));
        let names: Vec<&str> =
            to.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let known = post.parameters.get_or_insert_default();
        for name in names {
            if !known.iter().any(|parameter| parameter.name == name) {
                known.push(parameter(name));
            }
        }
    }
    api.paths.paths.insert(to.to_owned(), item);
}

/// A name in a path.
pub(super) fn parameter(name: &str) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
    parameter.required(Required::True).schema(Some(text)).build()
}
