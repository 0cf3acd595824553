//! The collector and the administration of webhook tokens.

use super::*;

/// Needs the dataset with version 1.
pub(super) async fn rows(table: &Table<'_>) {
    let (none, stranger) = (Value::Null, Header(&table.stranger));
    let (ok, forbidden) = (message("Ok"), message("Forbidden"));
    let absent = message("Dataset with id:{ds} and version:9 does not exist");
    for path in ["/event/{ds}/1", "/events/{ds}/1"] {
        let missing = path.replace("/1", "/9");
        table.row(stranger, post(&missing), json!({}), (404, absent.clone())).await;
        table.row(Nobody, post(path), json!({}), (401, message("Unauthorized"))).await;
        table.row(stranger, post(path), json!({}), (403, forbidden.clone())).await;
        let wrong = (400, message("JSON document does not conform to the given schema"));
        for body in [json!("value"), json!(["value"]), json!([])] {
            table.administrator(post(path), body, wrong.clone()).await;
        }
        table
            .administrator(post(path), none.clone(), (400, message("Body is not a valid JSON document")))
            .await;
        table.administrator(post(path), json!({"a": 1}), (200, ok.clone())).await;
        table.administrator(post(path), json!([{"a": 1}, {"a": 2}]), (200, ok.clone())).await;
    }
    webhooks(table).await;
}

async fn webhooks(table: &Table<'_>) {
    let (none, stranger) = (Value::Null, Header(&table.stranger));
    let tokens = "/webhooks/{ds}/tokens";
    table.row(stranger, post(tokens), json!({"operation": "write"}), (403, message("Forbidden"))).await;
    table.administrator(post(tokens), json!({"operation": "own"}), (400, message("Bad Request"))).await;
    let (status, made) = table.ask(Administrator, post(tokens), &json!({"operation": "write"})).await;
    assert_eq!(
        (status, &made["operation"], &made["is_active"]),
        (201, &json!("write"), &json!(true)),
        "{made}"
    );
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    table.administrator(get(tokens), none.clone(), (200, json!([{"id": id}]))).await;

    let authorize = |operation: &str| format!("{tokens}/{token}/authorize?operation={operation}");
    let may = (200, json!({"access": true, "reason": null}));
    table.administrator(get(&authorize("write")), none.clone(), may).await;
    let reason = "Provided token does not have access to perform read on {ds}";
    table
        .administrator(
            get(&authorize("read")),
            none.clone(),
            (200, json!({"access": false, "reason": reason})),
        )
        .await;
    table.administrator(get(&authorize("own")), none.clone(), (400, message("Bad Request"))).await;

    for path in ["/webhook/event/{ds}/1", "/webhook/events/{ds}/1"] {
        let with = |token: &str| format!("{path}?token={token}");
        table.row(Nobody, post(&with(token)), json!({"a": 1}), (200, message("Ok"))).await;
        let foreign = (403, message("Provided token is not associated to dataset-id: {ds}"));
        table.row(Nobody, post(&with("wrong")), json!({"a": 1}), foreign).await;
        table.row(Nobody, post(path), json!({"a": 1}), (401, message("Unauthorized"))).await;
    }
    let one = format!("{tokens}/{id}");
    let gone = message(&format!("Deleted {id} for dataset {{ds}}"));
    table.administrator(delete(&one), none.clone(), (200, gone)).await;
    let absent = (404, message("Provided token does not exist for dataset {ds}"));
    table.administrator(delete(&one), none, absent).await;
}
