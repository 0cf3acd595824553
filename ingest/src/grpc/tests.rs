use std::sync::Arc;

use broker::Principal;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use proto::v1::ingest_client::IngestClient;
use proto::v1::ingest_server::IngestServer;
use proto::v1::record_result::Result as Outcome;
use proto::v1::streams_client::StreamsClient;
use proto::v1::{
    AppendRequest, AppendResponse, CreateStreamRequest, DeleteStreamRequest, GetStreamRequest,
    ListDeadLettersRequest, ListStreamsRequest, NewRecord, ReplayDeadLettersRequest, UpdateStreamRequest,
};
use serde_json::json;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};

use super::AppendDoor;
use crate::Limits;
use crate::testing::Doors;

type AsAdministrator<S> = InterceptedService<S, fn(Request<()>) -> Result<Request<()>, Status>>;

fn client(doors: &Doors) -> IngestClient<AsAdministrator<IngestServer<AppendDoor>>> {
    IngestClient::with_interceptor(doors.ingest.grpc_ingest(), as_administrator)
}

/// A request as the guard hands it on.
fn as_administrator(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.extensions_mut().insert(Principal::administrator());
    Ok(request)
}

fn batch(dataset: &str, values: &[&str]) -> AppendRequest {
    let version = if dataset.is_empty() { "" } else { "1" };
    let record = |value: &&str| NewRecord { value: Bytes::copy_from_slice(value.as_bytes()), key: None };
    AppendRequest {
        dataset: dataset.to_owned(),
        version: version.to_owned(),
        records: values.iter().map(record).collect(),
        atomic: false,
    }
}

/// Each record's `partition/offset`, or its error's `kind field`.
fn summary(response: AppendResponse) -> Vec<String> {
    let summary = |outcome| match outcome {
        Outcome::Appended(appended) => {
            let position = appended.position.unwrap();
            format!("{}/{}", position.partition, position.offset)
        }
        Outcome::Error(error) => format!("{} {}", error.kind, error.field),
    };
    response.records.into_iter().map(|record| summary(record.result.unwrap())).collect()
}

#[tokio::test]
async fn appends_a_batch_and_answers_record_by_record() {
    let rules = json!({"partitions": 1, "timestamp_field": "at"});
    let doors = Doors::open().await.with_stream(rules).await;
    let values = ["{\"at\":1}", "{bad", "{\"at\":true}", "{ \"at\":2}"];
    let response = client(&doors).append(batch("flights", &values)).await.unwrap().into_inner();
    let Some(Outcome::Appended(first)) = &response.records[0].result else { panic!("the first was taken") };
    assert_eq!(first.timestamp_micros, 1_000_000);
    assert_eq!(summary(response), ["0/0", "invalid value", "invalid at", "0/1"]);
    assert_eq!(doors.raw_values().await, [values[0], values[3]]);
}

#[tokio::test]
async fn refuses_whole_batches_with_a_status() {
    let limits = Limits { in_flight_bytes_max: 20, batch_records_max: 2, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream_past_the_doors().await;
    let mut atomic = batch("flights", &["{}", "[]"]);
    atomic.atomic = true;
    let mut keyed = batch("flights", &["{}"]);
    keyed.records[0].key = Some(String::new());
    for (request, code, message) in [
        (batch("trains", &["{}"]), Code::NotFound, "stream: "),
        (batch("", &["{}"]), Code::InvalidArgument, "dataset: "),
        (batch("flights", &["{}", "{}", "{}"]), Code::OutOfRange, "records: "),
        (batch("flights", &["{\"a\":\"123456789012345\"}"]), Code::ResourceExhausted, "too many bytes"),
        (atomic, Code::InvalidArgument, "records[1]: "),
        (keyed, Code::InvalidArgument, "records[0].key: "),
    ] {
        let status = client(&doors).append(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(message), "{status}");
    }
    assert!(doors.raw_values().await.is_empty());
}

#[tokio::test]
async fn a_call_answers_its_batches_in_the_order_sent() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let pad = "x".repeat(100_000);
    let value = |n: usize| {
        format!("{{\"n\":{n},\"pad\":\"{}\"}}", if n.is_multiple_of(7) { pad.as_str() } else { "" })
    };
    let values: Vec<String> = (0..200).map(value).collect();
    let requests: Vec<AppendRequest> = (values.iter().enumerate())
        .map(|(n, value)| batch(if n == 0 { "flights" } else { "" }, &[value]))
        .collect();
    let call = client(&doors).append_stream(stream::iter(requests)).await.unwrap();
    let mut answers = call.into_inner();
    for n in 0..200 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(summary(answer), [format!("0/{n}")]);
    }
    assert!(answers.message().await.unwrap().is_none());
    assert_eq!(doors.raw_values().await, values);
}

#[tokio::test]
async fn what_refuses_a_batch_ends_the_call_after_the_answers_before_it() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let requests = [
        batch("flights", &["{}"]),
        batch("", &["{bad"]),
        batch("trains", &["{}"]),
        batch("flights", &["{}"]),
    ];
    let call = client(&doors).append_stream(stream::iter(requests)).await.unwrap();
    let mut answers = call.into_inner();
    assert_eq!(summary(answers.message().await.unwrap().unwrap()), ["0/0"]);
    assert_eq!(summary(answers.message().await.unwrap().unwrap()), ["invalid value"]);
    assert_eq!(answers.message().await.unwrap_err().code(), Code::NotFound);
    assert_eq!(doors.raw_values().await, ["{}"]);
}

#[tokio::test]
async fn a_message_larger_than_the_limit_is_refused() {
    let limits = Limits { body_bytes_max: 1_000, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream(json!({})).await;
    let value = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000));
    let status = client(&doors).append(batch("flights", &[&value])).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn the_token_stands_before_grpc_too() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let router =
        axum::Router::new().route_service("/headwater.v1.Ingest/{*method}", doors.ingest.grpc_ingest());
    let router = crate::auth::Guarded::new(router, doors.guard("s3cret")).into_router();
    let status = IngestClient::new(router.clone()).append(batch("flights", &["{}"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let with_token = |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", "Bearer s3cret".parse().unwrap());
        Ok(request)
    };
    let mut client = IngestClient::with_interceptor(router, with_token);
    let response = client.append(batch("flights", &["{}"])).await.unwrap();
    assert_eq!(summary(response.into_inner()), ["0/0"]);
}

#[tokio::test]
async fn streams_are_administered() {
    let doors = Arc::new(Doors::open().await);
    let mut client = StreamsClient::with_interceptor(doors.ingest.grpc_streams(), as_administrator);
    let definition_json = r#"{"dataset":"flights","version":"1","partitions":2}"#.to_owned();
    let created = client.create(CreateStreamRequest { definition_json }).await.unwrap().into_inner();
    assert_eq!((created.partitions, created.config_version), (2, 1));
    let shown = doors.get("/api/v1/streams/flights/1").await.json;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&created.definition_json).unwrap(), shown);

    let (dataset, version) = ("flights".to_owned(), "1".to_owned());
    let change_json = r#"{"key":"/k"}"#.to_owned();
    let update = UpdateStreamRequest { dataset: dataset.clone(), version: version.clone(), change_json };
    assert_eq!(client.update(update).await.unwrap().into_inner().config_version, 2);
    let listed = client.list(ListStreamsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.streams.len(), 1);

    let list = ListDeadLettersRequest {
        dataset: dataset.clone(),
        version: version.clone(),
        limit: 0,
        cursor: String::new(),
    };
    assert!(client.list_dead_letters(list).await.unwrap().into_inner().dead_letters.is_empty());
    let replay = ReplayDeadLettersRequest { dataset: dataset.clone(), version: version.clone() };
    assert_eq!(client.replay_dead_letters(replay).await.unwrap().into_inner().replayed, 0);

    client.delete(DeleteStreamRequest { dataset: dataset.clone(), version: version.clone() }).await.unwrap();
    let status = client.get(GetStreamRequest { dataset, version }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let bad = CreateStreamRequest { definition_json: r#"{"dataset":"x","versio":"1"}"#.to_owned() };
    let status = client.create(bad).await.unwrap_err();
    assert!(status.message().starts_with("versio: "), "{status}");
}

#[tokio::test]
async fn a_call_that_stays_open_ends_with_the_process_once_its_batches_are_answered() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let sent = stream::iter([batch("flights", &["{\"n\":1}"])]).chain(stream::pending());
    let mut answers = client(&doors).append_stream(sent).await.unwrap().into_inner();
    assert_eq!(summary(answers.message().await.unwrap().unwrap()), ["0/0"]);
    doors.ingest.shutdown.cancel();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
}
