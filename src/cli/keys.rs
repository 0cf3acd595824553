//! `headwater keys`: API keys.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, send};
use super::streams::Format;
use super::{Settings, output};
use crate::config::values::Span;
use crate::failure::{Exit, Failure};

const COLUMNS: [&str; 6] = ["id", "user", "label", "hawk", "created_at", "expires_at"];

/// Makes, lists and deletes API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Makes a key and prints it, this once
    Create {
        /// Whose key it is [default: whoever asks]
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// How long it is taken, such as `90 d` [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = span)]
        expires_in: Option<Span>,
        /// Lets requests be signed with it (Hawk): of hwk.ID.SECRET, ID is the id and SECRET the key
        #[arg(long)]
        hawk: bool,
        /// Prints all that is known of it as JSON instead of the key alone
        #[arg(long)]
        json: bool,
    },
    /// Lists keys, without what is secret of them
    List {
        /// Those of one user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Deletes a key: it is not taken any more
    Delete {
        /// The part of the key between its two dots
        id: String,
    },
}

impl Keys {
    pub(crate) async fn run(&self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        match self {
            Keys::Create { user, label, expires_in, hawk, json: is_json } => {
                let seconds = expires_in.map(|life| life.0.as_secs());
                let body = json!({"user": user, "label": label, "expires_in_seconds": seconds, "hawk": hawk});
                let made: Value = client.call(Method::POST, "api/v1/keys", &body).await?;
                if *is_json {
                    return output::json(&made);
                }
                let key = made["key"].as_str();
                output::line(key.ok_or_else(|| Failure::new(Exit::Failure, "the answer holds no key"))?)
            }
            Keys::List { user, format } => {
                let of_user = user.as_deref().map(|user| ("user", user));
                let keys = client.all("api/v1/keys", "keys", of_user.as_slice()).await?;
                output::rows(&keys, &COLUMNS, *format == Format::Ndjson)
            }
            Keys::Delete { id } => {
                send(client.request(Method::DELETE, &format!("api/v1/keys/{id}"))).await?;
                output::line(&format!("deleted {id}"))
            }
        }
    }
}

fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|()| "expected a time such as `90 d`".to_owned())
}
