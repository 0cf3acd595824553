use broker::access::User;

use super::*;
use crate::testing::{Doors, TOKEN, pool_settings};

const NAME: &str = "ann";

/// The same pool as of another process, or otherwise set up.
fn pool(doors: &Doors, token: &str, change: impl FnOnce(&mut PoolSettings)) -> Arc<Pool> {
    let mut settings = pool_settings();
    change(&mut settings);
    let (catalog, clock) = (doors.ingest.catalog.clone(), doors.clock.clone());
    Pool::new(settings, token.to_owned(), catalog, clock)
}

async fn with_ann() -> (Doors, Arc<Row<User>>) {
    let doors = Doors::open().await;
    let user = User::new(NAME, doors.ingest.clock.now());
    let row = doors.ingest.set(&Principal::administrator(), NAME, &user).await.unwrap();
    (doors, row)
}

async fn id_token(pool: &Pool, user: &Row<User>) -> String {
    pool.issue(user, &pool.sign_in("app")).await.unwrap().id
}

fn holder(pool: &Pool, token: &str) -> Result<String, Denial> {
    let header = jsonwebtoken::decode_header(token).unwrap();
    pool.holder(token.as_bytes(), &header).map(|principal| principal.name().to_owned())
}

#[tokio::test]
async fn every_process_signs_with_the_same_keys_and_knows_them() {
    let (doors, ann) = with_ann().await;
    let (one, two) = (pool(&doors, TOKEN, |_| ()), pool(&doors, TOKEN, |_| ()));
    let token = id_token(&one, &ann).await;
    assert_eq!(holder(&two, &token).unwrap(), NAME);
    assert_eq!(jsonwebtoken::decode_header(id_token(&two, &ann).await).unwrap().kid, {
        jsonwebtoken::decode_header(&token).unwrap().kid
    });
    let refresh = one.refresh_token(&ann.value, &one.sign_in("app")).unwrap();
    assert!(two.carried(&refresh, Use::Refresh, "app").is_some());
    for (what, client) in [(Use::Session, "app"), (Use::Refresh, "other")] {
        assert_eq!(two.carried(&refresh, what, client), None);
    }

    // With another token in the configuration the key cannot be opened, and another one is made.
    let other = pool(&doors, "another-token-of-the-tests", |_| ());
    let later = id_token(&other, &ann).await;
    assert_eq!(holder(&other, &token).unwrap(), NAME, "what was signed is still checked");
    assert_eq!(holder(&other, &later).unwrap(), NAME);
    assert_eq!(other.published()["keys"].as_array().unwrap().len(), 2);
    assert_eq!(other.carried(&refresh, Use::Refresh, "app"), None);
}

#[tokio::test]
async fn a_token_is_of_one_pool_and_one_client() {
    let (doors, ann) = with_ann().await;
    let token = id_token(&pool(&doors, TOKEN, |_| ()), &ann).await;
    let elsewhere = pool(&doors, TOKEN, |settings| settings.id = "local_other".to_owned());
    assert_eq!(holder(&elsewhere, &token), Err(Denial::Wrong("this token is of another pool")));
    let others = pool(&doors, TOKEN, |settings| settings.clients = ["web".to_owned()].into());
    assert_eq!(holder(&others, &token), Err(Denial::Wrong("this token is for another client")));
    // Another user that gets the same name is another.
    doors.ingest.delete_user(&Principal::administrator(), NAME).await.unwrap();
    doors.clock.advance(Duration::from_secs(1));
    let again = User::new(NAME, doors.ingest.clock.now());
    doors.ingest.set(&Principal::administrator(), NAME, &again).await.unwrap();
    let taken = holder(&pool(&doors, TOKEN, |_| ()), &token);
    assert_eq!(taken, Err(Denial::Expired("this token is not taken any more")));
    assert_ne!(subject(&again), subject(&ann.value));
}
