use std::net::SocketAddr;

use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Limits;
use crate::testing::{Doors, TOKEN};

/// The head of a request whose body is to have that many bytes.
fn head(path: &str, length: usize) -> String {
    let bearer = format!("authorization: Bearer {TOKEN}");
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{bearer}\r\ncontent-length: {length}\r\n\r\n")
}

async fn send(address: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    connection
}

async fn read_head(mut connection: TcpStream) -> String {
    let mut head = vec![0; 12];
    connection.read_exact(&mut head).await.unwrap();
    String::from_utf8(head).unwrap()
}

const RECORDS: &str = "/api/v1/streams/flights/1/records";

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_its_body_writes_nothing() {
    let limits = Limits { in_flight_bytes_max: 1_000, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream_past_the_doors().await;
    doors
        .serve_while(async |address| {
            // The body so far is an event of its own, but it was to go on.
            drop(send(address, &head(RECORDS, 900), b"{\"n\":1}").await);
            // There is room for the next one only when the first was given up.
            while !read_head(send(address, &head(RECORDS, 900), &[b' '; 900]).await).await.contains(" 400") {}
            let answer = read_head(send(address, &head(RECORDS, 7), b"{\"n\":2}").await).await;
            assert_eq!(answer, "HTTP/1.1 200");
        })
        .await;
    assert_eq!(doors.raw_values().await, ["{\"n\":2}"]);
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_without_sending() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let asking = head(RECORDS, 30 << 20).replace("host: x", "host: x\r\nexpect: 100-continue");
    let answer = doors.serve_while(async |address| read_head(send(address, &asking, b"").await).await);
    assert_eq!(answer.await, "HTTP/1.1 413");
}

#[rstest]
#[case::too_large(RECORDS, "HTTP/1.1 413")]
#[case::unknown_stream("/api/v1/streams/trains/1/records", "HTTP/1.1 404")]
#[case::unknown_parameter("/api/v1/streams/flights/1/records?x=1", "HTTP/1.1 400")]
#[tokio::test]
async fn a_client_that_sends_on_after_the_refusal_gets_to_read_it(#[case] path: &str, #[case] answer: &str) {
    let limits = Limits { body_bytes_max: 10 << 20, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream(json!({})).await;
    let body = vec![b' '; 30 << 20];
    let head = doors
        .serve_while(async |address| read_head(send(address, &head(path, body.len()), &body).await).await);
    assert_eq!(head.await, answer);
}
