//! `headwater grants`: who may do what with a dataset.

use broker::Permission;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, send};
use super::streams::Format;
use super::{Settings, output};
use crate::failure::Failure;

const COLUMNS: [&str; 4] = ["dataset", "principal", "owner", "permissions"];

/// Sets, lists and takes away grants.
#[derive(Debug, Subcommand)]
pub(crate) enum Grants {
    /// Says what a user may do with a dataset, instead of what it might before
    Set {
        /// The dataset, or * for every one
        dataset: String,
        /// The user
        user: String,
        /// read, write, update or admin
        #[arg(value_name = "PERMISSION", value_parser = permission)]
        permissions: Vec<Permission>,
        /// Makes it an owner, which may do everything with the dataset
        #[arg(long)]
        owner: bool,
    },
    /// Lists grants
    List {
        /// Those on one dataset
        #[arg(long)]
        dataset: Option<String>,
        /// Those of one user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Takes away what a user may do with a dataset
    Delete {
        /// The dataset, or *
        dataset: String,
        /// The user
        user: String,
    },
}

impl Grants {
    pub(crate) async fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        match self {
            Grants::Set { dataset, user, permissions, owner } => {
                let body = json!({"owner": owner, "permissions": permissions});
                output::json(&client.call::<Value>(Method::PUT, &path(dataset, user), &body).await?)
            }
            Grants::List { dataset, user, format } => {
                let dataset = dataset.as_deref().map(|dataset| ("dataset", dataset));
                let user = user.as_deref().map(|user| ("principal", user));
                let asked: Vec<_> = dataset.into_iter().chain(user).collect();
                let grants = client.all("api/v1/grants", "grants", &asked).await?;
                output::rows(&grants, &COLUMNS, *format == Format::Ndjson)
            }
            Grants::Delete { dataset, user } => {
                send(client.request(Method::DELETE, &path(dataset, user))).await?;
                output::line(&format!("{user} has no grant on {dataset} any more"))
            }
        }
    }
}

fn path(dataset: &str, user: &str) -> String {
    format!("api/v1/grants/{dataset}/{user}")
}

fn permission(text: &str) -> Result<Permission, String> {
    let found = Permission::ALL.into_iter().find(|permission| permission.name() == text);
    found.ok_or_else(|| "expected read, write, update or admin".to_owned())
}
