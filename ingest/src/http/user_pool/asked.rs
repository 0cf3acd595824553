//! What actions are asked for with. Fields that are not known are passed over: clients send some that mean nothing
//! here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::refused::Refused;

/// Attributes of a user that a pool has.
const ATTRIBUTES: [&str; 19] = [
    "address",
    "birthdate",
    "email",
    "email_verified",
    "family_name",
    "gender",
    "given_name",
    "locale",
    "middle_name",
    "name",
    "nickname",
    "phone_number",
    "phone_number_verified",
    "picture",
    "preferred_username",
    "profile",
    "updated_at",
    "website",
    "zoneinfo",
];
/// Attributes that say what was checked: not for users themselves to set.
const CHECKED: [&str; 2] = ["email_verified", "phone_number_verified"];
/// Others begin with this.
const CUSTOM: &str = "custom:";
/// The most attributes of a user.
const ATTRIBUTES_MAX: usize = 50;
/// The longest name of one behind `custom:`, in characters.
const CUSTOM_CHARACTERS_MAX: usize = 20;
/// The longest value, in characters.
const VALUE_CHARACTERS_MAX: usize = 2_048;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InitiateAuth {
    pub(super) auth_flow: String,
    #[serde(default)]
    pub(super) auth_parameters: BTreeMap<String, String>,
    pub(super) client_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Respond {
    pub(super) challenge_name: String,
    #[serde(default)]
    pub(super) challenge_responses: BTreeMap<String, String>,
    pub(super) client_id: String,
    pub(super) session: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SignUp {
    pub(super) client_id: String,
    pub(super) secret_hash: Option<String>,
    pub(super) username: String,
    pub(super) password: String,
    #[serde(default)]
    pub(super) user_attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ConfirmSignUp {
    pub(super) client_id: String,
    pub(super) secret_hash: Option<String>,
    pub(super) username: String,
    pub(super) confirmation_code: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ResendCode {
    pub(super) client_id: String,
    pub(super) secret_hash: Option<String>,
    pub(super) username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Revoke {
    pub(super) client_id: String,
    pub(super) client_secret: Option<String>,
    pub(super) token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateUser {
    pub(super) user_pool_id: String,
    pub(super) username: String,
    pub(super) temporary_password: Option<String>,
    #[serde(default)]
    pub(super) user_attributes: Vec<Attribute>,
    pub(super) message_action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SetPassword {
    pub(super) user_pool_id: String,
    pub(super) username: String,
    pub(super) password: String,
    #[serde(default)]
    pub(super) permanent: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Attribute {
    name: String,
    #[serde(default)]
    value: String,
}

/// Reads the body of an action.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        if !error.is_data() {
            return Refused::new("SerializationException", format!("this is no JSON: {error}"));
        }
        let name = if path == "." { "the request".to_owned() } else { path };
        Refused::parameter(&name, error)
    })?;
    json.end()
        .map_err(|error| Refused::new("SerializationException", format!("this is no JSON: {error}")))?;
    Ok(read)
}

/// A parameter of a flow or of a challenge.
pub(super) fn parameter<'p>(
    parameters: &'p BTreeMap<String, String>,
    name: &str,
) -> Result<&'p str, Refused> {
    let value = parameters.get(name).map(String::as_str);
    value.ok_or_else(|| {
        Refused::new("InvalidParameterException", format!("Missing required parameter {name}"))
    })
}

/// Checks attributes; `is_own` where a user sets them itself. Of two of one name the later counts.
pub(super) fn attributes(given: Vec<Attribute>, is_own: bool) -> Result<BTreeMap<String, String>, Refused> {
    let mut attributes = BTreeMap::new();
    for Attribute { name, value } in given {
        if is_own && CHECKED.contains(&name.as_str()) {
            let message = format!("A client attempted to write unauthorized attribute {name}");
            return Err(Refused::new("NotAuthorizedException", message));
        }
        let custom = name.strip_prefix(CUSTOM).map(|name| name.chars().count());
        let is_custom = custom.is_some_and(|length| (1..=CUSTOM_CHARACTERS_MAX).contains(&length));
        if !is_custom && !ATTRIBUTES.contains(&name.as_str()) {
            let message = format!(
                "a user has no attribute {name:?}; others are {CUSTOM}NAME, with up to {CUSTOM_CHARACTERS_MAX} characters"
            );
            return Err(Refused::parameter("UserAttributes", message));
        }
        if value.chars().count() > VALUE_CHARACTERS_MAX {
            let message = format!("{name} has at most {VALUE_CHARACTERS_MAX} characters");
            return Err(Refused::parameter("UserAttributes", message));
        }
        if CHECKED.contains(&name.as_str()) && !["true", "false"].contains(&value.as_str()) {
            return Err(Refused::parameter("UserAttributes", format!("{name} is \"true\" or \"false\"")));
        }
        attributes.insert(name, value);
    }
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(Refused::parameter("UserAttributes", format!("there are at most {ATTRIBUTES_MAX}")));
    }
    Ok(attributes)
}

impl Attribute {
    /// An attribute as it stands among the responses to a challenge.
    pub(super) fn of_response((name, value): (&String, &String)) -> Option<Self> {
        let name = name.strip_prefix("userAttributes.")?;
        Some(Self { name: name.to_owned(), value: value.clone() })
    }
}
