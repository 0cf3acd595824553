//! The paths of metadata as OpenAPI, made from the same lists as the routes.

use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathItem};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ArrayBuilder, SchemaType, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, RefOr, Required, Response, ResponseBuilder, Schema};

use super::super::api::parameter;
use super::{BELOW, Dialect, ROOTS};

const JSON: &str = "application/json";

/// Every path with its operations.
pub(in super::super) fn paths() -> Vec<(String, PathItem)> {
    let mut paths = Vec::new();
    for (root, dialect) in ROOTS {
        let mut path = format!("{root}/datasets");
        let mut names = Vec::new();
        for (name, below) in BELOW {
            paths.push((path.clone(), all(dialect, name, &names)));
            path = format!("{path}/{{{name}}}");
            names.push(name);
            paths.push((path.clone(), one(dialect, name, &names)));
            path.push_str(below);
        }
    }
    paths
}

fn all(dialect: Dialect, name: &str, names: &[&str]) -> PathItem {
    let array = ArrayBuilder::new().items(RefOr::T(document())).build().into();
    let list =
        begun(dialect, ("list", "Lists", name), names).response("200", answer("Those that there are", array));
    let create = begun(dialect, ("create", "Creates", name), names).request_body(Some(body()));
    let create = match dialect {
        Dialect::First => create.response("200", answer("Its id", text())),
        Dialect::Later => create.response("201", answer("The document", document())),
    };
    let mut item = PathItem::new(HttpMethod::Get, list.build());
    item.merge_operations(PathItem::new(HttpMethod::Post, refusing(create)));
    item
}

fn one(dialect: Dialect, name: &str, names: &[&str]) -> PathItem {
    let show =
        begun(dialect, ("show", "Shows", name), names).response("200", answer("The document", document()));
    let replace = begun(dialect, ("replace", "Replaces", name), names);
    let mut item = PathItem::new(HttpMethod::Get, refusing(show));
    item.merge_operations(PathItem::new(HttpMethod::Put, changing(dialect, replace)));
    if names.len() == 1 && dialect == Dialect::Later {
        let merge = begun(dialect, ("change", "Replaces fields of", name), names);
        item.merge_operations(PathItem::new(HttpMethod::Patch, changing(dialect, merge)));
    }
    item
}

fn begun(dialect: Dialect, (verb, does, name): (&str, &str, &str), names: &[&str]) -> OperationBuilder {
    let later = if dialect == Dialect::Later { "Later" } else { "" };
    let (first, rest) = name.split_at(1);
    let operation = OperationBuilder::new()
        .operation_id(Some(format!("{verb}{later}{}{rest}", first.to_ascii_uppercase())))
        .tag("metadata")
        .summary(Some(format!("{does} a {name}")))
        .parameters(Some(names.iter().map(|name| parameter(name))));
    // Reading needs no credential.
    let is_open = ["list", "show"].contains(&verb);
    if is_open { operation.security(SecurityRequirement::default()) } else { operation }
}

fn changing(dialect: Dialect, operation: OperationBuilder) -> Operation {
    let changed = match dialect {
        Dialect::First => answer("Its id", text()),
        Dialect::Later => answer("The document as it is now", document()),
    };
    refusing(operation.request_body(Some(body())).response("200", changed))
}

/// A text, an object or a list, as the dialect has it.
fn refusing(operation: OperationBuilder) -> Operation {
    let anything: Schema = ObjectBuilder::new().schema_type(SchemaType::AnyValue).build().into();
    let refused = answer("The request is refused", anything.clone());
    operation.response("4XX", refused).response("5XX", answer("It cannot be done now", anything)).build()
}

fn body() -> RequestBody {
    let content = ContentBuilder::new().schema(Some(document())).build();
    RequestBodyBuilder::new().content(JSON, content).required(Some(Required::True)).build()
}

fn answer(description: &str, schema: Schema) -> Response {
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content(JSON, content).build()
}

/// An object of any fields.
fn document() -> Schema {
    ObjectBuilder::new().schema_type(Type::Object).build().into()
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).build().into()
}
