//! A client of the service that the pool of users stands in for, unmodified but for its endpoint.

use tokio::process::Command;

use super::*;

#[tokio::test]
async fn boto3_signs_users_up_and_in_and_its_id_token_posts_positions() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path())
        .set("HEADWATER_VEHICLES__ENABLED", "true")
        .set("HEADWATER_USER_POOL__ENABLED", "true")
        .set("HEADWATER_USER_POOL__SIGN_UP", "true")
        .set("HEADWATER_USER_POOL__ID", "eu-north-1_Buses")
        .set("HEADWATER_USER_POOL__CLIENTS", "app,web");
    let server = launch.start().await;
    let (status, made) = server.post("/api/v1/users", &json!({"name": "ops", "administrator": true})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (_, made) = server.post("/api/v1/keys", &json!({"user": "ops", "hawk": true})).await;
    #[allow(clippy::disallowed_methods, reason = "the environment is named by the script that made it")]
    let python = std::env::var("HEADWATER_TEST_BOTO3");
    let output = Command::new(python.expect("no client: eval \"$(scripts/clients env)\""))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/with_boto3.py"))
        .args([server.base(), made["key"].as_str().unwrap(), env!("CARGO_BIN_EXE_headwater")])
        .env("HEADWATER_TOKEN", TOKEN)
        .env("AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER", format!("{}/user-pool", server.base()))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", folder.path())
        .output()
        .await
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said == "all is as it should be\n", "{said}{errors}");
    // What was sent to users is found in no query and no object.
    let search = server.request(Method::GET, "/api/v1/streams/user_messages/1/events").send().await.unwrap();
    assert!(!search.text().await.unwrap().contains("temporary_password"));
}

/// Users, their sign-ins and the keys outlive the process, and what was revoked stays so.
#[tokio::test]
async fn a_sign_in_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path()).set("HEADWATER_USER_POOL__ENABLED", "true").at_one_port();
    let mut server = launch.start().await;
    server.post("/api/v1/users", &json!({"name": "bus"})).await;
    let password = server.request(Method::PUT, "/api/v1/users/bus/password");
    let answer = password.json(&json!({"password": "a password of the tests"})).send().await.unwrap();
    assert!(answer.status().is_success());
    let sign_in = async |server: &Server| {
        let parameters = json!({"USERNAME": "bus", "PASSWORD": "a password of the tests"});
        tokens(server, "USER_PASSWORD_AUTH", parameters).await
    };
    let (kept, revoked) = (sign_in(&server).await, sign_in(&server).await);
    let revoke = json!({"ClientId": "headwater", "Token": revoked["RefreshToken"]});
    let answer = ask(&server, "RevokeToken", &revoke).await;
    assert_eq!(answer.status(), StatusCode::OK);
    server.kill();

    let server = launch.start().await;
    let refresh = json!({"REFRESH_TOKEN": kept["RefreshToken"]});
    let renewed = tokens(&server, "REFRESH_TOKEN_AUTH", refresh).await;
    for (token, wanted) in [(&kept, 200), (&renewed, 200), (&revoked, 401)] {
        let whoami = reqwest::Client::new().get(format!("{}/api/v1/whoami", server.base()));
        let answer = whoami.bearer_auth(token["IdToken"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), wanted);
    }
}

async fn ask(server: &Server, action: &str, asked: &Value) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("{}/user-pool/", server.base()));
    let target = format!("AWSCognitoIdentityProviderService.{action}");
    let request = request.header("content-type", "application/x-amz-json-1.1").header("x-amz-target", target);
    request.body(asked.to_string()).send().await.unwrap()
}

/// The tokens of a sign-in.
async fn tokens(server: &Server, flow: &str, parameters: Value) -> Value {
    let asked = json!({"AuthFlow": flow, "AuthParameters": parameters, "ClientId": "headwater"});
    let mut answer: Value = ask(server, "InitiateAuth", &asked).await.json().await.unwrap();
    assert!(answer["AuthenticationResult"]["IdToken"].is_string(), "{answer}");
    answer["AuthenticationResult"].take()
}
