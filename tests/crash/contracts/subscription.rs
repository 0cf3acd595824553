//! The handshakes of subscriptions.

use super::*;

const PATH: &str = "/event-data-subscription";

/// A handshake: its status, and the message of a refusal.
async fn handshake(table: &Table<'_>, who: As<'_>, query: &str) -> (u16, Value) {
    let url = format!("{}{PATH}{}", table.server.base(), table.named(query));
    let request = table.client.get(url).headers(
        [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect(),
    );
    let answer = table.authorized(who, request).send().await.unwrap();
    let status = answer.status().as_u16();
    if status == 101 {
        return (status, Value::Null);
    }
    (status, answer.json().await.unwrap())
}

/// Needs a dataset; whether it has a stream makes no difference.
pub(super) async fn rows(table: &Table<'_>) {
    let stranger = Header(&table.stranger);
    let mut tokens = Vec::new();
    for operation in ["read", "write"] {
        let asked = post("/webhooks/{ds}/tokens");
        let (_, made) = table.ask(Administrator, asked, &json!({"operation": operation})).await;
        tokens.push(format!("?dataset_id={{ds}}&webhook_token={}", made["token"].as_str().unwrap()));
    }
    let (read, write) = (&*tokens[0], &*tokens[1]);
    let bad_request = message("Bad request");
    let refused = "Provided token does not have access to perform read on {ds}";
    for (who, query, expected) in [
        (Administrator, "", (400, bad_request.clone())),
        (Nobody, "?dataset_id={ds}", (400, bad_request)),
        (stranger, "?dataset_id={ds}", (403, message("Forbidden"))),
        (Header("Bearer wrong"), "?dataset_id={ds}", (401, message("Unauthorized"))),
        (Nobody, write, (403, message(&table.named(refused)))),
        (stranger, read, (403, message("Forbidden"))),
        (Header("Bearer wrong"), read, (401, message("Unauthorized"))),
        (Nobody, read, (101, Value::Null)),
        (Administrator, write, (101, Value::Null)),
        (Administrator, "?dataset_id={ds}", (101, Value::Null)),
    ] {
        assert_eq!(handshake(table, who, query).await, expected, "{who:?} {query}");
    }
}
