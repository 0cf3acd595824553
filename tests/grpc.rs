//! gRPC on the port that also serves HTTP: the services, health and reflection, as a client that was
//! generated from the same files sees them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "grpc/access.rs"]
mod access;
mod common;

use std::time::Duration;

use common::{Launch, Server, TOKEN};
use futures::stream::{self, StreamExt as _};
use proto::v1::events_client::EventsClient;
use proto::v1::follow_request::From;
use proto::v1::ingest_client::IngestClient;
use proto::v1::record_result::Result as Outcome;
use proto::v1::streams_client::StreamsClient;
use proto::v1::{
    AppendRequest, AppendResponse, CountRequest, CreateStreamRequest, Event, ExportRequest, Filter,
    FollowRequest, HistogramRequest, NewRecord, Position, Positions, QueryRequest,
};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Presents the token.
#[derive(Clone)]
struct Token;

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        Ok(request)
    }
}

type Door = InterceptedService<Channel, Token>;

/// A connection, bare and with the token.
async fn connect(server: &Server) -> (Channel, Door) {
    let endpoint = Endpoint::from_shared(server.base().to_owned()).unwrap();
    let channel = endpoint.timeout(Duration::from_secs(30)).connect().await.unwrap();
    (channel.clone(), InterceptedService::new(channel, Token))
}

async fn define(door: &Door, more: &str) {
    let definition_json = format!("{{\"dataset\":\"things\",\"version\":\"1\",\"partitions\":1{more}}}");
    StreamsClient::new(door.clone()).create(CreateStreamRequest { definition_json }).await.unwrap();
}

fn batch(numbers: std::ops::Range<u64>) -> AppendRequest {
    let record = |n| NewRecord { value: format!("{{\"n\":{n}}}").into(), key: Some(format!("k{}", n % 3)) };
    AppendRequest {
        dataset: "things".to_owned(),
        version: "1".to_owned(),
        records: numbers.map(record).collect(),
        atomic: false,
    }
}

fn offsets(response: &AppendResponse) -> Vec<u64> {
    let offset = |outcome: &Option<Outcome>| match outcome {
        Some(Outcome::Appended(appended)) => appended.position.as_ref().unwrap().offset,
        other => panic!("not appended: {other:?}"),
    };
    response.records.iter().map(|record| offset(&record.result)).collect()
}

fn filter() -> Option<Filter> {
    Some(Filter { dataset: "things".to_owned(), version: "1".to_owned(), ..Filter::default() })
}

fn follow(from: Option<From>) -> FollowRequest {
    FollowRequest { dataset: "things".to_owned(), version: "1".to_owned(), from }
}

fn text(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| std::str::from_utf8(&event.value).unwrap()).collect()
}

#[tokio::test]
async fn batches_are_appended_queried_and_followed_on_the_port_of_http() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let (_, door) = connect(&server).await;
    define(&door, ",\"transform\":\"if .n == 4 { abort \\\"four\\\" }\"").await;
    let mut ingest = IngestClient::new(door.clone());
    let first = ingest.append(batch(0..3)).await.unwrap().into_inner();
    assert_eq!(offsets(&first), [0, 1, 2]);
    let mut events = EventsClient::new(door.clone());
    // A count waits until the router has passed what was acked, so the end lies behind it.
    let count = events.count(CountRequest { filter: filter() }).await.unwrap().into_inner();
    assert_eq!(count.count, 3);

    let from_start = From::Positions(Positions { positions: vec![Position { partition: 0, offset: 0 }] });
    let at_end = events.follow(follow(None)).await.unwrap().into_inner();
    let from_start = events.follow(follow(Some(from_start))).await.unwrap().into_inner();
    let from_time = events.follow(follow(Some(From::ArrivalMicros(0)))).await.unwrap().into_inner();

    let batches = stream::iter((1..40).map(|number| batch(number * 3..number * 3 + 3)));
    let answers = ingest.append_stream(batches).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let acked: Vec<u64> = answers.iter().flat_map(offsets).collect();
    assert_eq!(acked, (3..120).collect::<Vec<_>>());

    let wanted: Vec<String> = (0..120).filter(|n| *n != 4).map(|n| format!("{{\"n\":{n}}}")).collect();
    let page = events.query(QueryRequest { filter: filter(), limit: 1_000, ..QueryRequest::default() });
    let page = page.await.unwrap().into_inner();
    assert_eq!((text(&page.events).len(), page.cursor.as_str()), (wanted.len(), ""));
    let count = events.count(CountRequest { filter: filter() }).await.unwrap().into_inner();
    assert_eq!(count.count, wanted.len() as u64);
    let export = events.export(ExportRequest { filter: filter(), descending: false }).await.unwrap();
    let export: Vec<_> = export.into_inner().map(Result::unwrap).collect().await;
    assert_eq!(export, page.events);
    for (name, followed, first) in [("end", at_end, 3), ("start", from_start, 0), ("time", from_time, 0)] {
        let events: Vec<_> = followed.take(wanted.len() - first).map(Result::unwrap).collect().await;
        assert_eq!(text(&events), wanted[first..], "{name}");
    }
    let histogram = HistogramRequest { filter: filter(), interval: "1d".to_owned() };
    let histogram = events.histogram(histogram).await.unwrap().into_inner();
    assert_eq!(histogram.buckets.iter().map(|day| day.count).sum::<u64>(), wanted.len() as u64);
    let over_http = server.get("/api/v1/streams/things/1/events/count").await;
    assert_eq!(over_http["count"], wanted.len());
}

#[tokio::test]
async fn refusals_have_the_status_of_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let (bare, door) = connect(&server).await;
    let mut ingest = IngestClient::new(door.clone());
    let missing = ingest.append(batch(0..1)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    define(&door, "").await;
    let stranger = IngestClient::new(bare).append(batch(0..1)).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    let too_many = ingest.append(batch(0..60_000)).await.unwrap_err();
    assert_eq!(too_many.code(), Code::OutOfRange);
    let mut large = batch(0..1);
    large.records[0].value = vec![b' '; 17 << 20].into();
    assert_eq!(ingest.append(large).await.unwrap_err().code(), Code::OutOfRange);
    let mut one_bad = batch(0..2);
    (one_bad.records[1].value, one_bad.atomic) = ("{".into(), true);
    let refused = ingest.append(one_bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("records[1]"), "{refused}");
    let mut events = EventsClient::new(door);
    let no_filter = events.query(QueryRequest::default()).await.unwrap_err();
    assert_eq!(no_filter.code(), Code::InvalidArgument);
    let count = events.count(CountRequest { filter: filter() }).await.unwrap().into_inner();
    assert_eq!(count.count, 0);
}

#[tokio::test]
async fn health_knows_every_service_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let mut health = HealthClient::new(connect(&server).await.0);
    let services =
        ["", "headwater.v1.Ingest", "headwater.v1.Streams", "headwater.v1.Events"].map(str::to_owned);
    for service in services {
        let answer = health.check(HealthCheckRequest { service: service.clone() }).await.unwrap();
        let HealthCheckResponse { status } = answer.into_inner();
        assert_eq!(status, ServingStatus::Serving as i32, "{service}");
    }
    let unknown = health.check(HealthCheckRequest { service: "headwater.v1.Nothing".to_owned() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

async fn listed_by_v1(door: &Door) -> Vec<String> {
    use tonic_reflection::pb::v1 as pb;
    let ask = pb::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = pb::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = pb::server_reflection_client::ServerReflectionClient::new(door.clone());
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(pb::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("not a list of services: {other:?}"),
    }
}

async fn listed_by_v1alpha(door: &Door) -> Vec<String> {
    use tonic_reflection::pb::v1alpha as pb;
    let ask = pb::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = pb::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = pb::server_reflection_client::ServerReflectionClient::new(door.clone());
    let mut answers = client.server_reflection_info(stream::iter([ask])).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(pb::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("not a list of services: {other:?}"),
    }
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_its_versions() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let (_, door) = connect(&server).await;
    for listed in [listed_by_v1(&door).await, listed_by_v1alpha(&door).await] {
        for service in ["Ingest", "Events", "Streams"] {
            assert!(listed.contains(&format!("headwater.v1.{service}")), "{listed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_stay_open_end_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Launch::local(folder.path()).start().await;
    let (_, door) = connect(&server).await;
    define(&door, "").await;
    let mut events = EventsClient::new(door.clone());
    let mut followed = events.follow(follow(None)).await.unwrap().into_inner();
    let mut ingest = IngestClient::new(door);
    let batches = stream::iter([batch(0..3)]).chain(stream::pending());
    let mut answers = ingest.append_stream(batches).await.unwrap().into_inner();
    assert_eq!(offsets(&answers.message().await.unwrap().unwrap()), [0, 1, 2]);
    assert_eq!(text(&[followed.message().await.unwrap().unwrap()]), ["{\"n\":0}"]);
    let started = std::time::Instant::now();
    assert_eq!(server.terminate().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "after {:?}", started.elapsed());
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
}
