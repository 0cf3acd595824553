//! `headwater login`: an access token for a password.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::{Settings, output, password};
use crate::failure::{Exit, Failure};

/// Prints an access token for who knows a user's password.
#[derive(Args, Debug)]
pub(crate) struct Login {
    /// The user; its password is read from the terminal or from standard input
    name: String,
}

impl Login {
    pub(crate) async fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        let password = password::read("password")?;
        let body = json!({"username": self.name, "password": password.expose()});
        let answer: Value = client.call(Method::POST, "api/v1/token", &body).await?;
        let token = answer["access_token"].as_str();
        let missing = || Failure::new(Exit::Failure, "the server's answer holds no token");
        output::line(token.ok_or_else(missing)?)
    }
}
