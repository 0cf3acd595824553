//! Subscriptions as their doors see them.
#![allow(clippy::disallowed_methods, reason = "what the server supervises is spawned here by hand")]

use std::sync::Arc;
use std::time::Duration;

use broker::access::webhook::WebhookToken;
use broker::access::{ADMINISTRATOR, Principal, User};
use broker::catalog::{Draft, Edit, Stream};
use broker::topic::Cleanup;
use broker::{
    Append, Batch, Clock as _, Kind, Log as _, Partition, Permission, Place, Stage, StreamName, Timestamp,
    TopicConfig,
};
use tokio_util::sync::CancellationToken;

use super::subscription::{End, News, Since, Subscriber, Subscription, Wanted};
use super::{Content, Form, entries};
use crate::Limits;
use crate::testing::Bench;

const FORM: Form = Form::Entries(Content::Value);

async fn bench() -> Bench {
    let bench = Bench::new(Limits { subscribers_max: 3, ..Limits::default() }).await;
    // Ends with the test's runtime.
    drop(tokio::spawn(bench.indexer.clone().keep_tails(CancellationToken::new())));
    bench
}

impl Bench {
    async fn switch(&self, version: &str, is_on: bool) -> Arc<Stream> {
        let name = StreamName::new("flights", version).unwrap();
        let edit = Edit { subscribable: Some(is_on), ..Edit::default() };
        self.catalog.change(&name, edit, ADMINISTRATOR).await.unwrap()
    }

    async fn subscribe(&self, subscriber: Subscriber, since: &str) -> broker::Result<Subscription> {
        let since = Since::parse(since).unwrap();
        let wanted = Wanted { dataset: "flights".to_owned(), since, form: FORM };
        Subscription::open(&self.indexer, subscriber, wanted).await
    }

    async fn subscribed(&self, since: &str) -> Subscription {
        self.subscribe(Subscriber::Principal(Principal::administrator()), since).await.unwrap()
    }

    /// Appends an event to a partition of the stream's processed topic.
    async fn put(&self, stream: &Stream, partition: u32, value: &str) {
        let place = Place::new(stream.topic(Stage::Processed), Partition(partition));
        let batch = Batch::of(&[self.record(0, None, value)]).unwrap();
        self.log.append(vec![Append { place, batch }]).await.unwrap();
    }
}

/// The next values, as many as there are in what comes at once.
async fn next(subscription: &mut Subscription) -> Vec<String> {
    let news: News = subscription.next().await.unwrap();
    entries(news.chunk.frames).map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).collect()
}

async fn is_quiet(subscription: &mut Subscription) -> bool {
    tokio::time::timeout(Duration::from_millis(100), subscription.next()).await.is_err()
}

#[test]
fn places_read_back_and_what_is_none_is_an_error_of_from() {
    for text in ["1/0:120", "1/0:120,1/1:88,2/0:0"] {
        let Since::Places(places) = Since::parse(text).unwrap() else { panic!("{text}") };
        assert_eq!(places.to_string(), text);
    }
    assert_eq!(Since::parse("now").unwrap(), Since::Now);
    let time = Timestamp::from_millis(978_652_800_000).unwrap();
    assert_eq!(Since::parse("2001-01-05").unwrap(), Since::Time(time));
    for wrong in ["yesterday", "1/0", "1/x:1", "1/0:-1", "1/0:1,", "/"] {
        assert_eq!(Since::parse(wrong).unwrap_err().field(), Some("from"), "{wrong}");
    }
}

#[tokio::test]
async fn what_one_can_subscribe_to_comes_from_now_on() {
    let bench = bench().await;
    let stream = bench.switch("1", true).await;
    bench.put(&stream, 0, "before").await;
    let mut subscription = bench.subscribed("now").await;
    bench.put(&stream, 0, "after").await;
    assert_eq!(next(&mut subscription).await, ["after\n"]);
    assert_eq!(subscription.at().to_string(), "1/0:2,1/1:0,1/2:0");

    // A version that is made and switched on later belongs to it, with all that came since.
    let draft = Draft { dataset: "flights".to_owned(), version: "2".to_owned(), ..Draft::default() };
    let second = bench.catalog.create(draft, ADMINISTRATOR).await.unwrap();
    bench.put(&second, 0, "too early").await;
    bench.clock.advance(Duration::from_secs(1));
    bench.switch("2", true).await;
    bench.put(&second, 0, "in time").await;
    assert_eq!(next(&mut subscription).await, ["in time\n"]);
    bench.switch("2", false).await;
    bench.put(&second, 0, "too late").await;
    assert!(is_quiet(&mut subscription).await);
    bench.put(&stream, 2, "still").await;
    assert_eq!(next(&mut subscription).await, ["still\n"]);
    bench.shutdown.cancel();
    assert!(matches!(subscription.next().await, Err(End::Shutdown)));
}

#[tokio::test]
async fn what_came_while_it_was_off_is_not_sent_even_if_nobody_looked_then() {
    let bench = bench().await;
    let stream = bench.switch("1", true).await;
    let mut subscription = bench.subscribed("now").await;
    bench.clock.advance(Duration::from_secs(1));
    bench.switch("1", false).await;
    bench.put(&stream, 0, "while it was off").await;
    bench.clock.advance(Duration::from_secs(1));
    bench.switch("1", true).await;
    bench.put(&stream, 0, "after").await;
    assert_eq!(next(&mut subscription).await, ["after\n"]);
}

#[tokio::test]
async fn a_stream_that_is_made_again_under_its_name_is_another() {
    let bench = bench().await;
    let stream = bench.switch("1", true).await;
    bench.put(&stream, 0, "first life").await;
    let mut subscription = bench.subscribed("1/0:0").await;
    assert_eq!(next(&mut subscription).await, ["first life\n"]);
    bench.catalog.delete(stream.name(), ADMINISTRATOR).await.unwrap();
    assert!(is_quiet(&mut subscription).await, "a deleted stream ends no subscription");
    let draft = Draft { dataset: "flights".to_owned(), version: "1".to_owned(), ..Draft::default() };
    bench.catalog.create(draft, ADMINISTRATOR).await.unwrap();
    let stream = bench.switch("1", true).await;
    bench.put(&stream, 0, "second life").await;
    assert_eq!(next(&mut subscription).await, ["second life\n"]);
    // A position of the life before is past the end of this one.
    let mut resumed = bench.subscribed("1/0:700").await;
    assert_eq!(next(&mut resumed).await, ["second life\n"]);
}

#[tokio::test]
async fn it_goes_on_where_it_was_and_from_a_time() {
    let bench = bench().await;
    let stream = bench.switch("1", true).await;
    for value in ["a", "b", "c"] {
        bench.put(&stream, 1, value).await;
        bench.clock.advance(Duration::from_secs(60));
    }
    let mut resumed = bench.subscribed("1/1:1").await;
    assert_eq!(next(&mut resumed).await, ["b\n", "c\n"]);
    assert_eq!(resumed.at().to_string(), "1/0:0,1/1:3,1/2:0");
    let mut since = bench.subscribed("2001-01-01T01:02:00Z").await;
    assert_eq!(next(&mut since).await, ["c\n"]);
    let mut all = bench.subscribed("2001-01-01").await;
    assert_eq!(next(&mut all).await, ["a\n", "b\n", "c\n"]);
    let many = bench.subscribe(Subscriber::Principal(Principal::administrator()), "now").await;
    assert_eq!(many.err().unwrap().kind(), Kind::Busy, "three are there");
}

#[tokio::test]
async fn what_was_removed_before_it_was_sent_is_told() {
    let bench = bench().await;
    let stream = bench.switch("1", true).await;
    let topic = stream.topic(Stage::Processed);
    let cleanup = Cleanup::Trim { age_max: None, bytes_max: Some(1) };
    bench.log.create(&topic, &TopicConfig { partitions: 3, cleanup }).await.unwrap();
    for _ in 0..20 {
        bench.put(&stream, 0, &"x".repeat(10_000)).await;
    }
    let start = bench.log.bounds(&bench.place(Stage::Processed, 0)).await.unwrap().start;
    assert!(start.0 > 5, "{start}");
    let mut late = bench.subscribed("1/0:5").await;
    let news = late.next().await.unwrap();
    assert_eq!(news.chunk.missed, Some(broker::Offset(5)..start));
    let mut current = bench.subscribed(&format!("1/0:{start}")).await;
    assert_eq!(current.next().await.unwrap().chunk.missed, None);
}

#[tokio::test]
async fn who_may_not_read_any_more_is_sent_nothing_more() {
    let bench = bench().await;
    let stream = bench.switch("1", true).await;
    let (ann, now) = (User::new("ann", bench.clock.now()), bench.clock.now());
    let token = |is_active| WebhookToken {
        id: "t".to_owned(),
        dataset: "flights".to_owned(),
        operation: broker::access::webhook::Operation::Read,
        sha256: String::new(),
        created_by: "ann".to_owned(),
        created_at: now,
        expires_at: now + Duration::from_secs(60),
        is_active,
    };
    let set_token = async |is_active| {
        let (mut writes, id) = (bench.catalog.writes(ADMINISTRATOR), WebhookToken::row_id("flights", "t"));
        writes.set(id.clone(), bench.catalog.version::<WebhookToken>(&id), &token(is_active)).unwrap();
        bench.catalog.write(writes).await.unwrap();
    };
    bench.grant_ann(&[Permission::Read]).await;
    set_token(true).await;
    let reader = Subscriber::Principal(Principal::of(&ann));
    let holder = Subscriber::Webhook(WebhookToken::row_id("flights", "t"));
    let mut by_grant = bench.subscribe(reader, "now").await.unwrap();
    let mut by_token = bench.subscribe(holder.clone(), "now").await.unwrap();
    let mut by_time = bench.subscribe(holder, "now").await.unwrap();
    bench.put(&stream, 0, "seen").await;
    for subscription in [&mut by_grant, &mut by_token, &mut by_time] {
        assert_eq!(next(subscription).await, ["seen\n"]);
    }
    bench.clock.advance(Duration::from_secs(61));
    assert!(matches!(by_time.next().await, Err(End::Forbidden)));
    bench.grant_ann(&[Permission::Write]).await;
    assert!(matches!(by_grant.next().await, Err(End::Forbidden)));
    set_token(false).await;
    assert!(matches!(by_token.next().await, Err(End::Forbidden)));
}
