//! What each surface answers, by status and body.

use axum::body::{Body, to_bytes};
use broker::access::{ADMINISTRATOR, Caller, Denial, Grant, User};
use broker::catalog::Edit;
use broker::{Clock as _, Kind, Permission, Principal, Stage};
use http::{Request, StatusCode};
use proto::problem::Problem;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::testing::{Bench, Driver, beside};
use crate::{Indexer, Limits};

const EVENTS: &str = "/api/v1/streams/flights/1/events";
const OLD: &str = "/streams/flights/1/events";

async fn get(indexer: &std::sync::Arc<Indexer>, uri: &str) -> axum::response::Response {
    let request = Request::get(uri).extension(Principal::administrator());
    let request = request.extension(Caller(Ok(Principal::administrator())));
    indexer.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// The older surface, asked by somebody.
async fn old(bench: &Bench, caller: Result<Principal, Denial>) -> (StatusCode, Value) {
    let request =
        Request::get(format!("{OLD}?from_date=2001-01-01&to_date=2001-01-01")).extension(Caller(caller));
    let response = bench.indexer.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

#[tokio::test]
async fn the_older_surface_denies_in_its_own_words() {
    let bench = bench().await;
    let ann = Principal::of(&User::new("ann", bench.clock.now()));
    let (missing, other) = ("Not authenticated", "Invalid authentication credentials");
    for (caller, status, body) in [
        (Err(Denial::Missing), 403, json!({"detail": missing})),
        (Err(Denial::Unsupported), 403, json!({"detail": other})),
        (Err(Denial::Wrong("")), 401, json!({"message": "Invalid access token"})),
        (Err(Denial::Expired("")), 401, json!({"message": "Invalid access token"})),
        (Err(Denial::Unavailable("")), 503, json!({"message": "Server error"})),
        (Ok(ann.clone()), 403, json!({"message": "Forbidden"})),
    ] {
        let (answered, found) = old(&bench, caller).await;
        assert_eq!((answered.as_u16(), found), (status, body));
    }
    let grant = Grant {
        dataset: "flights".to_owned(),
        principal: "ann".to_owned(),
        is_owner: false,
        permissions: [Permission::Read].into(),
    };
    let mut writes = bench.catalog.writes(ADMINISTRATOR);
    writes.set(Grant::id_of("flights", "ann"), 0, &grant).unwrap();
    bench.catalog.write(writes).await.unwrap();
    assert_eq!(old(&bench, Ok(ann)).await.0, StatusCode::OK);
}

async fn text(response: axum::response::Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn json_of(bench: &Bench, uri: &str) -> (StatusCode, Value) {
    let response = get(&bench.indexer, uri).await;
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

/// Twelve events: two on January 1st at midnight and at its last second, ten on the 2nd.
async fn bench() -> Bench {
    let bench = Bench::new(Limits::default()).await;
    let mut records = vec![bench.record(0, Some("a"), "{\"n\": 0,\n \"n\":1}")];
    records.push(bench.record(86_399, None, "{\"n\":1}"));
    records.extend((0..10).map(|n| bench.record(86_400 + n, None, &format!("{{\"n\":{}}}", n + 2))));
    bench.append(Stage::Processed, 0, &records).await;
    bench
}

#[tokio::test]
async fn a_page_has_events_as_they_were_posted_and_a_cursor() {
    let bench = bench().await;
    let response = get(&bench.indexer, &format!("{EVENTS}?to=2001-01-01&limit=1")).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = text(response).await;
    let event = concat!(
        r#"{"partition":0,"offset":0,"origin":{"partition":0,"offset":0},"#,
        r#""timestamp":"2001-01-01T00:00:00Z","key":"a","value":{"n": 0,"#,
        "\n \"n\":1}}"
    );
    assert!(body.starts_with(&format!("{{\"events\":[{event}],\"cursor\":\"")), "{body}");
    assert!(body.ends_with(r#"","complete_through":"2001-01-01T01:00:00Z"}"#), "{body}");

    let page: Value = serde_json::from_str(&body).unwrap();
    let cursor = page["cursor"].as_str().unwrap();
    let (status, page) = json_of(&bench, &format!("{EVENTS}?to=2001-01-01&limit=9&cursor={cursor}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(page["events"][0]["value"], json!({"n": 1}));
    assert_eq!(page["events"][0]["key"], Value::Null);
    assert_eq!(page["cursor"], Value::Null);
}

#[tokio::test]
async fn counts_and_newest_first() {
    let bench = bench().await;
    let (_, count) = json_of(&bench, &format!("{EVENTS}/count?from=2001-01-02&to=2001-01-02")).await;
    assert_eq!(count, json!({"count": 10, "complete_through": "2001-01-01T01:00:00Z"}));
    let (_, count) = json_of(&bench, &format!("{EVENTS}/count?q=n:%5B5%20TO%20*%5D")).await;
    assert_eq!(count["count"], 7);
    let (_, page) = json_of(&bench, &format!("{EVENTS}?order=desc&limit=2")).await;
    assert_eq!(page["events"][0]["offset"], 11);
}

#[tokio::test]
async fn a_page_comes_with_how_many_events_there_are() {
    let bench = bench().await;
    for q in ["", "&q=n:>1"] {
        let uri = format!("{EVENTS}?from=2001-01-02&limit=4&count=true{}", q.replace('>', "%3E"));
        let (_, page) = json_of(&bench, &uri).await;
        assert_eq!((page["events"].as_array().unwrap().len(), &page["count"]), (4, &json!(10)));
        let cursor = page["cursor"].as_str().unwrap();
        let (_, page) = json_of(&bench, &format!("{uri}&cursor={cursor}")).await;
        assert_eq!(
            (&page["events"][0]["offset"], &page["count"]),
            (&json!(6), &json!(10)),
            "the same on all"
        );
    }
    let (_, page) = json_of(&bench, &format!("{EVENTS}?count=false")).await;
    assert!(page.get("count").is_none());
}

#[tokio::test]
async fn a_histogram_counts_the_intervals_that_hold_events() {
    let bench = bench().await;
    let (_, days) = json_of(&bench, &format!("{EVENTS}/histogram?interval=1d")).await;
    let day = |start: &str, count: u64| json!({"start": start, "count": count});
    let both = json!([day("2001-01-01T00:00:00Z", 2), day("2001-01-02T00:00:00Z", 10)]);
    assert_eq!(days, json!({"buckets": both, "complete_through": "2001-01-01T01:00:00Z"}));
    let (_, hours) = json_of(&bench, &format!("{EVENTS}/histogram?interval=1h&q=n:1&to=2001-01-01")).await;
    assert_eq!(hours["buckets"], json!([day("2001-01-01T00:00:00Z", 1), day("2001-01-01T23:00:00Z", 1)]));
    let (_, none) = json_of(&bench, &format!("{EVENTS}/histogram?interval=1h&key=b")).await;
    assert_eq!(none["buckets"], json!([]));
}

#[tokio::test]
async fn a_histogram_of_too_many_intervals_is_refused() {
    let bench = Bench::new(Limits::default()).await;
    let records: Vec<_> = (0..=10_000).map(|n| bench.record(n, None, "{\"n\":1}")).collect();
    bench.append(Stage::Processed, 1, &records).await;
    for (query, status) in [
        ("interval=1s", StatusCode::BAD_REQUEST),
        ("interval=1s&q=n:1", StatusCode::BAD_REQUEST),
        ("interval=2s&q=n:1", StatusCode::OK),
    ] {
        let response = get(&bench.indexer, &format!("{EVENTS}/histogram?{query}")).await;
        assert_eq!(response.status(), status, "{query}");
        let field = response.extensions().get::<Problem>().and_then(|problem| problem.field.as_deref());
        assert_eq!(field, (status != StatusCode::OK).then_some("interval"), "{query}");
    }
}

#[tokio::test]
async fn an_export_is_one_event_a_line() {
    let bench = Bench::new(Limits { page_events_max: 3, ..Limits::default() }).await;
    let records: Vec<_> = (0..10).map(|n| bench.record(n, None, &format!("{{\"n\":\n{n}}}"))).collect();
    bench.append(Stage::Processed, 1, &records).await;
    let response = get(&bench.indexer, &format!("{EVENTS}/export?order=desc")).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let body = text(response).await;
    let offsets: Vec<u64> = body
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert!(body.lines().next().unwrap().contains("{\"n\": 9}"));
}

#[tokio::test]
async fn an_export_that_fails_in_the_middle_breaks_off() {
    let bench = Bench::new(Limits { page_events_max: 1, ..Limits::default() }).await;
    let records = [bench.record(0, None, "{}"), bench.record(1, None, "not JSON")];
    bench.append(Stage::Processed, 1, &records).await;
    let response = get(&bench.indexer, &format!("{EVENTS}/export")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(to_bytes(response.into_body(), usize::MAX).await.is_err());
}

#[tokio::test]
async fn what_is_not_json_breaks_an_export_off_when_it_is_published_too() {
    for (value, is_whole) in [("not JSON", false), ("1e999", true)] {
        let bench = Bench::new(Limits { page_events_max: 1, split_events_max: 2, ..Limits::default() }).await;
        let mut driver = Driver::open(&bench, &bench.indexer).await;
        let records = [bench.record(0, None, "{}"), bench.record(1, None, value)];
        bench.append(Stage::Processed, 1, &records).await;
        driver.step(&bench, 1_000).await.unwrap();
        assert_eq!(bench.splits().len(), 1);
        let response = get(&bench.indexer, &format!("{EVENTS}/export")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = to_bytes(response.into_body(), usize::MAX).await;
        assert_eq!(body.is_ok(), is_whole, "{value}");
    }
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    let bench = bench().await;
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=10001", "limit"),
        ("?limit=ten", "limit"),
        ("?cursor=abc", "cursor"),
        ("?order=up", "order"),
        ("?from=2001-01-02&to=2001-01-01", "from"),
        ("?to=now", "to"),
        ("?q=(", "q"),
        ("?count=maybe", "count"),
        ("?frm=2001-01-02", "frm"),
        ("?limit=1&limit=2", "limit"),
        ("/count?limit=1", "limit"),
        ("/histogram", "interval"),
        ("/histogram?interval=1", "interval"),
        ("/histogram?interval=1h&order=asc", "order"),
        ("/export?cursor=x", "cursor"),
    ] {
        let response = get(&bench.indexer, &format!("{EVENTS}{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem = response.extensions().get::<Problem>().unwrap();
        assert_eq!((problem.kind, problem.field.as_deref()), (Kind::Invalid, Some(field)), "{query}");
    }
    let response = get(&bench.indexer, "/api/v1/streams/trains/1/events").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let response = get(&bench.indexer, "/api/v1/streams/Trains/1/events").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn too_many_queries_at_once_are_told_to_slow_down() {
    let bench = Bench::new(Limits { queries_max: 0, ..Limits::default() }).await;
    let response = get(&bench.indexer, EVENTS).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn the_older_surface_pages_whole_days_by_number() {
    let bench = bench().await;
    let days = "from_date=2001-01-01&to_date=2001-01-02";
    let (status, page) = json_of(&bench, &format!("{OLD}?{days}")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&page["page"], &page["total_pages"]), (&json!(1), &json!(2)));
    assert_eq!(page["values"].as_array().unwrap().len(), 10);
    let (_, page) = json_of(&bench, &format!("{OLD}?{days}&page=3&page_size=5")).await;
    assert_eq!(page, json!({"values": [{"n": 10}, {"n": 11}], "page": 3, "total_pages": 3}));
    let (_, page) = json_of(&bench, &format!("{OLD}?from_date=2001-01-01&to_date=2001-01-01")).await;
    assert_eq!(page["values"], json!([{"n": 1}, {"n": 1}]));
    let (_, page) = json_of(&bench, &format!("{OLD}?from_date=978307200&to_date=978307200000")).await;
    assert_eq!(page["values"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_older_surface_counts_up_to_the_beginning_of_a_day() {
    let bench = bench().await;
    let statistics = async |days: &str| json_of(&bench, &format!("{OLD}/statistics?{days}")).await;
    for (days, count) in [
        ("from_date=2001-01-01&to_date=2001-01-02", 2),
        ("from_date=2001-01-01&to_date=2001-01-03", 12),
        ("from_date=2001-01-02&to_date=2002-01-01", 10),
    ] {
        assert_eq!(statistics(days).await, (StatusCode::OK, json!(count)), "{days}");
    }
    let none = json!({"message": "Could not find event: flights/1"});
    for days in ["from_date=2001-01-01&to_date=2001-01-01", "from_date=2001-01-02&to_date=2001-01-01"] {
        assert_eq!(statistics(days).await, (StatusCode::BAD_REQUEST, none.clone()), "{days}");
    }
    let (status, body) = statistics("from_date=2001-02-30").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body["detail"].as_array().unwrap().len(), 2);
    let other = json_of(&bench, "/streams/flights/2/events/statistics").await;
    let message = "Version: 2 for dataset 'flights' not found";
    assert_eq!(other, (StatusCode::NOT_FOUND, json!({"message": message})));
}

#[tokio::test]
async fn a_datasets_events_are_counted_by_hour_day_and_week() {
    let bench = bench().await;
    let path = "/elasticsearch-queries/flights/events";
    let counted = |from: &str, to: &str, events: f64| {
        json!({
            "from": format!("{from}:00:00+00:00"), "to": format!("{to}:00:00+00:00"), "events": events
        })
    };
    let expected = json!({
        "dataset_id": "flights",
        "last_hour": counted("2001-01-01T00", "2001-01-01T01", 1.0),
        "last_day": counted("2000-12-31T02", "2001-01-01T02", 1.0),
        "last_week": counted("2000-12-26T00", "2001-01-02T00", 2.0),
    });
    assert_eq!(json_of(&bench, path).await, (StatusCode::OK, expected));
    let none = json_of(&bench, "/elasticsearch-queries/trains/events").await;
    assert_eq!(none, (StatusCode::NOT_FOUND, json!({"message": "No events found"})));
    for (caller, status, text) in [
        (Ok(Principal::of(&User::new("ann", bench.clock.now()))), 403, "Forbidden"),
        (Err(Denial::Missing), 401, "Unauthorized"),
        (Err(Denial::Wrong("")), 401, "Unauthorized"),
    ] {
        let request = Request::get(path).extension(Caller(caller)).body(Body::empty()).unwrap();
        let response = bench.indexer.router().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(text_json(response).await, json!({"message": text}));
    }
}

async fn text_json(response: axum::response::Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn of_a_stream_that_was_deleted_the_older_surface_finds_no_events() {
    let bench = bench().await;
    bench.catalog.delete(bench.stream.name(), ADMINISTRATOR).await.unwrap();
    let none = (StatusCode::BAD_REQUEST, json!({"message": "Could not find event: flights/1"}));
    let days = "from_date=2001-01-01&to_date=2001-01-02";
    assert_eq!(json_of(&bench, &format!("{OLD}?{days}")).await, none);
    assert_eq!(json_of(&bench, &format!("{OLD}/statistics?{days}")).await, none);
}

#[tokio::test]
async fn the_older_surface_refuses_in_its_own_shapes() {
    let bench = bench().await;
    let none = json!({"message": "Could not find event: flights/1"});
    let fault = |name: &str, msg: &str, kind: &str, ctx: Option<Value>| {
        let mut fault = json!({"loc": ["query", name], "msg": msg, "type": kind});
        if let Some(ctx) = ctx {
            fault["ctx"] = ctx;
        }
        fault
    };
    let missing = |name| fault(name, "field required", "value_error.missing", None);
    let not_a_date = |name| fault(name, "invalid date format", "value_error.date", None);
    let days = "from_date=2001-01-01&to_date=2001-01-02";
    for (query, status, body) in [
        ("from_date=2002-01-01&to_date=2002-01-02".to_owned(), 400, none.clone()),
        ("from_date=2001-01-02&to_date=2001-01-01".to_owned(), 400, none.clone()),
        (format!("{days}&page=3"), 400, none.clone()),
        (String::new(), 422, json!({"detail": [missing("from_date"), missing("to_date")]})),
        (
            "from_date=yesterday&to_date=2001-02-30".to_owned(),
            422,
            json!({"detail": [not_a_date("from_date"), not_a_date("to_date")]}),
        ),
        (
            format!("{days}&page=0"),
            422,
            json!({"detail": [fault(
                "page",
                "ensure this value is greater than 0",
                "value_error.number.not_gt",
                Some(json!({"limit_value": 0})),
            )]}),
        ),
        (
            format!("{days}&page=x&page_size=10001"),
            422,
            json!({"detail": [
                fault("page", "value is not a valid integer", "type_error.integer", None),
                fault(
                    "page_size",
                    "ensure this value is less than or equal to 10000",
                    "value_error.number.not_le",
                    Some(json!({"limit_value": 10_000})),
                ),
            ]}),
        ),
    ] {
        let (found, answer) = json_of(&bench, &format!("{OLD}?{query}")).await;
        assert_eq!((found.as_u16(), answer), (status, body), "{query}");
    }
    for (path, message) in [
        ("flights/2", "Version: 2 for dataset 'flights' not found"),
        ("Trains/1", "Version: 1 for dataset 'Trains' not found"),
    ] {
        let (status, body) = json_of(&bench, &format!("/streams/{path}/events")).await;
        assert_eq!((status, body), (StatusCode::NOT_FOUND, json!({"message": message})));
    }
}

/// A bench whose stream has the table `planes`, with a row for each of `keys`.
async fn planes(keys: &[&str]) -> Bench {
    let mut bench = Bench::new(Limits::default()).await;
    let table = json!({"name": "planes", "fields": ["n"], "ttl_seconds": 3_600});
    let tables = Some(vec![serde_json::from_value(table).unwrap()]);
    let edit = Edit { tables, ..Edit::default() };
    bench.stream = bench.catalog.change(bench.stream.name(), edit, ADMINISTRATOR).await.unwrap();
    let records: Vec<_> = (0i64..)
        .zip(keys)
        .map(|(n, key)| bench.record(n, Some(key), &format!("{{\"n\":{n}.0,\"x\":1}}")))
        .collect();
    bench.append(Stage::Processed, 0, &records).await;
    bench
}

/// Asks while the tables' workers run.
async fn ask_tables<T>(bench: &Bench, ask: impl Future<Output = T>) -> T {
    beside(|stop| bench.indexer.clone().keep_tables(stop), ask).await
}

#[tokio::test]
async fn a_row_is_answered_with_what_is_known_of_it() {
    let bench = planes(&["a", "b/c", "b,c", "d"]).await;
    ask_tables(&bench, async {
        let (status, row) = json_of(&bench, "/api/v1/tables/planes/b%2Fc?min_position=0:3").await;
        assert_eq!(status, StatusCode::OK, "{row}");
        let (arrival, through) = ("2001-01-01T01:00:00Z", |offset| json!({"partition": 0, "offset": offset}));
        let expected = json!({
            "key": "b/c", "value": {"n": 1.0}, "updated_at": arrival, "timestamp": "2001-01-01T00:00:01Z",
            "expires_at": "2001-01-01T02:00:00Z", "position": {"partition": 0, "offset": 1},
            "complete_through": [through(4), {"partition": 1, "offset": 0}, {"partition": 2, "offset": 0}],
        });
        assert_eq!(row, expected);
        let keys = async |query: &str| {
            let (status, page) = json_of(&bench, &format!("/api/v1/tables/planes{query}")).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let rows = page["rows"].as_array().unwrap().iter();
            let keys: Vec<String> = rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect();
            (keys.join(" "), page["cursor"].as_str().map(str::to_owned))
        };
        assert_eq!(keys("").await.0, "a b,c b/c d");
        assert_eq!(keys("?keys=d,nobody,b%2Cc,a").await.0, "d b,c a");
        assert_eq!(keys("?prefix=b").await, ("b,c b/c".to_owned(), None));
        let (first, cursor) = keys("?prefix=b&limit=1").await;
        assert_eq!(first, "b,c");
        assert_eq!(keys(&format!("?prefix=b&limit=5&cursor={}", cursor.unwrap())).await.0, "b/c");
        let (_, listed) = json_of(&bench, "/api/v1/tables").await;
        assert_eq!(listed["tables"][0]["name"], "planes");
        assert_eq!(listed["tables"][0]["dataset"], "flights");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_read_of_a_table_is_named() {
    let bench = planes(&["a"]).await;
    let ann = Principal::of(&User::new("ann", bench.clock.now()));
    let status = async |uri: &str, caller: &Principal| {
        let request = Request::get(uri).extension(caller.clone()).body(Body::empty()).unwrap();
        let response = bench.indexer.router().oneshot(request).await.unwrap();
        let problem = response.extensions().get::<Problem>().cloned();
        (response.status().as_u16(), problem.and_then(|problem| problem.field))
    };
    ask_tables(&bench, async {
        let root = Principal::administrator();
        let (row, rows) = ("/api/v1/tables/planes/a", "/api/v1/tables/planes");
        assert_eq!(status("/api/v1/tables/none/a", &root).await.0, 404);
        assert_eq!(status("/api/v1/tables/planes/nobody?min_position=0:0", &root).await.0, 404);
        let many = format!("{rows}?keys={}", vec!["k"; 101].join(","));
        for (uri, field) in [
            (format!("{row}?min_position=1"), "min_position"),
            (format!("{row}?min_position=x:1"), "min_position"),
            (format!("{row}?min_position=3:0"), "min_position"),
            (format!("{row}?colour=red"), "colour"),
            (format!("{rows}?limit=0"), "limit"),
            (format!("{rows}?limit=1001"), "limit"),
            (format!("{rows}?cursor=!"), "cursor"),
            (format!("{rows}?keys=a&prefix=b"), "prefix"),
            (many, "keys"),
        ] {
            assert_eq!(status(&uri, &root).await, (400, Some(field.to_owned())), "{uri}");
        }
        assert_eq!(status(row, &ann).await.0, 403);
        bench.grant_ann(&[Permission::Read]).await;
        assert_eq!(status(&format!("{row}?min_position=0:0"), &ann).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn who_waits_too_long_for_a_record_is_told() {
    let mut bench = planes(&["a"]).await;
    let limits = crate::TableLimits { wait_max: std::time::Duration::from_millis(60), ..Default::default() };
    bench.indexer =
        bench.another_on("brief", bench.objects.clone(), Limits { tables: limits, ..Limits::default() });
    ask_tables(&bench, async {
        let response = get(&bench.indexer, "/api/v1/tables/planes?min_position=2:9").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let problem = response.extensions().get::<Problem>().unwrap();
        assert_eq!(problem.field.as_deref(), Some("min_position"));
    })
    .await;
}
