use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::Stage;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::testing::{Answer, Doors};

const PASSWORD: &str = "correct horse battery";
const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn act(doors: &Doors, action: &str, body: Value) -> Answer {
    act_as(doors, &[], action, body.to_string()).await
}

async fn act_as(doors: &Doors, headers: &[(&str, &str)], action: &str, body: String) -> Answer {
    let target = format!("AWSCognitoIdentityProviderService.{action}");
    let own = [("x-amz-target", &*target), ("content-type", "application/x-amz-json-1.1")];
    let headers: Vec<_> = own.into_iter().chain(headers.iter().copied()).collect();
    let answer = doors.post("/pool/", &headers, body).await;
    assert_eq!(answer.headers["content-type"], "application/x-amz-json-1.1");
    answer
}

/// The status and the name of the exception.
fn refusal(answer: &Answer) -> (u16, &str) {
    let kind = answer.json["__type"].as_str().unwrap_or_default();
    if !kind.is_empty() {
        assert_eq!(answer.headers["x-amzn-errortype"], kind);
    }
    (answer.status.as_u16(), kind)
}

async fn sign_in(doors: &Doors, name: &str, password: &str) -> Answer {
    let parameters = json!({"USERNAME": name, "PASSWORD": password});
    let asked = json!({"AuthFlow": "USER_PASSWORD_AUTH", "AuthParameters": parameters, "ClientId": "app"});
    act(doors, "InitiateAuth", asked).await
}

async fn refresh(doors: &Doors, token: &str) -> Answer {
    let parameters = json!({"REFRESH_TOKEN": token});
    let asked = json!({"AuthFlow": "REFRESH_TOKEN_AUTH", "AuthParameters": parameters, "ClientId": "app"});
    act(doors, "InitiateAuth", asked).await
}

fn token<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.json["AuthenticationResult"][name].as_str().unwrap_or_else(|| panic!("{name}: {}", answer.json))
}

/// A user that has its password.
async fn with_ann(doors: Doors) -> Doors {
    let doors = doors.with_user_pool(true).await;
    let attributes =
        json!([{"Name": "email", "Value": "ann@example.com"}, {"Name": "email_verified", "Value": "true"}]);
    let asked = json!({
        "UserPoolId": "local_tests", "Username": "ann", "MessageAction": "SUPPRESS", "UserAttributes": attributes,
    });
    assert_eq!(
        act(&doors, "AdminCreateUser", asked).await.json["User"]["UserStatus"],
        "FORCE_CHANGE_PASSWORD"
    );
    let asked =
        json!({"UserPoolId": "local_tests", "Username": "ann", "Password": PASSWORD, "Permanent": true});
    assert_eq!(act(&doors, "AdminSetUserPassword", asked).await.json, json!({}));
    doors
}

/// The status of who presents a bearer, and its name or what is said of it.
async fn whoami(doors: &Doors, bearer: &str) -> (u16, String) {
    let request = Request::get("/api/v1/whoami").header(AUTHORIZATION, format!("Bearer {bearer}"));
    let answer = doors.send(request.body(String::new().into()).unwrap()).await;
    let said =
        if answer.status.is_success() { &answer.json["name"] } else { &answer.json["error"]["message"] };
    (answer.status.as_u16(), said.as_str().unwrap().to_owned())
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// The messages to users.
async fn messages(doors: &Doors) -> Vec<Value> {
    let entries = doors.entries("user_messages", Stage::Raw).await;
    entries.into_iter().map(|(_, entry)| serde_json::from_slice(&entry.record.value).unwrap()).collect()
}

#[tokio::test]
async fn who_signs_in_gets_tokens_that_say_so() {
    let doors = with_ann(Doors::open().await).await;
    let answer = sign_in(&doors, "ann", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let result = &answer.json["AuthenticationResult"];
    assert_eq!((&result["TokenType"], &result["ExpiresIn"]), (&json!("Bearer"), &json!(3_600)));

    // As somebody checks it that knows nothing but where the keys are.
    let keys: JwkSet =
        serde_json::from_value(doors.get("/pool/local_tests/.well-known/jwks.json").await.json).unwrap();
    let id = token(&answer, "IdToken");
    let header = jsonwebtoken::decode_header(id).unwrap();
    let key = DecodingKey::from_jwk(keys.find(header.kid.as_ref().unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["app"]);
    validation.set_issuer(&["http://pool.test/local_tests"]);
    validation.validate_exp = false;
    let checked = jsonwebtoken::decode::<BTreeMap<String, Value>>(id, &key, &validation).unwrap().claims;
    assert_eq!((&checked["token_use"], &checked["cognito:username"]), (&json!("id"), &json!("ann")));
    assert_eq!((&checked["email"], &checked["email_verified"]), (&json!("ann@example.com"), &json!(true)));
    assert_eq!(checked["exp"].as_i64().unwrap() - checked["iat"].as_i64().unwrap(), 3_600);
    let access = claims(token(&answer, "AccessToken"));
    assert_eq!(
        (&access["token_use"], &access["client_id"], &access["username"], &access["sub"]),
        (&json!("access"), &json!("app"), &json!("ann"), &checked["sub"])
    );
    assert!(access["aud"].is_null());
    assert_eq!(checked["sub"].as_str().unwrap().len(), 36);

    assert_eq!(whoami(&doors, id).await, (200, "ann".to_owned()));
    let said = |text: &str| (401, text.to_owned());
    assert_eq!(
        whoami(&doors, token(&answer, "AccessToken")).await,
        said("this is an access token: an id token is expected")
    );
    let refresh_token = token(&answer, "RefreshToken");
    assert_eq!(whoami(&doors, refresh_token).await, said("this token is not known"));
    // One letter of the signature is another.
    let (rest, last) = id.split_at(id.len() - 10);
    let other = if last.starts_with('A') { 'B' } else { 'A' };
    assert_eq!(
        whoami(&doors, &format!("{rest}{other}{}", &last[1..])).await,
        said("this token is not known")
    );

    doors.clock.advance(Duration::from_secs(3_600));
    assert_eq!(whoami(&doors, id).await, said("this token has expired"));
    let again = refresh(&doors, refresh_token).await;
    assert!(again.json["AuthenticationResult"]["RefreshToken"].is_null());
    let renewed = token(&again, "IdToken");
    assert_eq!(whoami(&doors, renewed).await, (200, "ann".to_owned()));
    let (before, after) = (claims(id), claims(renewed));
    assert_eq!((&before["auth_time"], &before["origin_jti"]), (&after["auth_time"], &after["origin_jti"]));
    assert_ne!(before["jti"], after["jti"]);
    doors.clock.advance(DAY);
    assert_eq!(refusal(&refresh(&doors, refresh_token).await), (400, "NotAuthorizedException"));
}

#[tokio::test]
async fn what_came_of_a_sign_in_can_be_taken_back() {
    let doors = with_ann(Doors::open().await).await;
    let (first, second) = (sign_in(&doors, "ann", PASSWORD).await, sign_in(&doors, "ann", PASSWORD).await);
    let revoke =
        async |token: &str| act(&doors, "RevokeToken", json!({"ClientId": "app", "Token": token})).await;
    let wrong = revoke(token(&first, "IdToken")).await;
    assert_eq!(refusal(&wrong), (400, "UnsupportedTokenTypeException"));
    assert_eq!(refusal(&revoke("something else").await), (400, "UnauthorizedException"));
    for _ in 0..2 {
        assert_eq!(revoke(token(&first, "RefreshToken")).await.json, json!({}));
    }
    assert_eq!(whoami(&doors, token(&first, "IdToken")).await.1, "this token is not taken any more");
    let refused = refresh(&doors, token(&first, "RefreshToken")).await;
    assert_eq!(refusal(&refused), (400, "NotAuthorizedException"));
    assert_eq!(whoami(&doors, token(&second, "IdToken")).await.0, 200);
    // What is remembered of revoked sign-ins has a bound, and past it none is left.
    for _ in 0..101 {
        let more = sign_in(&doors, "ann", PASSWORD).await;
        assert_eq!(revoke(token(&more, "RefreshToken")).await.status, StatusCode::OK);
    }
    assert_eq!(whoami(&doors, token(&first, "IdToken")).await.0, 401);
    assert_eq!(whoami(&doors, token(&second, "IdToken")).await.0, 401);

    // A new password and being disabled end all.
    let third = sign_in(&doors, "ann", PASSWORD).await;
    let set =
        json!({"UserPoolId": "local_tests", "Username": "ann", "Password": PASSWORD, "Permanent": true});
    act(&doors, "AdminSetUserPassword", set).await;
    assert_eq!(whoami(&doors, token(&third, "IdToken")).await.0, 401);
    assert_eq!(refusal(&refresh(&doors, token(&third, "RefreshToken")).await).1, "NotAuthorizedException");
}

#[tokio::test]
async fn a_password_that_somebody_else_gave_is_replaced_first() {
    let doors = Doors::open().await.with_user_pool(false).await;
    let asked = json!({
        "UserPoolId": "local_tests", "Username": "ben", "UserAttributes": [{"Name": "email", "Value": "b@example.com"}],
    });
    let made = act(&doors, "AdminCreateUser", asked.clone()).await;
    assert_eq!(
        (&made.json["User"]["Username"], &made.json["User"]["Enabled"]),
        (&json!("ben"), &json!(true))
    );
    assert_eq!(refusal(&act(&doors, "AdminCreateUser", asked.clone()).await).1, "UsernameExistsException");
    let mut again = asked;
    again["MessageAction"] = json!("RESEND");
    act(&doors, "AdminCreateUser", again.clone()).await;
    let told = messages(&doors).await;
    assert_eq!(told.len(), 2);
    assert_eq!((&told[1]["kind"], &told[1]["username"]), (&json!("invitation"), &json!("ben")));
    assert_eq!(told[1]["attributes"], json!({"email": "b@example.com"}));
    let given = |index: usize| told[index]["temporary_password"].as_str().unwrap();
    assert_eq!(refusal(&sign_in(&doors, "ben", given(0)).await).1, "NotAuthorizedException");
    let challenge = sign_in(&doors, "ben", given(1)).await;
    assert_eq!(challenge.json["ChallengeName"], "NEW_PASSWORD_REQUIRED");
    assert_eq!(challenge.json["ChallengeParameters"]["userAttributes"], r#"{"email":"b@example.com"}"#);
    // Nor does it sign in elsewhere.
    let body = json!({"username": "ben", "password": given(1)}).to_string();
    let elsewhere = doors.post("/api/v1/token", &[("content-type", "application/json")], body).await;
    assert_eq!(elsewhere.status, StatusCode::BAD_REQUEST);

    let respond = async |session: &Value, responses: Value| {
        let asked = json!({
            "ChallengeName": "NEW_PASSWORD_REQUIRED", "ClientId": "app", "Session": session,
            "ChallengeResponses": responses,
        });
        act(&doors, "RespondToAuthChallenge", asked).await
    };
    let session = &challenge.json["Session"];
    let new = json!({"USERNAME": "ben", "NEW_PASSWORD": PASSWORD, "userAttributes.nickname": "Benny"});
    let short = json!({"USERNAME": "ben", "NEW_PASSWORD": "short"});
    assert_eq!(refusal(&respond(session, short).await), (400, "InvalidPasswordException"));
    let other = json!({"USERNAME": "eve", "NEW_PASSWORD": PASSWORD});
    assert_eq!(refusal(&respond(session, other).await), (400, "NotAuthorizedException"));
    let checked =
        json!({"USERNAME": "ben", "NEW_PASSWORD": PASSWORD, "userAttributes.email_verified": "true"});
    assert_eq!(refusal(&respond(session, checked).await), (400, "NotAuthorizedException"));
    let done = respond(session, new.clone()).await;
    assert_eq!(claims(token(&done, "IdToken"))["nickname"], "Benny");
    assert_eq!(refusal(&respond(session, new.clone()).await), (400, "NotAuthorizedException"), "once");
    assert_eq!(whoami(&doors, token(&done, "IdToken")).await, (200, "ben".to_owned()));
    assert_eq!(sign_in(&doors, "ben", PASSWORD).await.status, StatusCode::OK);
    assert_eq!(refusal(&act(&doors, "AdminCreateUser", again).await).1, "UnsupportedUserStateException");

    // A session ends, and so does a temporary password.
    let set = json!({"UserPoolId": "local_tests", "Username": "ben", "Password": "another password"});
    act(&doors, "AdminSetUserPassword", set).await;
    assert_eq!(whoami(&doors, token(&done, "IdToken")).await.0, 401);
    let challenge = sign_in(&doors, "ben", "another password").await;
    doors.clock.advance(Duration::from_secs(180));
    let late = respond(&challenge.json["Session"], new).await;
    assert_eq!(late.json["message"], "Invalid session for the user, session is expired.");
    doors.clock.advance(7 * DAY);
    let late = sign_in(&doors, "ben", "another password").await;
    assert_eq!(late.json["message"], "Temporary password has expired and must be reset by an administrator.");
}

#[tokio::test]
async fn who_signs_up_shows_the_code_that_it_was_sent() {
    let doors = Doors::open().await.with_user_pool(true).await;
    let asked = json!({
        "ClientId": "app", "Username": "cy@example.com", "Password": PASSWORD,
        "UserAttributes": [{"Name": "email", "Value": "cy@example.com"}],
    });
    let made = act(&doors, "SignUp", asked.clone()).await;
    assert_eq!((&made.json["UserConfirmed"], made.status), (&json!(false), StatusCode::OK), "{}", made.json);
    assert_eq!(made.json["CodeDeliveryDetails"]["Destination"], "c***@e***");
    assert_eq!(refusal(&act(&doors, "SignUp", asked.clone()).await), (400, "UsernameExistsException"));
    let unconfirmed = sign_in(&doors, "cy@example.com", PASSWORD).await;
    assert_eq!(refusal(&unconfirmed), (400, "UserNotConfirmedException"));
    assert_eq!(refusal(&sign_in(&doors, "cy@example.com", "wrong").await).1, "NotAuthorizedException");

    let confirm = async |code: &str| {
        let asked = json!({"ClientId": "app", "Username": "cy@example.com", "ConfirmationCode": code});
        act(&doors, "ConfirmSignUp", asked).await
    };
    let resend = async || {
        act(&doors, "ResendConfirmationCode", json!({"ClientId": "app", "Username": "cy@example.com"})).await
    };
    let last = async || messages(&doors).await.pop().unwrap()["code"].as_str().unwrap().to_owned();
    let wrong = |code: &str| if code == "000000" { "000001" } else { "000000" };
    let first = last().await;
    assert_eq!((messages(&doors).await[0]["sub"].clone(), first.len()), (made.json["UserSub"].clone(), 6));
    for _ in 0..5 {
        assert_eq!(refusal(&confirm(wrong(&first)).await), (400, "CodeMismatchException"));
    }
    assert_eq!(
        refusal(&confirm(&first).await),
        (400, "TooManyFailedAttemptsException"),
        "not after many others"
    );
    assert_eq!(refusal(&resend().await), (400, "LimitExceededException"), "too soon");
    doors.clock.advance(Duration::from_secs(60));
    assert_eq!(resend().await.status, StatusCode::OK);
    let second = last().await;
    if first != second {
        assert_eq!(refusal(&confirm(&first).await), (400, "CodeMismatchException"));
    }
    doors.clock.advance(DAY);
    assert_eq!(refusal(&confirm(&second).await), (400, "ExpiredCodeException"));
    for _ in 0..5 {
        doors.clock.advance(Duration::from_secs(60));
        assert_eq!(resend().await.status, StatusCode::OK);
    }
    doors.clock.advance(Duration::from_secs(60));
    assert_eq!(refusal(&resend().await), (400, "LimitExceededException"), "five a day");
    assert_eq!(confirm(&last().await).await.json, json!({}));
    assert_eq!(refusal(&confirm(&last().await).await), (400, "NotAuthorizedException"), "it is confirmed");
    let answer = sign_in(&doors, "cy@example.com", PASSWORD).await;
    let told = claims(token(&answer, "IdToken"));
    assert_eq!((&told["email_verified"], &told["sub"]), (&json!(true), &made.json["UserSub"]));

    // A name whose user was never confirmed is free again after a week.
    let mut other = asked;
    other["Username"] = json!("dee");
    assert_eq!(act(&doors, "SignUp", other.clone()).await.status, StatusCode::OK);
    doors.clock.advance(7 * DAY);
    assert_eq!(act(&doors, "SignUp", other).await.status, StatusCode::OK);
    let closed = Doors::open().await.with_user_pool(false).await;
    let refused =
        act(&closed, "SignUp", json!({"ClientId": "app", "Username": "x", "Password": PASSWORD})).await;
    assert_eq!(refused.json["message"], "SignUp is not permitted for this user pool");
}

/// Each action is refused with 400, by the name of the exception, in words that hold these.
async fn check_refusals(doors: &Doors, cases: &[((&str, Value), &str, &str)]) {
    for ((action, asked), kind, said) in cases {
        let answer = act(doors, action, asked.clone()).await;
        assert_eq!(refusal(&answer), (400, *kind), "{action} {asked}: {}", answer.json);
        let message = answer.json["message"].as_str().unwrap();
        assert!(message.contains(said), "{action} {asked}: {message}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_sign_in_is_named() {
    let doors = with_ann(Doors::open().await).await;
    let with = |name: &str, value: Value| {
        let parameters = json!({"USERNAME": "ann", "PASSWORD": PASSWORD});
        let mut asked =
            json!({"AuthFlow": "USER_PASSWORD_AUTH", "AuthParameters": parameters, "ClientId": "app"});
        asked[name] = value;
        ("InitiateAuth", asked)
    };
    let presenting = |parameters: Value| with("AuthParameters", parameters);
    let eve = presenting(json!({"USERNAME": "eve", "PASSWORD": PASSWORD}));
    let secret = presenting(json!({"USERNAME": "ann", "PASSWORD": PASSWORD, "SECRET_HASH": "x"}));
    let number = presenting(json!({"USERNAME": "ann", "PASSWORD": 7}));
    let cases = [
        (presenting(json!({"USERNAME": "ann"})), "InvalidParameterException", "PASSWORD"),
        (number, "InvalidParameterException", "AuthParameters.PASSWORD"),
        (eve, "NotAuthorizedException", "Incorrect username"),
        (secret, "NotAuthorizedException", "without secret"),
        (with("ClientId", json!("other")), "ResourceNotFoundException", "client other does not exist"),
        (with("AuthFlow", json!("USER_SRP_AUTH")), "InvalidParameterException", "AuthFlow: "),
        (with("AuthFlow", json!(null)), "InvalidParameterException", "AuthFlow: "),
        (("InitiateAuth", json!({})), "InvalidParameterException", "AuthFlow"),
        (("InitiateAuth", json!([])), "InvalidParameterException", "the request"),
        (("GetUser", json!({})), "UnknownOperationException", "GetUser"),
    ];
    check_refusals(&doors, &cases).await;
    let broken = act_as(&doors, &[], "InitiateAuth", "{\"a\":".to_owned()).await;
    assert_eq!(refusal(&broken), (400, "SerializationException"));
    let large = act_as(&doors, &[], "InitiateAuth", " ".repeat(65_537)).await;
    assert_eq!(refusal(&large), (413, "InvalidParameterException"));
    assert!(large.json["message"].as_str().unwrap().contains("user_pool_request_bytes_max"));
    let text = doors.post("/pool", &[("x-amz-target", "x"), ("content-type", "text/plain")], "{}").await;
    assert_eq!(refusal(&text), (400, "UnknownOperationException"), "without a slash, too");
}

#[tokio::test]
async fn what_is_wrong_with_a_user_is_named() {
    let doors = Doors::open().await.with_user_pool(true).await;
    let user = |name: &str, value: Value| {
        let mut asked = json!({"UserPoolId": "local_tests", "Username": "x"});
        asked[name] = value;
        ("AdminCreateUser", asked)
    };
    let eve = json!({"UserPoolId": "local_tests", "Username": "eve", "Password": PASSWORD});
    let attribute = |name: &str, value: &str| user("UserAttributes", json!([{"Name": name, "Value": value}]));
    let code = json!({"ClientId": "app", "Username": "eve", "ConfirmationCode": "1"});
    let cases = [
        (user("UserPoolId", json!("eu_other")), "ResourceNotFoundException", "eu_other"),
        (user("Username", json!("a b")), "InvalidParameterException", "Username"),
        (user("TemporaryPassword", json!("short")), "InvalidPasswordException", "12 to 256"),
        (attribute("sub", "1"), "InvalidParameterException", "UserAttributes"),
        (attribute("custom:", "1"), "InvalidParameterException", "UserAttributes"),
        (attribute("email_verified", "yes"), "InvalidParameterException", "email_verified"),
        (("AdminSetUserPassword", eve), "UserNotFoundException", "does not exist"),
        (("ConfirmSignUp", code), "UserNotFoundException", "not found"),
    ];
    check_refusals(&doors, &cases).await;
}

#[tokio::test]
async fn others_find_where_the_keys_are() {
    let doors = Doors::open().await.with_user_pool(false).await;
    for document in ["jwks.json", "openid-configuration"] {
        let elsewhere = doors.get(&format!("/pool/eu_other/.well-known/{document}")).await;
        assert_eq!(elsewhere.status, StatusCode::NOT_FOUND);
    }
    let found = doors.get("/pool/local_tests/.well-known/openid-configuration").await.json;
    assert_eq!(found["jwks_uri"], "http://pool.test/local_tests/.well-known/jwks.json");
}

#[tokio::test]
async fn only_administrators_act_on_others() {
    let doors = with_ann(Doors::open().await).await;
    let asked = json!({"UserPoolId": "local_tests", "Username": "x"}).to_string();
    let signed_in = sign_in(&doors, "ann", PASSWORD).await;
    let ann = format!("Bearer {}", token(&signed_in, "IdToken"));
    let signature =
        "AWS4-HMAC-SHA256 Credential=x/20260301/r/s/aws4_request, SignedHeaders=host, Signature=0";
    for (authorization, kind) in [
        ("something", "MissingAuthenticationTokenException"),
        ("Basic eDp5", "IncompleteSignatureException"),
        ("Bearer something", "UnrecognizedClientException"),
        (&*ann, "AccessDeniedException"),
        (signature, "UnrecognizedClientException"),
    ] {
        let answer =
            act_as(&doors, &[("authorization", authorization)], "AdminCreateUser", asked.clone()).await;
        assert_eq!(refusal(&answer), (400, kind), "{authorization}: {}", answer.json);
    }
    assert_eq!(doors.get("/api/v1/users/x").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn wrong_passwords_have_to_wait() {
    let doors = with_ann(Doors::open().await).await;
    for _ in 0..20 {
        assert_eq!(refusal(&sign_in(&doors, "ann", "wrong").await), (400, "NotAuthorizedException"));
    }
    let busy = sign_in(&doors, "ann", PASSWORD).await;
    assert_eq!(refusal(&busy), (429, "TooManyRequestsException"));
    assert_eq!(busy.headers["retry-after"], "3");
    doors.clock.advance(Duration::from_secs(3));
    assert_eq!(sign_in(&doors, "ann", PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test]
async fn keys_follow_each_other_without_a_token_being_lost() {
    let doors = with_ann(Doors::open().await).await;
    let names = async || {
        let answer = doors.get("/pool/local_tests/.well-known/jwks.json").await;
        assert_eq!(answer.headers["cache-control"], "public, max-age=600");
        let keys = answer.json["keys"].as_array().unwrap().clone();
        keys.into_iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let signed_with =
        |answer: &Answer| jsonwebtoken::decode_header(token(answer, "IdToken")).unwrap().kid.unwrap();
    let first = names().await;
    assert_eq!(first.len(), 1);
    doors.clock.advance(7 * DAY);
    let before = sign_in(&doors, "ann", PASSWORD).await;
    assert_eq!(signed_with(&before), first[0], "the next one is only published");
    let both = names().await;
    assert_eq!((both.len(), &both[0]), (2, &first[0]));
    doors.clock.advance(Duration::from_secs(600));
    let after = sign_in(&doors, "ann", PASSWORD).await;
    assert_eq!(signed_with(&after), both[1]);
    assert_eq!(whoami(&doors, token(&before, "IdToken")).await.0, 200);
    doors.clock.advance(Duration::from_secs(3_000));
    assert_eq!(names().await, both, "a token of the first may be left");
    doors.clock.advance(Duration::from_secs(600));
    assert_eq!(names().await, both[1..]);
    assert_eq!(whoami(&doors, token(&before, "IdToken")).await, (401, "this token is not known".to_owned()));
    // What is private of them stands nowhere.
    let kept = doors.catalog_values().await.concat();
    assert!(kept.contains("\"sealed\"") && !kept.contains("PRIVATE KEY"));
}
