//! `headwater users`: who may hold credentials.

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, send};
use super::streams::Format;
use super::{Settings, output, password};
use crate::failure::Failure;

const COLUMNS: [&str; 5] = ["name", "administrator", "disabled", "password", "created_at"];

/// Makes, lists, shows, changes and deletes users.
#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Makes a user, which may do nothing yet
    Create {
        /// Letters, digits and . _ @ : + -
        name: String,
        /// Lets it do everything
        #[arg(long)]
        administrator: bool,
    },
    /// Lists all users
    List {
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Prints a user as JSON
    Show {
        /// The user
        name: String,
    },
    /// Changes a user; what is not named stays as it is
    Change {
        /// The user
        name: String,
        /// Whether it may do everything
        #[arg(long, value_name = "BOOL")]
        administrator: Option<bool>,
        /// Whether none of its credentials is taken
        #[arg(long, value_name = "BOOL")]
        disabled: Option<bool>,
    },
    /// Gives a user a password, read from the terminal or from standard input
    SetPassword {
        /// The user
        name: String,
        /// Asks for the one that it has now, too, which whoever is no administrator has to know
        #[arg(long)]
        current: bool,
    },
    /// Deletes a user, with its keys and grants
    Delete {
        /// The user
        name: String,
    },
}

impl Users {
    pub(crate) async fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        match self {
            Users::Create { name, administrator } => {
                let body = json!({"name": name, "administrator": administrator});
                output::json(&client.call::<Value>(Method::POST, "api/v1/users", &body).await?)
            }
            Users::List { format } => {
                let users = client.all("api/v1/users", "users", &[]).await?;
                output::rows(&users, &COLUMNS, *format == Format::Ndjson)
            }
            Users::Show { name } => output::json(&client.get::<Value>(&path(name), &()).await?),
            Users::Change { name, administrator, disabled } => {
                let mut body = Map::new();
                let fields = [("administrator", administrator), ("disabled", disabled)];
                for (field, value) in fields {
                    body.extend(value.map(|value| (field.to_owned(), value.into())));
                }
                output::json(&client.call::<Value>(Method::PATCH, &path(name), &body).await?)
            }
            Users::SetPassword { name, current } => {
                let now = current.then(|| password::read("current password")).transpose()?;
                let new = password::read("new password")?;
                let mut body = json!({"password": new.expose()});
                if let Some(now) = now {
                    body["current"] = now.expose().into();
                }
                send(client.request(Method::PUT, &format!("{}/password", path(name))).json(&body)).await?;
                output::line(&format!("{name} has a new password"))
            }
            Users::Delete { name } => {
                send(client.request(Method::DELETE, &path(name))).await?;
                output::line(&format!("deleted {name}"))
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("api/v1/users/{name}")
}
