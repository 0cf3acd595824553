//! The collector of user events, at its prefix.

use super::*;

const TRACK: &str = "/collector/track";
const ALIAS: &str = "/collector/alias";
const PROFILE: &str = "/collector/profile";

/// A request with a body that is said to be JSON: its status and the text of the answer.
async fn send(table: &Table<'_>, who: As<'_>, (method, path): (Method, &str), body: &str) -> (u16, String) {
    let request = table.client.request(method, format!("{}{path}", table.server.base()));
    let request = request.header("content-type", "application/json").body(body.to_owned());
    let answer = table.authorized(who, request).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The records of a user in a stream, as they were processed.
async fn of_user(server: &Server, dataset: &str, user: &str) -> Vec<Value> {
    let path = format!("/api/v1/streams/{dataset}/1/events?key={user}");
    let page = server.get(&path).await;
    page["events"].as_array().unwrap().iter().map(|event| event["value"].clone()).collect()
}

/// Needs nothing.
pub(super) async fn rows(table: &Table<'_>) {
    let user = table.dataset;
    let event = r#"{"eventName":"seen","metadata":{"n":1},"timestampUTC":5}"#;
    let track = format!(r#"{{"userId":"{user}","events":[{event}]}}"#);
    let alias = format!(r#"{{"newUserId":"new","originalUserId":"{user}"}}"#);
    let profile = format!(r#"{{"userId":"{user}","attributes":{{"a":"b"}}}}"#);
    for (path, body) in [(TRACK, &track), (ALIAS, &alias), (PROFILE, &profile)] {
        let (status, answer) = send(table, Administrator, post(path), body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &answer["HTTPStatusCode"]), (200, &json!(200)), "{path}");
        assert!(answer["RequestId"].is_string() && answer["HTTPHeaders"].is_object(), "{answer}");
        assert_eq!(send(table, Nobody, post(path), body).await.0, 401, "{path}");
        assert_eq!(send(table, Header(&table.stranger), post(path), body).await.0, 403, "{path}");
        assert_eq!(send(table, Administrator, get(path), "").await.0, 405, "{path}");
        let (status, page) = send(table, Administrator, post(path), "{}").await;
        assert_eq!(status, 400, "{path}");
        assert!(page.contains("Missing data for required field."), "{page}");
        for body in ["", "nonsense", "{'userId':'u'}"] {
            assert_eq!(send(table, Administrator, post(path), body).await.0, 400, "{path} {body}");
        }
    }
    for (path, body, fault) in [
        (TRACK, track.replace("events", "event"), "Unknown field."),
        (TRACK, track.replace(event, "7"), "Invalid input type."),
        (TRACK, track.replace("[", "{\"a\":").replace(']', "}"), "Not a valid list."),
        (TRACK, track.replace("\"seen\"", "7"), "Not a valid string."),
        (TRACK, track.replace(":5", ":\"5\""), "Not a valid integer."),
        (ALIAS, alias.replace("\"new\"", "null"), "Field may not be null."),
        (PROFILE, profile.replace("{\"a\":\"b\"}", "[]"), "Not a valid mapping type."),
        (PROFILE, profile.replace("{\"a\":\"b\"}", "null"), "Field may not be null."),
        (PROFILE, "[]".to_owned(), "Invalid input type."),
    ] {
        let (status, page) = send(table, Administrator, post(path), &body).await;
        assert!(status == 400 && page.contains(fault), "{path} {body}: {status} {page}");
    }
    assert_eq!(send(table, Administrator, post("/track"), &track).await.0, 404, "without its prefix");
    assert_eq!(send(table, Administrator, post("/collector/other"), "{}").await.0, 404);

    let tracked: Value = serde_json::from_str(&track).unwrap();
    assert_eq!(of_user(table.server, "log_user_events", user).await, [tracked]);
    let linked = json!({"newUserId": "new", "originalUserId": user, "timestampUTC": 0});
    assert_eq!(of_user(table.server, "link_users", user).await, [linked]);
    let described = json!({"userId": user, "attributes": {"a": "b"}, "timestampUTC": 0});
    assert_eq!(of_user(table.server, "user_profiles", user).await, [described]);
    profiles(table).await;
}

/// What is known of a user, by any id.
async fn profiles(table: &Table<'_>) {
    let old = table.dataset;
    let (own, new) = (format!("/collector/profiles/{old}"), format!("{old}-new"));
    let alias = json!({"newUserId": new, "originalUserId": old}).to_string();
    let told = json!({"userId": new, "attributes": {"plan": "pro"}}).to_string();
    assert_eq!(send(table, Administrator, post(ALIAS), &alias).await.0, 200);
    assert_eq!(send(table, Administrator, post(PROFILE), &told).await.0, 200);
    let profile = until("the profile is put together", async || {
        let (status, profile) = table.ask(Administrator, get(&own), &Value::Null).await;
        pause().await;
        (status == 200 && profile["attributes"]["plan"] == "pro").then_some(profile)
    })
    .await;
    assert_eq!(profile["userId"], json!(new));
    assert_eq!(profile["ids"], json!([old, new]));
    assert_eq!(profile["attributes"], json!({"a": "b", "plan": "pro"}));
    for stream in ["link_users", "user_profiles"] {
        let through = profile["completeThrough"][stream].as_array().unwrap();
        assert!(through.iter().any(|lane| lane["offset"].as_u64() > Some(0)), "{profile}");
    }
    assert_eq!(send(table, Nobody, get(&own), "").await.0, 401);
    assert_eq!(send(table, Header(&table.stranger), get(&own), "").await.0, 403);
    assert_eq!(send(table, Administrator, get("/collector/profiles/nobody-at-all"), "").await.0, 404);
}
