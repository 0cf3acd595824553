//! Signed requests on several servers of one cluster.

use hawk::{Credentials, Key, PayloadHasher, RequestBuilder, SHA256};

use super::*;

const HOST: &str = "headwater.example";
const EVENT: &str = r#"{"n":1}"#;

#[tokio::test]
async fn a_signature_is_taken_once_by_all_servers_of_a_cluster_and_across_their_kills() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    let folders = [folder.path().join("a"), folder.path().join("b")];
    let launches = folders.each_ref().map(|folder| Launch::kafka(folder));
    let (mut one, mut other) = (launches[0].start().await, launches[1].start().await);
    let (dataset, user) = (unique("signed"), unique("ann"));
    define(&one, &dataset).await;
    let (_, made) = one.post("/api/v1/users", &json!({"name": user, "administrator": true})).await;
    assert_eq!(made["name"], user, "{made}");
    let (_, made) = one.post("/api/v1/keys", &json!({"user": user, "hawk": true})).await;
    let parts: Vec<&str> = made["key"].as_str().unwrap().split('.').collect();
    let credentials = Credentials { id: parts[1].to_owned(), key: Key::new(parts[2], SHA256).unwrap() };
    let records = format!("{}/records", path(&dataset));
    let hash = PayloadHasher::hash("application/json", SHA256, EVENT).unwrap();
    let request = RequestBuilder::new("POST", HOST, 80, &records).hash(&*hash).request();
    let signature = format!("Hawk {}", request.make_header(&credentials).unwrap());

    let client = Client::new();
    let send = async |server: &Server| {
        let request = client.post(format!("{}{records}", server.base())).header("host", HOST);
        let request = request.header("authorization", &signature).header("content-type", "application/json");
        request.body(EVENT).send().await.unwrap().status()
    };
    // The other server has to learn of the key first.
    until("the other server knows the stream", async || {
        let shown = other.request(reqwest::Method::GET, &path(&dataset)).send().await.unwrap();
        (shown.status() == StatusCode::OK).then_some(())
    })
    .await;
    let sent = (0..10).map(|number| send(if number % 2 == 0 { &one } else { &other }));
    let answers = futures::future::join_all(sent).await;
    assert_eq!(answers.iter().filter(|status| **status == StatusCode::OK).count(), 1, "{answers:?}");
    one.kill();
    other.kill();
    let server = launches[1].start().await;
    assert_eq!(send(&server).await, StatusCode::UNAUTHORIZED);
}
