//! The schema-less metadata API: datasets, versions, editions and distributions.

use super::*;

/// Leaves the dataset with version 1 behind.
pub(super) async fn rows(table: &Table<'_>) {
    let stranger = Header(&table.stranger);
    let title = json!({"title": "{ds}", "accessRights": "restricted", "any": {"field": 1.5}});
    let none = Value::Null;
    table
        .administrator(
            post("/datasets"),
            json!({}),
            (400, json!("Error creating dataset: title: the field is missing")),
        )
        .await;
    table.row(Nobody, post("/datasets"), title.clone(), (401, message("Unauthorized"))).await;
    table.administrator(post("/datasets"), title.clone(), (200, json!("{ds}"))).await;
    table.row(Nobody, get("/datasets/none-{ds}"), none.clone(), (404, json!("Dataset not found."))).await;
    let shown = json!({
        "Id": "{ds}", "Type": "Dataset", "any": {"field": 1.5}, "_links": {"self": {"href": "/datasets/{ds}"}},
    });
    table.row(Nobody, get("/datasets/{ds}"), none.clone(), (200, shown)).await;
    table.row(stranger, put("/datasets/{ds}"), title.clone(), (403, json!("Forbidden"))).await;
    table.administrator(put("/datasets/none-{ds}"), title.clone(), (404, json!("Dataset not found."))).await;
    table.administrator(put("/datasets/{ds}"), title, (200, json!("{ds}"))).await;

    let versions = "/datasets/{ds}/versions";
    let version = json!({"version": "1"});
    table.row(stranger, post(versions), version.clone(), (403, json!("Forbidden"))).await;
    table.administrator(post(versions), version.clone(), (200, json!("{ds}/1"))).await;
    let taken = json!("Resource Conflict: Item with id {ds}/1 already exists");
    table.administrator(post(versions), version.clone(), (409, taken)).await;
    let parent = json!("Error creating version: none-{ds} does not exist");
    table.administrator(post("/datasets/none-{ds}/versions"), version.clone(), (400, parent)).await;
    table
        .row(Nobody, get("/datasets/{ds}/versions/9"), none.clone(), (404, json!("Version not found.")))
        .await;
    table
        .row(Nobody, get("/datasets/{ds}/versions/latest"), none.clone(), (200, json!({"Id": "{ds}/1"})))
        .await;
    table.administrator(put("/datasets/{ds}/versions/1"), version, (200, json!("{ds}/1"))).await;

    let editions = "/datasets/{ds}/versions/1/editions";
    let edition = json!({"edition": "2019-05-28T15:37:00+02:00"});
    table.administrator(post(editions), edition.clone(), (200, json!("{ds}/1/20190528T133700"))).await;
    let taken = json!("Resource Conflict: Item with id {ds}/1/20190528T133700 already exists");
    table.administrator(post(editions), edition, (409, taken)).await;
    let (status, answer) = table.ask(Administrator, post(editions), &json!({"edition": "yesterday"})).await;
    assert!(status == 400 && answer.as_str().unwrap().starts_with("Error creating edition: "), "{answer}");
    let missing = (404, json!("Edition not found."));
    table.row(Nobody, get("/datasets/{ds}/versions/1/editions/x"), none.clone(), missing).await;
    let latest = "/datasets/{ds}/versions/1/editions/latest";
    table.row(Nobody, get(latest), none.clone(), (200, json!({"Type": "Edition"}))).await;

    let distributions = "/datasets/{ds}/versions/1/editions/20190528T133700/distributions";
    let (status, made) = table.ask(Administrator, post(distributions), &json!({"filename": "a.csv"})).await;
    assert_eq!((status, made.as_str().unwrap().split('/').count()), (200, 4), "{made}");
    table.row(stranger, post(distributions), json!({}), (403, json!("Forbidden"))).await;
    let one = format!("{distributions}/x");
    table.row(Nobody, get(&one), none, (404, json!("Distribution not found."))).await;
}
