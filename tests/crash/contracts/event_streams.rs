//! The event stream API: streams, sinks, subscribable, events.

use super::*;

const STREAM: &str = "/streams/{ds}/1";
const SINKS: &str = "/streams/{ds}/1/sinks";
const S3: &str = "/streams/{ds}/1/sinks/s3";
const SUBSCRIBABLE: &str = "/streams/{ds}/1/subscribable";
const EVENTS: &str = "/streams/{ds}/1/events";

/// A field that is wrong.
fn fault(loc: &[&str], msg: &str, r#type: &str) -> (u16, Value) {
    (422, json!({"detail": [{"loc": loc, "msg": msg, "type": r#type}]}))
}

/// Needs the dataset with version 1, and leaves it without a stream behind.
pub(super) async fn rows(table: &Table<'_>) {
    credentials(table).await;
    creation(table).await;
    sinks(table).await;
    subscribable(table).await;
    events(table).await;
    counts(table).await;
    deletion(table).await;
}

async fn credentials(table: &Table<'_>) {
    let (none, stranger) = (Value::Null, Header(&table.stranger));
    let detail = |text: &str| json!({ "detail": text });
    for asked in [post(STREAM), get(STREAM), delete(STREAM), get(SINKS), post(EVENTS), put(SUBSCRIBABLE)] {
        let not = (403, detail("Not authenticated"));
        table.row(Nobody, asked.clone(), none.clone(), not.clone()).await;
        table.row(Header("bearer"), asked.clone(), none.clone(), not).await;
        let other = (403, detail("Invalid authentication credentials"));
        table.row(Header("Basic eDp5"), asked.clone(), none.clone(), other).await;
        let wrong = (401, message("Invalid access token"));
        table.row(Header("Bearer hwk.x.y"), asked.clone(), none.clone(), wrong).await;
        table.row(stranger, asked, none.clone(), (403, message("Forbidden"))).await;
    }
}

async fn creation(table: &Table<'_>) {
    let none = Value::Null;
    let absent = (404, message("Could not find dataset: none-{ds}"));
    table.administrator(post("/streams/none-{ds}/1"), none.clone(), absent).await;
    let version = (404, message("Version: 9 for dataset '{ds}' not found"));
    for asked in [post("/streams/{ds}/9"), get("/streams/{ds}/9"), get("/streams/{ds}/9/sinks")] {
        table.administrator(asked, none.clone(), version.clone()).await;
    }
    let file = json!({"title": "file {ds}", "source": {"type": "file"}});
    table.administrator(post("/metadata/datasets"), file, (201, json!({"Id": "file-{ds}"}))).await;
    let source = "Invalid source type 'file' for dataset file-{ds}. Dataset source must be of type: 'event'";
    table.administrator(post("/streams/file-{ds}/1"), none.clone(), (400, message(source))).await;
    let raw = fault(&["body", "create_raw"], "value could not be parsed to a boolean", "type_error.bool");
    table.administrator(post(STREAM), json!({"create_raw": "maybe"}), raw).await;
    table.administrator(get(STREAM), none.clone(), (404, message("Could not find stream: {ds}/1"))).await;
    let gone = (404, message("Event stream with id {ds}/1 does not exist"));
    table.administrator(delete(STREAM), none.clone(), gone.clone()).await;
    table.administrator(get(SUBSCRIBABLE), none.clone(), gone).await;
    let made = json!({"id": "{ds}/1", "create_raw": true, "deleted": false, "status": "CREATE_IN_PROGRESS"});
    table.administrator(post(STREAM), json!({"create_raw": true}), (201, made)).await;
    table
        .administrator(
            post(STREAM),
            none.clone(),
            (409, message("Event stream with id {ds}/1 already exist")),
        )
        .await;
    let shown = json!({"id": "{ds}/1", "accessRights": "restricted", "confidentiality": "yellow"});
    table.administrator(get(STREAM), none.clone(), (200, shown)).await;
    table.administrator(put(STREAM), none, (501, json!({"message": null}))).await;
}

async fn sinks(table: &Table<'_>) {
    let none = Value::Null;
    table.administrator(get(SINKS), none.clone(), (200, json!([]))).await;
    let missing = |loc: &[&str]| fault(loc, "field required", "value_error.missing");
    table.administrator(post(SINKS), none.clone(), missing(&["body"])).await;
    table.administrator(post(SINKS), json!({}), missing(&["body", "type"])).await;
    table.administrator(post(SINKS), json!({"type": 5}), (400, message("Invalid sink type: 5"))).await;
    table
        .administrator(get("/streams/{ds}/1/sinks/x"), none.clone(), (400, message("Invalid sink type: x")))
        .await;
    let absent = (404, message("Sink of type s3 does not exist on {ds}/1"));
    table.administrator(get(S3), none.clone(), absent.clone()).await;
    table.administrator(delete(S3), none.clone(), absent).await;
    let made = json!({"type": "s3", "status": "CREATE_IN_PROGRESS"});
    table.administrator(post(SINKS), json!({"type": "S3"}), (201, made)).await;
    table
        .administrator(
            post(SINKS),
            json!({"type": "s3"}),
            (409, message("Sink: s3 already exists on {ds}/1")),
        )
        .await;
    table.administrator(get(SINKS), none.clone(), (200, json!([{"type": "s3"}]))).await;
    let used = "Event stream with id {ds}/1 contains sub-resources. Delete all related event-sinks and disable event subscription";
    table.administrator(delete(STREAM), none, (409, message(used))).await;
}

async fn subscribable(table: &Table<'_>) {
    let none = Value::Null;
    let stranger = Header(&table.stranger);
    table
        .row(
            stranger,
            get(SUBSCRIBABLE),
            none.clone(),
            (200, json!({"enabled": false, "status": "INACTIVE"})),
        )
        .await;
    let required = fault(&["body", "enabled"], "field required", "value_error.missing");
    table.administrator(put(SUBSCRIBABLE), json!({}), required).await;
    let off = (409, message("Event stream with id {ds}/1 is not currently subscribable"));
    table.administrator(put(SUBSCRIBABLE), json!({"enabled": false}), off).await;
    let on = json!({"enabled": true, "status": "CREATE_IN_PROGRESS"});
    table.administrator(put(SUBSCRIBABLE), json!({"enabled": true}), (200, on)).await;
    let already = (409, message("Event stream with id {ds}/1 is already subscribable"));
    table.administrator(put(SUBSCRIBABLE), json!({"enabled": true}), already).await;
    let gone = json!({"enabled": false, "status": "DELETE_IN_PROGRESS"});
    table.administrator(put(SUBSCRIBABLE), json!({"enabled": false}), (200, gone)).await;
}

async fn events(table: &Table<'_>) {
    let none = Value::Null;
    let list = fault(&["body"], "value is not a valid list", "type_error.list");
    table.administrator(post(EVENTS), json!({"a": 1}), list).await;
    let (status, answer) = table.ask(Administrator, post(EVENTS), &json!([{}, 1])).await;
    assert_eq!((status, &answer["detail"][0]["type"]), (422, &json!("type_error.dict")), "{answer}");
    table
        .administrator(post(EVENTS), json!([{"timestamp": "2020-10-18T09:05:00Z"}]), (200, Value::Null))
        .await;
    table.administrator(post(EVENTS), json!([]), (200, Value::Null)).await;
    for (query, field) in [
        ("", "from_date"),
        ("?from_date=2020-02-30&to_date=2020-10-18", "from_date"),
        ("?from_date=2020-10-18&to_date=2020-10-18&page=0", "page"),
        ("?from_date=2020-10-18&to_date=2020-10-18&page_size=10001", "page_size"),
    ] {
        let path = format!("{EVENTS}{query}");
        let (status, answer) = table.ask(Administrator, get(&path), &none).await;
        assert_eq!((status, &answer["detail"][0]["loc"]), (422, &json!(["query", field])), "{answer}");
    }
    let days = "?from_date=2020-10-18&to_date=2020-10-18";
    for path in [format!("{EVENTS}{days}"), format!("{EVENTS}/statistics{days}")] {
        let nothing = (400, message("Could not find event: {ds}/1"));
        table.administrator(get(&path), none.clone(), nothing).await;
        let forbidden = (403, message("Forbidden"));
        table.row(Header(&table.stranger), get(&path), none.clone(), forbidden).await;
    }
}

async fn counts(table: &Table<'_>) {
    let (none, path) = (Value::Null, "/elasticsearch-queries/{ds}/events");
    table.row(Header(&table.stranger), get(path), none.clone(), (403, message("Forbidden"))).await;
    table.administrator(get(path), none.clone(), (404, message("No events found"))).await;
    let sink = json!({"type": "elasticsearch"});
    table.administrator(post(SINKS), sink, (201, json!({"type": "elasticsearch"}))).await;
    until("the index is there", async || {
        let shown = table.ask(Administrator, get("/streams/{ds}/1/sinks/elasticsearch"), &none).await;
        (shown.1["status"] == "ACTIVE").then_some(())
    })
    .await;
    table.administrator(post(EVENTS), json!([{}, {}]), (200, Value::Null)).await;
    let counted = json!({"events": 2.0});
    let counts =
        json!({"dataset_id": "{ds}", "last_hour": counted, "last_day": counted, "last_week": counted});
    table.administrator(get(path), none.clone(), (200, counts)).await;
    let off = (200, message("Disabled sink of type elasticsearch for stream {ds}/1"));
    table.administrator(delete("/streams/{ds}/1/sinks/elasticsearch"), none, off).await;
}

async fn deletion(table: &Table<'_>) {
    let none = Value::Null;
    until("the sink is there", async || {
        (table.ask(Administrator, get(S3), &none).await.1["status"] == "ACTIVE").then_some(())
    })
    .await;
    let off = (200, message("Disabled sink of type s3 for stream {ds}/1"));
    table.administrator(delete(S3), none.clone(), off).await;
    until("the stream can be deleted", async || {
        let (status, answer) = table.ask(Administrator, delete(STREAM), &none).await;
        assert!(status == 200 || status == 409, "{answer}");
        (status == 200).then_some(())
    })
    .await;
    let gone = (404, message("Event stream with id {ds}/1 does not exist"));
    table.administrator(delete(STREAM), none.clone(), gone.clone()).await;
    table.administrator(delete(S3), none.clone(), gone.clone()).await;
    table.administrator(post(EVENTS), json!([{}]), gone.clone()).await;
    table.administrator(put(SUBSCRIBABLE), json!({"enabled": true}), gone).await;
    table
        .administrator(get(STREAM), none.clone(), (200, json!({"deleted": true, "status": "INACTIVE"})))
        .await;
    table.administrator(get(SINKS), none.clone(), (200, json!([]))).await;
    table
        .administrator(get(S3), none.clone(), (404, message("Sink of type s3 does not exist on {ds}/1")))
        .await;
    let absent = (404, message("Event stream {ds}/1 does not exist"));
    table.administrator(post(SINKS), json!({"type": "s3"}), absent).await;
}
