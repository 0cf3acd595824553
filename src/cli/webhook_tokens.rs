//! `headwater webhook-tokens`: tokens for those who cannot send a header.

use clap::{Subcommand, ValueEnum};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::{Client, send};
use super::streams::Format;
use super::{Settings, output};
use crate::failure::{Exit, Failure};

const COLUMNS: [&str; 5] = ["dataset", "id", "operation", "created_at", "expires_at"];

/// Makes, lists and deletes webhook tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhookTokens {
    /// Makes a token and prints it, this once
    Create {
        /// The dataset
        dataset: String,
        /// What it is for, and nothing else
        #[arg(value_enum)]
        operation: Operation,
    },
    /// Lists tokens, without what is secret of them
    List {
        /// Those of one dataset
        #[arg(long)]
        dataset: Option<String>,
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Deletes a token: it is not taken any more
    Delete {
        /// The dataset
        dataset: String,
        /// Its id
        id: String,
    },
}

/// What a token is for.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// Get the dataset's events
    Read,
    /// Post events
    Write,
}

impl WebhookTokens {
    pub(crate) async fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        match self {
            WebhookTokens::Create { dataset, operation } => {
                let body = json!({"dataset": dataset, "operation": operation});
                let made: Value = client.call(Method::POST, "api/v1/webhook-tokens", &body).await?;
                let token = made["token"].as_str();
                output::line(token.ok_or_else(|| Failure::new(Exit::Failure, "the answer holds no token"))?)
            }
            WebhookTokens::List { dataset, format } => {
                let of_dataset = dataset.as_deref().map(|dataset| ("dataset", dataset));
                let path = "api/v1/webhook-tokens";
                let tokens = client.all(path, "webhook_tokens", of_dataset.as_slice()).await?;
                output::rows(&tokens, &COLUMNS, *format == Format::Ndjson)
            }
            WebhookTokens::Delete { dataset, id } => {
                send(client.request(Method::DELETE, &format!("api/v1/webhook-tokens/{dataset}/{id}")))
                    .await?;
                output::line(&format!("deleted {id}"))
            }
        }
    }
}
