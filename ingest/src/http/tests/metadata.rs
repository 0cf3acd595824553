use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::testing::{Answer, Doors};

/// Asks as whoever holds `bearer`; the administrator where it is empty, nobody where it is `-`.
pub(super) async fn ask(doors: &Doors, bearer: &str, (method, path): (Method, &str), body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    match bearer {
        "" => {}
        "-" => request = request.header("authorization", ""),
        bearer => request = request.header("authorization", format!("Bearer {bearer}")),
    }
    doors.send(request.body(body.to_owned().into()).unwrap()).await
}

pub(super) async fn post(doors: &Doors, path: &str, body: Value) -> Answer {
    ask(doors, "", (Method::POST, path), &body.to_string()).await
}

pub(super) async fn put(doors: &Doors, path: &str, body: Value) -> Answer {
    ask(doors, "", (Method::PUT, path), &body.to_string()).await
}

pub(super) async fn get(doors: &Doors, path: &str) -> Answer {
    ask(doors, "-", (Method::GET, path), "").await
}

/// A user that holds the answered key.
pub(super) async fn user(doors: &Doors, name: &str) -> String {
    post(doors, "/api/v1/users", json!({"name": name})).await;
    let made = post(doors, "/api/v1/keys", json!({"user": name})).await;
    made.json["key"].as_str().unwrap().to_owned()
}

/// `flights` with version 1.
async fn with_flights() -> Doors {
    let doors = Doors::open().await;
    post(&doors, "/datasets", json!({"title": "Flights"})).await;
    let version = post(&doors, "/datasets/flights/versions", json!({"version": "1"})).await;
    assert_eq!(version.status, StatusCode::OK, "{}", version.json);
    doors
}

#[tokio::test]
async fn what_is_put_in_is_got_out() {
    let doors = Doors::open().await;
    let root = "/datasets";
    for _ in 0..2 {
        let text = r#"{"title":"Flights","weight":1.50,"Id":"mine","keywords":["a", "b"],"deep":{"big":12345678901234567890}}"#;
        let made = ask(&doors, "", (Method::POST, root), text).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.json);
        let id = made.json.as_str().unwrap();
        assert_eq!(made.headers["location"], format!("/datasets/{id}").as_str());
        assert_eq!(made.headers["access-control-allow-origin"], "*");
        let shown = get(&doors, &format!("{root}/{id}")).await;
        let expected = json!({
            "Id": id, "Type": "Dataset", "title": "Flights", "weight": 1.5, "keywords": ["a", "b"],
            "deep": {"big": 12_345_678_901_234_567_890_u64}, "_links": {"self": {"href": format!("/datasets/{id}")}},
        });
        assert_eq!((shown.status, &shown.json), (StatusCode::OK, &expected));
        assert_eq!(shown.headers["access-control-allow-origin"], "*");
    }
    let all = get(&doors, "/datasets").await.json;
    assert_eq!(all.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_title_that_is_taken_gets_another_id() {
    let doors = Doors::open().await;
    let first = post(&doors, "/datasets", json!({"title": "Antall besøkende"})).await;
    assert_eq!(first.json, "antall-besokende");
    let second = post(&doors, "/datasets", json!({"title": "Antall besøkende"})).await;
    let id = second.json.as_str().unwrap();
    let suffix = id.strip_prefix("antall-besokende-").unwrap();
    assert!(
        suffix.len() == 5 && suffix.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
        "{id}"
    );
}

#[tokio::test]
async fn documents_lie_below_each_other_and_the_last_one_is_the_latest() {
    let doors = with_flights().await;
    assert_eq!(post(&doors, "/datasets/flights/versions", json!({"version": "2"})).await.json, "flights/2");
    let latest = get(&doors, "/datasets/flights/versions/latest").await.json;
    assert_eq!((&latest["Id"], &latest["Type"]), (&json!("flights/2"), &json!("Version")));

    let editions = "/datasets/flights/versions/latest/editions";
    let edition = json!({"edition": "2019-05-28T15:37:00+02:00", "description": "May"});
    let made = post(&doors, editions, edition.clone()).await;
    assert_eq!(made.json, "flights/2/20190528T133700");
    assert_eq!(made.headers["location"], "/datasets/flights/versions/2/editions/20190528T133700");
    let again = post(&doors, editions, edition).await;
    assert_eq!(
        (again.status, &again.json),
        (
            StatusCode::CONFLICT,
            &json!("Resource Conflict: Item with id flights/2/20190528T133700 already exists")
        )
    );

    let distributions = format!("{editions}/latest/distributions");
    let made = post(&doors, &distributions, json!({"filename": "a.csv"})).await;
    let id = made.json.as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(id.len(), 36);
    let shown = get(&doors, &format!("{distributions}/{id}")).await.json;
    assert_eq!((&shown["Type"], &shown["filename"]), (&json!("Distribution"), &json!("a.csv")));

    // The newest stays the latest when it is changed, and shows what it was changed to.
    put(&doors, "/datasets/flights/versions/2", json!({"version": "2", "note": "changed"})).await;
    let latest = get(&doors, "/datasets/flights/versions/latest").await.json;
    assert_eq!((&latest["Id"], &latest["note"]), (&json!("flights/2"), &json!("changed")));
    let listed = get(&doors, "/datasets/flights/versions").await.json;
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|version| &version["Id"]).collect();
    assert_eq!(ids, ["flights/1", "flights/2"]);
    let embedded = get(&doors, "/datasets/flights?embed=versions").await.json;
    assert_eq!(embedded["_embedded"]["versions"].as_array().unwrap().len(), 2);
    assert_eq!(get(&doors, "/datasets/flights").await.json.get("_embedded"), None);
}

#[tokio::test]
async fn a_document_is_replaced_whole() {
    let doors = with_flights().await;
    let before = get(&doors, "/datasets/flights").await.json;
    let mut changed = before.clone();
    changed["title"] = json!("Other");
    assert_eq!(put(&doors, "/datasets/flights", changed).await.json, "flights");
    let after = get(&doors, "/datasets/flights").await.json;
    assert_eq!((&after["Id"], &after["title"]), (&json!("flights"), &json!("Other")));
    assert_eq!(after.as_object().unwrap().len(), before.as_object().unwrap().len());
    put(&doors, "/datasets/flights", json!({"title": "Third", "a": 1})).await;
    put(&doors, "/datasets/flights", json!({"title": "Third"})).await;
    assert_eq!(get(&doors, "/datasets/flights").await.json.get("a"), None);
    assert_eq!(get(&doors, "/datasets/flights/versions/latest").await.json["Id"], "flights/1");
}

/// Asks as the administrator; each is refused with a status and a text that begins so.
async fn check(requests: impl IntoIterator<Item = (Method, &str, Value, u16, &str)>) {
    let doors = with_flights().await;
    for (method, path, body, status, text) in requests {
        let answer = ask(&doors, "", (method.clone(), path), &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.json);
        assert!(answer.json.as_str().unwrap().starts_with(text), "{method} {path}: {}", answer.json);
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_a_text() {
    let (get, put) = (|path| (Method::GET, path, Value::Null), |path, body| (Method::PUT, path, body));
    let requests = [
        (get("/datasets/none"), "Dataset not found."),
        (get("/datasets/a%2fb"), "Dataset not found."),
        (get("/datasets/%ff"), "Dataset not found."),
        (get("/datasets/flights/versions/9"), "Version not found."),
        (get("/datasets/none/versions/latest"), "Version not found."),
        (get("/datasets/flights/versions/1/editions/latest"), "Edition not found."),
        (get("/datasets/flights/versions/1/editions/x/distributions/y"), "Distribution not found."),
        (put("/datasets/none", json!({"title": "a"})), "Dataset not found."),
        (put("/datasets/flights/versions/9", json!({"version": "9"})), "Version not found."),
    ];
    check(requests.map(|((method, path, body), text)| (method, path, body, 404, text))).await;
    let doors = with_flights().await;
    assert_eq!(self::get(&doors, "/datasets/none/versions").await.json, json!([]));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_a_text() {
    let versions = "/datasets/flights/versions";
    let editions = "/datasets/flights/versions/1/editions";
    let nowhere = "/datasets/flights/versions/9/editions";
    let latest = "/datasets/flights/versions/1/editions/latest/distributions";
    let post = |path, body, text| (Method::POST, path, body, 400, text);
    let put = |path, body, text| (Method::PUT, path, body, 400, text);
    let large = json!({"title": "x".repeat(300_000)});
    check([
        post("/datasets", json!({}), "Error creating dataset: title: the field is missing"),
        post("/datasets", json!({"title": " "}), "Error creating dataset: title: the field holds no text"),
        post("/datasets", json!([]), "Error creating dataset: body: "),
        (Method::POST, "/datasets", large, 413, "a document has at most 262144 bytes"),
        put("/datasets/flights", json!({}), "Error updating dataset: title: "),
        post(
            "/datasets/none/versions",
            json!({"version": "1"}),
            "Error creating version: none does not exist",
        ),
        post(versions, json!({}), "Error creating version: version: "),
        post(versions, json!({"version": "latest"}), "Error creating version: version: "),
        (Method::POST, versions, json!({"version": "1"}), 409, "Resource Conflict: "),
        put("/datasets/flights/versions/1", json!({"version": "2"}), "Error updating version: version: "),
        post(editions, json!({"edition": "yesterday"}), "Error creating edition: edition: "),
        post(nowhere, json!({"edition": "2019-05-28"}), "Error creating edition: "),
        post(latest, json!({}), "Error creating distribution: "),
    ])
    .await;
}

#[tokio::test]
async fn who_makes_a_dataset_owns_it() {
    let doors = Doors::open().await;
    let (ann, bob) = (user(&doors, "ann").await, user(&doors, "bob").await);
    let datasets = (Method::POST, "/datasets");
    let made = ask(&doors, &ann, datasets.clone(), r#"{"title":"Things"}"#).await;
    assert_eq!(made.json, "things");
    let grant = ask(&doors, &ann, (Method::GET, "/api/v1/grants?dataset=things"), "").await.json;
    assert_eq!(
        (&grant["grants"][0]["principal"], &grant["grants"][0]["owner"]),
        (&json!("ann"), &json!(true))
    );
    for (method, path, body) in [
        (Method::PUT, "/datasets/things", r#"{"title":"Mine"}"#),
        (Method::POST, "/datasets/things/versions", r#"{"version":"1"}"#),
    ] {
        let refused = ask(&doors, &bob, (method.clone(), path), body).await;
        assert_eq!((refused.status, &refused.json), (StatusCode::FORBIDDEN, &json!("Forbidden")));
        let unknown = ask(&doors, "-", (method.clone(), path), body).await;
        assert_eq!(
            (unknown.status, &unknown.json),
            (StatusCode::UNAUTHORIZED, &json!({"message": "Unauthorized"}))
        );
        assert_eq!(unknown.headers["access-control-allow-origin"], "*");
        assert_eq!(ask(&doors, &ann, (method, path), body).await.status, StatusCode::OK);
    }
    assert_eq!(ask(&doors, "-", datasets, "{}").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_becomes_the_owner_of_what_is_there_by_its_name() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let ann = user(&doors, "ann").await;
    let made = ask(&doors, &ann, (Method::POST, "/datasets"), r#"{"title":"Flights"}"#).await;
    assert!(made.json.as_str().unwrap().starts_with("flights-"), "{}", made.json);
    let read = ask(&doors, &ann, (Method::GET, "/api/v1/streams/flights/1"), "").await;
    assert_eq!(read.status, StatusCode::FORBIDDEN);
    assert_eq!(post(&doors, "/datasets", json!({"title": "Flights"})).await.json, "flights");
}

#[tokio::test]
async fn browsers_may_ask() {
    let doors = with_flights().await;
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri("/datasets/flights")
        .header("origin", "https://example.org")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization");
    let answer = doors.send(request.body(String::new().into()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let allowed = answer.headers["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization"), "{allowed}");
}
