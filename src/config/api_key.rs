//! Crossmint's API keys: `<origin>_<environment>_<payload>`, checked without a network call.

use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use crate::{error::ConfigError, secret::Secret};

/// A Crossmint API key, parsed and checked without a network call.
///
/// The payload of a key names its project and is signed by Crossmint, so that a mistyped key is detected at start-up.
/// The project's ID is the audience of its JWTs and part of the cookies' names.
///
/// ```
/// use tower_crossmint_auth::{ApiKey, Environment};
///
/// let error = "sk_production_oops".parse::<ApiKey>().unwrap_err();
/// assert_eq!(error.option(), "api_key");
///
/// let key = ApiKey::unverified("my-project", Environment::Development);
/// assert_eq!(key.project_id(), "my-project");
/// ```
#[derive(Clone, Debug)]
pub struct ApiKey {
    secret: Secret,
    origin: KeyOrigin,
    environment: Environment,
    project_id: Box<str>,
}

impl ApiKey {
    /// Creates a key for tests and mocks, without a valid signature. Crossmint does not accept it.
    #[must_use]
    pub fn unverified(project_id: &str, environment: Environment) -> Self {
        let secret = format!("sk_{}_unverified-{project_id}", environment.name()).into();
        Self { secret, origin: KeyOrigin::Server, environment, project_id: project_id.into() }
    }

    /// Returns whether the key is a server key or a client key.
    #[must_use]
    pub fn origin(&self) -> KeyOrigin {
        self.origin
    }

    /// Returns the environment of the key.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment
    }

    /// Returns the ID of the key's project.
    #[must_use]
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    /// Returns the text of the key, which is sent in the header `x-api-key`.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }
}

impl FromStr for ApiKey {
    type Err = ConfigError;

    fn from_str(key: &str) -> Result<Self, ConfigError> {
        parse(key).map_err(|why| ConfigError::new("api_key", why))
    }
}

/// An [`ApiKey`], or a string that contains one, for
/// [`CrossmintAuthConfig::builder`](crate::CrossmintAuthConfig::builder).
///
/// This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an API key",
    label = "expected a `&str`, a `String` or an `ApiKey`"
)]
pub trait IntoApiKey: sealed::Sealed {}

impl IntoApiKey for ApiKey {}
impl IntoApiKey for &str {}
impl IntoApiKey for String {}

mod sealed {
    use super::{ApiKey, ConfigError};

    #[expect(unnameable_types, reason = "a trait is sealed by a supertrait that cannot be named")]
    pub trait Sealed {
        fn into_api_key(self) -> Result<ApiKey, ConfigError>;
    }

    impl Sealed for ApiKey {
        fn into_api_key(self) -> Result<ApiKey, ConfigError> {
            Ok(self)
        }
    }

    impl<T: AsRef<str>> Sealed for T {
        fn into_api_key(self) -> Result<ApiKey, ConfigError> {
            self.as_ref().parse()
        }
    }
}

/// The kind of an [`ApiKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyOrigin {
    /// `sk`: a server key, which this crate should be given.
    Server,
    /// `ck`: a client key, for browsers. It is accepted with a warning, as in Crossmint's SDK; some calls need a server
    /// key.
    Client,
}

/// A Crossmint environment, which determines the base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment {
    /// `http://localhost:3000`, a local Crossmint. An application on that port needs another port, or a
    /// [`base_url`](crate::CrossmintAuthConfigBuilder::base_url).
    Development,
    /// `https://staging.crossmint.com`.
    Staging,
    /// `https://www.crossmint.com`.
    Production,
}

impl Environment {
    fn from_name(name: &str) -> Option<Self> {
        [Self::Development, Self::Staging, Self::Production].into_iter().find(|environment| environment.name() == name)
    }

    /// Returns the environment that a host of Crossmint's belongs to.
    pub(crate) fn of_host(host: &str) -> Option<Self> {
        match host {
            "www.crossmint.com" | "crossmint.com" => Some(Self::Production),
            "staging.crossmint.com" => Some(Self::Staging),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    pub(crate) fn base_url(self) -> &'static str {
        match self {
            Self::Development => "http://localhost:3000",
            Self::Staging => "https://staging.crossmint.com",
            Self::Production => "https://www.crossmint.com",
        }
    }
}

fn parse(key: &str) -> Result<ApiKey, &'static str> {
    if key.is_empty() {
        return Err("it is empty: copy a server key (`sk_...`) from the Crossmint console");
    }
    if key.starts_with(['"', '\'', '`']) {
        return Err("it is in quotes, which are not part of the key: leave them out");
    }
    if key.contains(char::is_whitespace) {
        return Err("it has white space or a line break in it, perhaps at the end of a file: remove it");
    }
    if key.len() > MAX_LENGTH || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it is too long or has characters that no key has: copy it again from the console");
    }
    if key.starts_with("sk_live") || key.starts_with("sk_test") {
        return Err("it has the old format (`sk_live...` or `sk_test...`): create a new key in the Crossmint console");
    }
    let mut parts = key.splitn(3, '_');
    let prefix = parts.next().unwrap_or_default();
    let origin = match prefix {
        "sk" => KeyOrigin::Server,
        "ck" => KeyOrigin::Client,
        _ => return Err("it does not begin with `sk_` (a server key) or `ck_` (a client key)"),
    };
    let environment = parts
        .next()
        .and_then(Environment::from_name)
        .ok_or("its environment is unknown: after `sk_` or `ck_` comes `development_`, `staging_` or `production_`")?;
    let payload = parts.next().and_then(|payload| bs58::decode(payload).into_vec().ok());
    let payload = payload.ok_or("the part after the environment is not base58: the key was not copied whole")?;
    let (project_id, message, signature) =
        split_payload(&payload).ok_or("it names no project and signature: the key was not copied whole")?;
    let signed = format!("{prefix}_{}.{message}", environment.name());
    // As in the SDK, the key of either environment may verify it.
    let is_genuine = SIGNING_KEYS
        .iter()
        .filter_map(|key| bs58::decode(key).into_vec().ok())
        .any(|key| UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature).is_ok());
    if !is_genuine {
        return Err("its signature does not verify: the key was changed, or is not Crossmint's");
    }
    Ok(ApiKey { secret: key.into(), origin, environment, project_id: project_id.into() })
}

/// Splits `<projectId>.<random>:<signature>` into the project's ID, the part that is signed, and the signature.
fn split_payload(payload: &[u8]) -> Option<(&str, &str, Vec<u8>)> {
    let (message, signature) = std::str::from_utf8(payload).ok()?.rsplit_once(':')?;
    let (project_id, _) = message.split_once('.').filter(|(project_id, _)| !project_id.is_empty())?;
    Some((project_id, message, bs58::decode(signature).into_vec().ok()?))
}

/// Production's key, then that of staging and development: Ed25519 (RFC 8032) in base58, as the SDK has them.
const SIGNING_KEYS: [&str; 2] =
    ["8erZh8YApGck3iUSUHqATBxqMTM1Ukp9mHmvGgUWHtkK", "3hSfN4dWSwgCg1uf2yytBtK6KxK3ySFKasd2h9J2vSK5"];

/// Several times the length of a real key: decoding base58 is quadratic.
const MAX_LENGTH: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A client key that Crossmint has published in its SDK's own tests.
    const GENUINE: &str = "ck_development_A61UZQnvjSQcM5qVBaBactgqebxafWAVsNdD2xLkgBxoYuH5q2guM8r9DUmZQzE1WYyoByGVYpEG2o9gVSzAZFsrLbfKGERUJ6D5CW6S9AsJGAc3ctgrsD4n2ioekzGj7KPbLwT3SysDjMamYXLxEroUbQSdwf6aLF4zeEpECq2crkTUQeLFzxzmjWNxFDHFYefDrfrFPCURvBXJLf5pCxCQ";

    #[test]
    fn a_genuine_key_is_parsed() {
        let key: ApiKey = GENUINE.parse().unwrap();
        assert_eq!(key.origin(), KeyOrigin::Client);
        assert_eq!(key.environment(), Environment::Development);
        assert_eq!(key.project_id(), "dfb06708-a46f-4615-bd34-f614ae284e7b");
        assert_eq!(key.expose(), GENUINE);
    }

    #[test]
    fn each_fault_has_its_own_message() {
        let payload = &GENUINE["ck_development_".len()..];
        let cases = [
            ("empty", String::new(), "is empty"),
            ("old format", "sk_live_abc".into(), "old format"),
            ("old format without an underscore", "sk_testabc".into(), "old format"),
            ("wrong origin", format!("pk_development_{payload}"), "does not begin with `sk_`"),
            ("unknown environment", format!("sk_prod_{payload}"), "environment is unknown"),
            ("no environment", "sk".into(), "environment is unknown"),
            ("no payload", "sk_staging".into(), "not base58"),
            ("not base58", "sk_staging_0OIl".into(), "not base58"),
            ("cut off", format!("ck_development_{}", &payload[..100]), "not copied whole"),
            ("bad signature: another environment", format!("ck_staging_{payload}"), "does not verify"),
            ("bad signature: another origin", format!("sk_development_{payload}"), "does not verify"),
            ("line break", format!("{GENUINE}\n"), "line break"),
            ("space", format!(" {GENUINE}"), "white space"),
            ("quotes", format!("\"{GENUINE}\""), "in quotes"),
            ("not ASCII", "sk_staging_\u{e9}".into(), "no key has"),
            ("endless", "sk_staging_".to_owned() + &"1".repeat(1 << 20), "no key has"),
        ];
        for (name, key, expected) in cases {
            let message = key.parse::<ApiKey>().unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
            assert!(!message.contains(&payload[..8]), "{name} shows the key");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let key: ApiKey = GENUINE.parse().unwrap();
        assert!(!format!("{key:?}{key:#?}").contains(&GENUINE[15..40]));
    }
}
