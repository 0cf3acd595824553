use std::sync::Arc;

use broker::Offset;
use broker::catalog::{SinkKind, Unsettled};
use broker::log::faulty::{Faults, Faulty};
use futures::future::join_all;
use http::{Method, Request, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use crate::Limits;
use crate::testing::{Answer, Doors};

const STREAM: &str = "/streams/flights/1";

/// Sends as whoever holds `bearer`; as the administrator where it is empty.
async fn send_as(doors: &Doors, bearer: &str, (method, path): (Method, &str), body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if !bearer.is_empty() {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    doors.send(request.body(body.to_owned().into()).unwrap()).await
}

async fn send(doors: &Doors, method: Method, path: &str, body: &str) -> Answer {
    send_as(doors, "", (method, path), body).await
}

fn told(answer: &Answer) -> (u16, &Value) {
    (answer.status.as_u16(), &answer.json)
}

fn message(text: &str) -> Value {
    json!({"message": text})
}

/// Doors with the documents of `flights`, version 1.
async fn described(more: Value) -> Doors {
    let doors = Doors::open().await;
    describe(&doors, more).await;
    doors
}

async fn describe(doors: &Doors, more: Value) {
    let mut document = json!({"title": "Flights", "accessRights": "restricted"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    for (path, body) in [("/datasets", document), ("/datasets/flights/versions", json!({"version": "1"}))] {
        let made = doors.post(path, &[], body.to_string()).await;
        assert!(made.status.is_success(), "{}", made.json);
    }
}

async fn with_stream() -> Doors {
    let doors = described(json!({})).await;
    assert_eq!(send(&doors, Method::POST, STREAM, "").await.status, StatusCode::CREATED);
    doors
}

/// Does what a sink's worker would: settles a sink in every partition.
async fn settle(doors: &Doors, kind: SinkKind) {
    let catalog = &doors.ingest.catalog;
    let stream = catalog.get(&"flights/1".parse().unwrap()).unwrap();
    for partition in stream.partitions() {
        let (span, ended) = match stream.unsettled(kind, partition) {
            None => continue,
            Some(Unsettled::Begin { span, .. }) => (span, None),
            Some(Unsettled::End { span, to }) => (span, Some(to.max(Offset(0)))),
        };
        let append = catalog.settlement_of_span(&stream, (kind, span), (partition, ended)).unwrap();
        doors.log.append(vec![append]).await.unwrap();
    }
    catalog.refresh().await.unwrap();
}

#[tokio::test]
async fn a_stream_is_created_shown_deleted_and_created_again() {
    let doors = described(json!({"source": {"type": "event"}, "timestamp_field": "at"})).await;
    let shown = |more: Value| {
        let mut shown = json!({
            "id": "flights/1", "updated_by": "administrator", "updated_at": "2001-01-01T00:00:00+00:00",
        });
        shown.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        shown
    };
    let created = send(&doors, Method::POST, STREAM, r#"{"create_raw":"off"}"#).await;
    let expected = shown(json!({"create_raw": false, "deleted": false, "status": "CREATE_IN_PROGRESS"}));
    let at = created.json["updated_at"].clone();
    let with_time = |mut value: Value| {
        value["updated_at"] = at.clone();
        value
    };
    assert!(at.as_str().unwrap().ends_with("+00:00"));
    assert_eq!(told(&created), (201, &with_time(expected)));
    let found = send(&doors, Method::GET, STREAM, "").await;
    let more = json!({
        "create_raw": false, "deleted": false, "status": "ACTIVE",
        "accessRights": "restricted", "confidentiality": "yellow",
    });
    assert_eq!(told(&found), (200, &with_time(shown(more))));
    let defined = doors.get("/api/v1/streams/flights/1").await;
    assert_eq!(defined.json["timestamp_field"], "at");
    assert_eq!(defined.json["sinks"], json!({"archive": false, "index": false}));

    let again = send(&doors, Method::POST, STREAM, "").await;
    assert_eq!(told(&again), (409, &message("Event stream with id flights/1 already exist")));
    assert_eq!(told(&send(&doors, Method::PUT, STREAM, "").await), (501, &json!({"message": null})));

    let deleted = send(&doors, Method::DELETE, STREAM, "").await;
    assert_eq!(told(&deleted), (200, &message("Deleted event stream with id flights/1")));
    let found = send(&doors, Method::GET, STREAM, "").await;
    assert_eq!((&found.json["deleted"], &found.json["status"]), (&json!(true), &json!("INACTIVE")));
    let gone = message("Event stream with id flights/1 does not exist");
    assert_eq!(told(&send(&doors, Method::DELETE, STREAM, "").await), (404, &gone));
    assert_eq!(told(&send(&doors, Method::GET, &format!("{STREAM}/sinks"), "").await), (200, &json!([])));
    let sink = send(&doors, Method::GET, &format!("{STREAM}/sinks/s3"), "").await;
    assert_eq!(told(&sink), (404, &message("Sink of type s3 does not exist on flights/1")));
    let sink = send(&doors, Method::POST, &format!("{STREAM}/sinks"), r#"{"type":"s3"}"#).await;
    assert_eq!(told(&sink), (404, &message("Event stream flights/1 does not exist")));
    let created = send(&doors, Method::POST, STREAM, "").await;
    assert_eq!((created.status.as_u16(), &created.json["create_raw"]), (201, &json!(true)));
}

#[tokio::test]
async fn a_stream_hangs_on_a_dataset_whose_source_is_events() {
    let doors = Doors::open().await;
    let unknown = send(&doors, Method::POST, STREAM, "").await;
    assert_eq!(told(&unknown), (404, &message("Could not find dataset: flights")));
    describe(&doors, json!({"source": {"type": "file"}})).await;
    let wrong = send(&doors, Method::POST, STREAM, "nonsense").await;
    let text = "Invalid source type 'file' for dataset flights. Dataset source must be of type: 'event'";
    assert_eq!(told(&wrong), (400, &message(text)));
    let doors = described(json!({})).await;
    let other = send(&doors, Method::POST, "/streams/flights/2", "").await;
    assert_eq!(told(&other), (404, &message("Version: 2 for dataset 'flights' not found")));
    let missing = send(&doors, Method::GET, STREAM, "").await;
    assert_eq!(told(&missing), (404, &message("Could not find stream: flights/1")));
}

#[rstest::rstest]
#[case::dots_written_out("/streams/%2e%2e/1", "..")]
#[case::a_way_out("/streams/%2e%2e%2f%2e%2e%2fetc/1", "../../etc")]
#[case::a_dot("/streams/flights.raw/1", "flights.raw")]
#[case::upper_case("/streams/Flights/1", "Flights")]
#[case::a_line_end("/streams/flights%0a/1", "flights\n")]
#[case::nothing("/streams/%00/1", "\0")]
#[tokio::test]
async fn a_name_that_no_dataset_has_is_not_found_whatever_it_looks_like(
    #[case] path: &str,
    #[case] name: &str,
) {
    let doors = described(json!({})).await;
    let made = send(&doors, Method::POST, path, "").await;
    assert_eq!(told(&made), (404, &message(&format!("Could not find dataset: {name}"))));
    let shown = send(&doors, Method::GET, path, "").await;
    assert_eq!(told(&shown), (404, &message(&format!("Version: 1 for dataset '{name}' not found"))));
    for below in ["/sinks", "/sinks/s3", "/subscribable"] {
        let path = format!("{path}{below}");
        assert_eq!(send(&doors, Method::GET, &path, "").await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let posted = send(&doors, Method::POST, &format!("{path}/events"), "[{}]").await;
    assert_eq!(posted.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_name_of_70_characters_is_a_dataset_and_one_of_71_is_not() {
    let (longest, longer) = ("a".repeat(70), "a".repeat(71));
    let doors = Doors::with_implicit_datasets().await;
    let made = send(&doors, Method::POST, &format!("/streams/{longest}/1"), "").await;
    assert_eq!(made.status, StatusCode::CREATED);
    let refused = send(&doors, Method::POST, &format!("/streams/{longer}/1"), "").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.json);
    let posted = send(&doors, Method::POST, &format!("/streams/{longer}/1/events"), "[{}]").await;
    assert_eq!(posted.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stream_makes_its_dataset_where_that_is_configured() {
    let doors = Doors::with_implicit_datasets().await;
    for path in [STREAM, "/streams/flights/2"] {
        assert_eq!(send(&doors, Method::POST, path, "").await.status, StatusCode::CREATED, "{path}");
        assert_eq!(send(&doors, Method::POST, path, "").await.status, StatusCode::CONFLICT, "{path}");
        assert_eq!(send(&doors, Method::GET, path, "").await.json["confidentiality"], "red");
    }
    assert_eq!(doors.get("/datasets/flights").await.json["source"], json!({"type": "event"}));
    assert_eq!(doors.get("/datasets/flights/versions/latest").await.json["version"], "2");
    assert_eq!(send(&doors, Method::POST, "/streams/fl.ights/1", "").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(doors.get("/datasets/fl.ights").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sinks_go_from_being_made_to_active_to_being_deleted_as_their_worker_settles_them() {
    let doors = with_stream().await;
    let (sinks, s3) = (format!("{STREAM}/sinks"), format!("{STREAM}/sinks/S3"));
    assert_eq!(send(&doors, Method::GET, &sinks, "").await.json, json!([]));
    let made = send(&doors, Method::POST, &sinks, r#"{"type":"S3"}"#).await;
    assert_eq!((made.status.as_u16(), &made.json["type"]), (201, &json!("s3")));
    assert_eq!(made.json["status"], "CREATE_IN_PROGRESS");
    let twice = send(&doors, Method::POST, &sinks, r#"{"type":"s3"}"#).await;
    assert_eq!(told(&twice), (409, &message("Sink: s3 already exists on flights/1")));
    let early = send(&doors, Method::DELETE, &s3, "").await;
    let text = "Sink of type s3 cannot be disabled since it is being constructed";
    assert_eq!(told(&early), (409, &message(text)));

    settle(&doors, SinkKind::Archive).await;
    let shown = send(&doors, Method::GET, &s3, "").await;
    assert_eq!((shown.status.as_u16(), &shown.json["status"]), (200, &json!("ACTIVE")));
    assert_eq!(send(&doors, Method::GET, &sinks, "").await.json, json!([shown.json]));
    let used = send(&doors, Method::DELETE, STREAM, "").await;
    let text = "Event stream with id flights/1 contains sub-resources. Delete all related event-sinks and disable \
                event subscription";
    assert_eq!(told(&used), (409, &message(text)));

    let disabled = send(&doors, Method::DELETE, &s3, "").await;
    assert_eq!(told(&disabled), (200, &message("Disabled sink of type s3 for stream flights/1")));
    assert_eq!(send(&doors, Method::GET, &sinks, "").await.json, json!([]));
    let none = message("Sink of type s3 does not exist on flights/1");
    assert_eq!(told(&send(&doors, Method::GET, &s3, "").await), (404, &none));
    assert_eq!(told(&send(&doors, Method::DELETE, &s3, "").await), (404, &none));
    let soon = send(&doors, Method::POST, &sinks, r#"{"type":"s3"}"#).await;
    let text = "Cannot create sink since a sink of type s3 currently is being deleted";
    assert_eq!(told(&soon), (409, &message(text)));
    assert_eq!(send(&doors, Method::DELETE, STREAM, "").await.status, StatusCode::CONFLICT);
    settle(&doors, SinkKind::Archive).await;
    assert_eq!(send(&doors, Method::DELETE, STREAM, "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_sink_that_its_worker_cannot_take_up_says_why_until_it_can() {
    let doors = with_stream().await;
    let (sinks, s3) = (format!("{STREAM}/sinks"), format!("{STREAM}/sinks/s3"));
    send(&doors, Method::POST, &sinks, r#"{"type":"s3"}"#).await;
    send(&doors, Method::POST, &sinks, r#"{"type":"elasticsearch"}"#).await;
    let fail = async |reason| {
        doors.ingest.catalog.fail_sink(SinkKind::Archive, reason).await.unwrap();
        doors.ingest.catalog.refresh().await.unwrap();
        let shown = send(&doors, Method::GET, &s3, "").await.json;
        (shown["status"].clone(), shown["reason"].clone())
    };
    assert_eq!(fail("no bucket").await, (json!("OPERATION_FAILED"), json!("no bucket")));
    assert_eq!(fail("no network").await.1, "no bucket", "a moment later");
    doors.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(fail("no network").await.1, "no network");
    let other = send(&doors, Method::GET, &format!("{sinks}/elasticsearch"), "").await.json;
    assert_eq!((&other["status"], &other["reason"]), (&json!("CREATE_IN_PROGRESS"), &Value::Null));
    let shown = doors.get("/api/v1/streams/flights/1").await.json;
    assert_eq!(shown["sink_states"]["archive"], "starting");
    assert_eq!(shown["sink_failures"], json!({"archive": "no network"}));

    let disabled = send(&doors, Method::DELETE, &s3, "").await;
    assert_eq!(disabled.status, StatusCode::OK, "nobody has to wait for what cannot be");
    settle(&doors, SinkKind::Archive).await;
    settle(&doors, SinkKind::Archive).await;
    assert_eq!(doors.get("/api/v1/streams/flights/1").await.json["sink_failures"], Value::Null);
    send(&doors, Method::POST, &sinks, r#"{"type":"s3"}"#).await;
    settle(&doors, SinkKind::Archive).await;
    assert_eq!(fail("nothing is to be settled").await, (json!("ACTIVE"), Value::Null));
}

#[tokio::test]
async fn of_two_at_once_none_is_lost() {
    let doors = with_stream().await;
    let sinks = format!("{STREAM}/sinks");
    let bodies = [r#"{"type":"s3"}"#, r#"{"type":"elasticsearch"}"#, r#"{"type":"s3"}"#];
    let made = join_all(bodies.map(|body| send(&doors, Method::POST, &sinks, body))).await;
    let mut statuses: Vec<u16> = made.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 409]);
    let types = send(&doors, Method::GET, &sinks, "").await.json;
    assert_eq!((&types[0]["type"], &types[1]["type"]), (&json!("s3"), &json!("elasticsearch")));

    let doors = described(json!({})).await;
    let made = join_all((0..3).map(|_| send(&doors, Method::POST, STREAM, ""))).await;
    assert_eq!(made.iter().filter(|answer| answer.status == StatusCode::CREATED).count(), 1);
    let refused = made.iter().filter(|answer| answer.status == StatusCode::CONFLICT);
    let exists = message("Event stream with id flights/1 already exist");
    assert_eq!(refused.filter(|answer| answer.json == exists).count(), 2);
}

#[tokio::test]
async fn a_stream_is_made_subscribable_and_not_again() {
    let doors = with_stream().await;
    let path = format!("{STREAM}/subscribable");
    let shown = send(&doors, Method::GET, &path, "").await;
    let state = |answer: &Answer| (answer.json["enabled"].clone(), answer.json["status"].clone());
    assert_eq!(state(&shown), (json!(false), json!("INACTIVE")));
    let (yes, no) = (r#"{"enabled":true}"#, r#"{"enabled":"no"}"#);
    let idle = send(&doors, Method::PUT, &path, no).await;
    let text = "Event stream with id flights/1 is not currently subscribable";
    assert_eq!(told(&idle), (409, &message(text)));
    let enabled = send(&doors, Method::PUT, &path, yes).await;
    assert_eq!((enabled.status.as_u16(), state(&enabled)), (200, (json!(true), json!("CREATE_IN_PROGRESS"))));
    assert_eq!(state(&send(&doors, Method::GET, &path, "").await), (json!(true), json!("ACTIVE")));
    let twice = send(&doors, Method::PUT, &path, yes).await;
    assert_eq!(told(&twice), (409, &message("Event stream with id flights/1 is already subscribable")));
    assert_eq!(send(&doors, Method::DELETE, STREAM, "").await.status, StatusCode::CONFLICT);
    let disabled = send(&doors, Method::PUT, &path, no).await;
    assert_eq!(state(&disabled), (json!(false), json!("DELETE_IN_PROGRESS")));
    assert_eq!(state(&send(&doors, Method::GET, &path, "").await), (json!(false), json!("INACTIVE")));
    let unknown = send(&doors, Method::GET, "/streams/trains/1/subscribable", "").await;
    assert_eq!(told(&unknown), (404, &message("Event stream with id trains/1 does not exist")));
}

#[rstest]
#[case::no_body(Method::POST, "/sinks", "", json!([{
    "loc": ["body"], "msg": "field required", "type": "value_error.missing"}]))]
#[case::no_type(Method::POST, "/sinks", "{}", json!([{
    "loc": ["body", "type"], "msg": "field required", "type": "value_error.missing"}]))]
#[case::no_object(Method::POST, "/sinks", "[]", json!([{
    "loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}]))]
#[case::no_text(Method::POST, "/sinks", r#"{"type":[]}"#, json!([{
    "loc": ["body", "type"], "msg": "str type expected", "type": "type_error.str"}]))]
#[case::no_backfill(Method::POST, "/sinks?backfill=maybe", r#"{"type":"s3"}"#, json!([{
    "loc": ["query", "backfill"], "msg": "value could not be parsed to a boolean", "type": "type_error.bool"}]))]
#[case::no_bool(Method::PUT, "/subscribable", r#"{"enabled":2}"#, json!([{
    "loc": ["body", "enabled"], "msg": "value could not be parsed to a boolean", "type": "type_error.bool"}]))]
#[case::null(Method::PUT, "/subscribable", r#"{"enabled":null}"#, json!([{
    "loc": ["body", "enabled"], "msg": "none is not an allowed value", "type": "type_error.none.not_allowed"}]))]
#[case::no_json(Method::PUT, "/subscribable", "{\n \"enabled\" 1}", json!([{
    "loc": ["body", 13], "msg": "expected `:`: line 2 column 12 (char 13)", "type": "value_error.jsondecode",
    "ctx": {"msg": "expected `:`", "pos": 13, "lineno": 2, "colno": 12}}]))]
#[case::no_array(Method::POST, "/events", "{}", json!([{
    "loc": ["body"], "msg": "value is not a valid list", "type": "type_error.list"}]))]
#[case::no_events(Method::POST, "/events", "", json!([{
    "loc": ["body"], "msg": "field required", "type": "value_error.missing"}]))]
#[case::no_objects(Method::POST, "/events", r#"[{},1,{},"a"]"#, json!([
    {"loc": ["body", 1], "msg": "value is not a valid dict", "type": "type_error.dict"},
    {"loc": ["body", 3], "msg": "value is not a valid dict", "type": "type_error.dict"}]))]
#[tokio::test]
async fn what_is_wrong_with_a_body_is_said_field_by_field(
    #[case] method: Method,
    #[case] path: &str,
    #[case] body: &str,
    #[case] detail: Value,
) {
    let doors = with_stream().await;
    let answer = send(&doors, method, &format!("{STREAM}{path}"), body).await;
    assert_eq!(told(&answer), (422, &json!({"detail": detail})));
}

#[tokio::test]
async fn a_sink_has_one_of_two_types() {
    let doors = with_stream().await;
    for (body, named) in [(r#"{"type":5}"#, "5"), (r#"{"type":"s4"}"#, "s4")] {
        let answer = send(&doors, Method::POST, &format!("{STREAM}/sinks"), body).await;
        assert_eq!(told(&answer), (400, &message(&format!("Invalid sink type: {named}"))));
    }
    for method in [Method::GET, Method::DELETE] {
        let answer = send(&doors, method, &format!("{STREAM}/sinks/x"), "").await;
        assert_eq!(told(&answer), (400, &message("Invalid sink type: x")));
    }
}

#[tokio::test]
async fn who_may_not_learns_nothing() {
    let doors = with_stream().await;
    doors.post("/api/v1/users", &[], json!({"name": "ann"}).to_string()).await;
    let key = doors.post("/api/v1/keys", &[], json!({"user": "ann"}).to_string()).await;
    let key = key.json["key"].as_str().unwrap().to_owned();
    let sinks = format!("{STREAM}/sinks");
    for (method, path) in [
        (Method::POST, STREAM),
        (Method::GET, STREAM),
        (Method::PUT, STREAM),
        (Method::DELETE, STREAM),
        (Method::GET, &*sinks),
        (Method::POST, &*sinks),
        (Method::GET, &*format!("{sinks}/s3")),
        (Method::DELETE, &*format!("{sinks}/s3")),
        (Method::PUT, &*format!("{STREAM}/subscribable")),
        (Method::POST, &*format!("{STREAM}/events")),
        (Method::GET, "/streams/nowhere/1"),
    ] {
        let answer = send_as(&doors, &key, (method.clone(), path), "nonsense").await;
        assert_eq!(told(&answer), (403, &message("Forbidden")), "{method} {path}");
        let unknown = send_as(&doors, "nothing", (method.clone(), path), "nonsense").await;
        assert_eq!(told(&unknown), (401, &message("Invalid access token")), "{method} {path}");
        for (header, detail) in [("", "Not authenticated"), ("Basic x", "Invalid authentication credentials")]
        {
            let request = Request::builder().method(method.clone()).uri(path).header("authorization", header);
            let answer = doors.send(request.body("".into()).unwrap()).await;
            assert_eq!(told(&answer), (403, &json!({"detail": detail})), "{method} {path}");
        }
    }
    let path = format!("{STREAM}/subscribable");
    assert_eq!(send_as(&doors, &key, (Method::GET, &path), "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn events_are_kept_as_they_were_sent() {
    let doors = with_stream().await;
    let path = format!("{STREAM}/events");
    let posted = send(&doors, Method::POST, &path, "[{\"a\" : 1.50}, {\"b\":1e3,\n\"b\":2}]").await;
    assert_eq!(told(&posted), (200, &Value::Null));
    assert_eq!(told(&send(&doors, Method::POST, &path, "[]").await), (200, &Value::Null));
    let mut values = doors.raw_values().await;
    values.sort();
    assert_eq!(values, ["{\"a\" : 1.50}", "{\"b\":1e3,\n\"b\":2}"]);

    let refused = send(&doors, Method::POST, &path, r#"[{"a":1},{"timestamp":"soon"}]"#).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.json);
    assert_eq!(doors.raw_values().await.len(), 2);
    for (id, status) in [("Flights", 404), ("fl.ights", 404)] {
        let answer = send(&doors, Method::POST, &format!("/streams/{id}/1/events"), "[]").await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.json);
    }
    send(&doors, Method::DELETE, STREAM, "").await;
    let gone = send(&doors, Method::POST, &path, "[{}]").await;
    assert_eq!(told(&gone), (404, &message("Event stream with id flights/1 does not exist")));
}

#[tokio::test]
async fn what_the_log_did_not_take_is_answered_to_be_sent_again() {
    let faults = Faults { before: 500, after: 0, fenced: 0, delays: 0 };
    let faulty = |log| -> Arc<dyn broker::Log> { Arc::new(Faulty::new(log, 1, faults)) };
    let doors = Doors::appending_to(Limits::default(), faulty).await;
    describe(&doors, json!({})).await;
    send(&doors, Method::POST, STREAM, "").await;
    send(&doors, Method::PATCH, "/api/v1/streams/flights/1", r#"{"key":"/k"}"#).await;
    let (mut taken, mut parts) = (Vec::new(), 0);
    for round in 0..20 {
        let sent: Vec<String> = (0..8).map(|n| format!("{{\"k\": \"{n}\", \"round\": {round}}}")).collect();
        let body = format!("[{}]", sent.join(", "));
        let answer = send(&doors, Method::POST, &format!("{STREAM}/events"), &body).await;
        match answer.status.as_u16() {
            200 => taken.extend(sent),
            500 => {
                parts += 1;
                let failed = answer.json["failed_records"].as_array().unwrap();
                let message = format!("Request failed for {} elements", failed.len());
                assert_eq!(
                    answer.json["message"],
                    message.trim_end_matches(if failed.len() == 1 { "s" } else { "" })
                );
                let lacks = |event: &String| failed.iter().any(|entry| entry["Data"] == format!("{event}\n"));
                assert!(failed.iter().all(|entry| entry["PartitionKey"].is_string()));
                taken.extend(sent.into_iter().filter(|event| !lacks(event)));
            }
            status => assert_eq!(status, 503),
        }
    }
    let mut written = doors.raw_values().await;
    written.sort();
    taken.sort();
    assert_eq!(written, taken);
    assert!(parts > 0 && !taken.is_empty());
}
