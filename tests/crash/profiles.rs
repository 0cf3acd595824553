//! Users become one another and are told of while the server is killed: profiles are what both streams come to, also
//! when they are made anew.

use super::*;

const IDS: u32 = 24;
const KILLS: u32 = 6;

fn id(number: u32) -> String {
    format!("user-{number}")
}

/// Aliases and profiles, one after the other, until the server is gone.
async fn tell(server: &Server, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let client = Client::new();
    for number in 0.. {
        let (one, other) = (id(random.random_range(0..IDS)), id(random.random_range(0..IDS)));
        let (path, body) = if random.random_ratio(1, 12) {
            ("/alias", json!({"originalUserId": one, "newUserId": other}))
        } else {
            let name = ["plan", "city", "age"][random.random_range(0..3)];
            ("/profile", json!({"userId": one, "attributes": {name: format!("{seed}-{number}")}}))
        };
        let request = client.post(format!("{}{path}", server.base())).bearer_auth(common::TOKEN);
        match request.json(&body).send().await {
            Ok(answer) => assert!(
                [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status()),
                "{path}: {}",
                answer.status()
            ),
            Err(_) => return,
        }
    }
}

/// What tells which of two records is the later, and the record.
type Told = Vec<((String, u64, u64), Value)>;

/// The records of a stream in the order of tables: a partition's clock never goes back.
async fn told(server: &Server, dataset: &str) -> Told {
    let mut lines = server.lines(&format!("/api/v1/streams/{dataset}/1/events/export")).await;
    lines.sort_by_key(|line| (line["partition"].as_u64(), line["offset"].as_u64()));
    let mut clocks: BTreeMap<u64, String> = BTreeMap::new();
    let mut told: Told = Vec::new();
    for line in lines {
        let (partition, offset) = (line["partition"].as_u64().unwrap(), line["offset"].as_u64().unwrap());
        // Of one form and zone, so that texts compare as times do.
        let arrival: chrono::DateTime<chrono::Utc> = line["timestamp"].as_str().unwrap().parse().unwrap();
        let arrival = format!("{:020}", arrival.timestamp_micros());
        let clock = clocks.entry(partition).or_default();
        *clock = arrival.max(clock.clone());
        told.push(((clock.clone(), partition, offset), line["value"].clone()));
    }
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

/// All ids that are one with this one.
fn group(became: &BTreeMap<String, String>, of: &str) -> BTreeSet<String> {
    let mut group = BTreeSet::from([of.to_owned()]);
    loop {
        let more: Vec<String> = became
            .iter()
            .filter(|(old, new)| group.contains(*old) != group.contains(*new))
            .flat_map(|(old, new)| [old.clone(), new.clone()])
            .collect();
        if more.is_empty() {
            return group;
        }
        group.extend(more);
    }
}

async fn check(server: &Server) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (aliases, profiles) = (told(server, "link_users").await, told(server, "user_profiles").await);
    let became: BTreeMap<String, String> = aliases
        .iter()
        .map(|(_, alias)| (text(&alias["originalUserId"]), text(&alias["newUserId"])))
        .filter(|(old, new)| old != new)
        .collect();
    assert!(became.len() > 5 && profiles.len() > 100, "the load was real");
    for user in (0..IDS).map(id) {
        let ids = group(&became, &user);
        let mut attributes = serde_json::Map::new();
        for (_, profile) in profiles.iter().filter(|(_, profile)| ids.contains(&text(&profile["userId"]))) {
            attributes.extend(profile["attributes"].as_object().unwrap().clone());
        }
        until("the profile is what was told", async || {
            let request = server.request(reqwest::Method::GET, &format!("/profiles/{user}"));
            let profile: Value = request.send().await.unwrap().json().await.unwrap();
            pause().await;
            let is_same = profile["ids"] == json!(ids) && profile["attributes"] == json!(attributes);
            is_same.then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_survive_kills_and_can_be_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let launch = || {
        let launch = Launch::local(folder.path()).set("HEADWATER_TRACKING__ENABLED", "true");
        launch.set("HEADWATER_TABLES__SNAPSHOT_AGE", "1 s")
    };
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for kill in 0..KILLS {
        let mut server = launch().start().await;
        let wait = Duration::from_millis(random.random_range(200..900));
        let producers = (0..PRODUCERS).map(|producer| tell(&server, u64::from(kill) * PRODUCERS + producer));
        let load = futures::future::join_all(producers);
        assert!(tokio::time::timeout(wait, load).await.is_err(), "the load goes on until the kill");
        server.kill();
    }
    let mut server = launch().start().await;
    check(&server).await;
    server.kill();
    std::fs::remove_dir_all(server.data().join("tables")).unwrap();
    check(&launch().start().await).await;
}
