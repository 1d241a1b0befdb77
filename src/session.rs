//! What a signed-in request carries: the [`Session`], and the [`AuthMaterial`] that it is made of.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::{clock, secret::Secret};

/// A session whose JWT has been verified.
///
/// The layer inserts it into the extensions of every request that it forwards with a session. It cannot be constructed
/// elsewhere, so that neither a header nor the application can forge one. Clones are cheap.
///
/// ```
/// use tower_crossmint_auth::Session;
///
/// fn greet(request: &http::Request<()>) -> String {
///     match request.extensions().get::<Session>() {
///         Some(session) => format!("Hello, {}", session.user_id()),
///         None => "Hello, guest".to_owned(),
///     }
/// }
/// # assert_eq!(greet(&http::Request::new(())), "Hello, guest");
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

/// A session that is dropped, and its tokens wiped, if nothing else holds it.
pub(crate) struct WeakSession(Weak<Inner>);

struct Inner {
    verified: Verified,
    tokens: Tokens,
    is_refreshed: bool,
}

/// What a session is made of.
#[derive(Clone)]
pub(crate) enum Tokens {
    Pair(AuthMaterial),
    /// Presented as a bearer token, without a refresh token.
    Bearer(Secret),
}

impl From<AuthMaterial> for Tokens {
    fn from(material: AuthMaterial) -> Self {
        // Only refreshed sessions have a user: the cache holds thousands of the others.
        Self::Pair(AuthMaterial { user: None, ..material })
    }
}

impl Session {
    /// Combines what was read from a JWT with the JWT, and with the refresh token that belongs to it, if any.
    pub(crate) fn new(verified: Verified, tokens: impl Into<Tokens>) -> Self {
        Self(Arc::new(Inner { verified, tokens: tokens.into(), is_refreshed: false }))
    }

    /// Combines a verified JWT with everything else that a refresh has returned.
    pub(crate) fn refreshed(verified: Verified, material: AuthMaterial) -> Self {
        Self(Arc::new(Inner { verified, tokens: Tokens::Pair(material), is_refreshed: true }))
    }

    /// Returns the user's ID, which is the JWT's `sub` claim.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.0.verified.user_id
    }

    /// Returns the JWT, for calls to Crossmint's API on behalf of the user.
    #[must_use]
    pub fn jwt(&self) -> &str {
        self.jwt_secret()
    }

    /// Returns the refresh token that belongs to the JWT.
    ///
    /// `None` if the JWT was presented without one, as a [bearer token](crate::Bearer). A token from a cookie has no
    /// expiry date, because browsers do not send it.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&RefreshToken> {
        self.material().map(AuthMaterial::refresh_token)
    }

    /// Returns the time at which the JWT expires.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.exp())
    }

    /// Waits until the JWT has expired: the time to close a WebSocket or another stream of this session.
    ///
    /// The future does not borrow the session. The time that is left is determined at its first poll, and measured with
    /// tokio's clock. [`docs::streams`](crate::docs::streams) has examples.
    ///
    /// # Panics
    ///
    /// The future panics outside of a tokio runtime with time enabled, as [`tokio::time::sleep`] does.
    pub fn expired(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let expires_at = self.expires_at();
        async move {
            if let Ok(remaining) = expires_at.duration_since(clock::now()) {
                sleep(remaining).await;
            }
        }
    }

    /// Returns all claims of the JWT.
    ///
    /// They are decoded at each call, to keep sessions small in the cache.
    #[must_use]
    pub fn claims(&self) -> Map<String, Value> {
        self.claims_as().unwrap_or_default()
    }

    /// Deserializes the claims of the JWT.
    ///
    /// # Errors
    ///
    /// Returns an error if the claims do not match `T`.
    pub fn claims_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        decode_claims(self.jwt())
    }

    /// Returns whether this session comes from a refresh, so that the response has to set new cookies.
    ///
    /// That is so for the request that started the refresh, for those that joined it, and for those that carry the
    /// rotated token during its grace period.
    ///
    /// The layer sets them itself. After [`get_session`](crate::CrossmintAuth::get_session), pass the
    /// [`material`](Self::material) to [`store_auth_material`](crate::CrossmintAuth::store_auth_material).
    #[must_use]
    pub fn is_refreshed(&self) -> bool {
        self.0.is_refreshed
    }

    /// Returns the JWT and the refresh token. `None` if there is no [refresh token](Self::refresh_token).
    #[must_use]
    pub fn material(&self) -> Option<&AuthMaterial> {
        match &self.0.tokens {
            Tokens::Pair(material) => Some(material),
            Tokens::Bearer(_) => None,
        }
    }

    pub(crate) fn downgrade(&self) -> WeakSession {
        WeakSession(Arc::downgrade(&self.0))
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn jwt_secret(&self) -> &Secret {
        match &self.0.tokens {
            Tokens::Pair(AuthMaterial { jwt, .. }) | Tokens::Bearer(jwt) => jwt,
        }
    }

    pub(crate) fn verified(&self) -> &Verified {
        &self.0.verified
    }

    /// Returns the JWT's `exp` in seconds since the epoch.
    pub(crate) fn exp(&self) -> u64 {
        self.0.verified.expires_at
    }

    /// Returns which key set the JWT was verified with.
    pub(crate) fn generation(&self) -> u64 {
        self.0.verified.generation
    }

    /// Returns the approximate size of this session in bytes.
    pub(crate) fn cost(&self) -> usize {
        let token =
            self.refresh_token().map_or(["", ""], |token| [token.secret(), token.expires_at().unwrap_or_default()]);
        let texts = [self.jwt(), self.user_id()].into_iter().chain(token);
        size_of::<Inner>() + texts.map(str::len).sum::<usize>()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("user_id", &self.user_id()).field("exp", &self.exp()).finish_non_exhaustive()
    }
}

impl WeakSession {
    pub(crate) fn upgrade(&self) -> Option<Session> {
        self.0.upgrade().map(Session)
    }
}

/// Decodes the claims of a JWT that has been verified.
pub(crate) fn decode_claims<T: DeserializeOwned>(jwt: &str) -> Result<T, serde_json::Error> {
    let payload = jwt.split('.').nth(1).unwrap_or_default();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap_or_default())
}

/// What verification has read from a JWT.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) user_id: Box<str>,
    pub(crate) expires_at: u64,
    pub(crate) generation: u64,
}

/// A JWT that is refused although it has not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RevokedJwt {
    /// Only the JWT reveals it.
    pub(crate) digest: [u8; 16],
    /// In seconds since the epoch.
    pub(crate) expires_at: u64,
}

/// A JWT and its refresh token, as Crossmint issues them.
#[derive(Clone, Debug)]
pub struct AuthMaterial {
    jwt: Secret,
    refresh_token: RefreshToken,
    user: Option<Arc<User>>,
}

impl AuthMaterial {
    /// Pairs a JWT with its refresh token.
    ///
    /// Nothing is checked: [`get_session`](crate::CrossmintAuth::get_session) verifies the JWT, and
    /// [`store_auth_material`](crate::CrossmintAuth::store_auth_material) refuses tokens that a cookie cannot hold.
    #[must_use]
    pub fn new(jwt: impl Into<String>, refresh_token: RefreshToken) -> Self {
        Self { jwt: jwt.into().into(), refresh_token, user: None }
    }

    /// Copies both tokens into one allocation: one such pair is cached per session.
    pub(crate) fn pair(jwt: &str, refresh_secret: &str) -> Self {
        let [jwt, secret] = Secret::pair(jwt, refresh_secret);
        Self::from_parts(jwt, RefreshToken::from_parts(secret, None), None)
    }

    pub(crate) fn from_parts(jwt: Secret, refresh_token: RefreshToken, user: Option<User>) -> Self {
        Self { jwt, refresh_token, user: user.map(Arc::new) }
    }

    /// Returns the JWT.
    #[must_use]
    pub fn jwt(&self) -> &str {
        &self.jwt
    }

    /// Returns the refresh token.
    #[must_use]
    pub fn refresh_token(&self) -> &RefreshToken {
        &self.refresh_token
    }

    /// Returns the user, if the material comes from a refresh.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.user.as_deref()
    }
}

/// A refresh token. It can be used once: the answer to a refresh contains its successor.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    secret: Secret,
    expires_at: Option<Arc<str>>,
}

impl RefreshToken {
    /// Wraps a refresh token's text.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self { secret: secret.into().into(), expires_at: None }
    }

    pub(crate) fn from_parts(secret: Secret, expires_at: Option<String>) -> Self {
        Self { secret, expires_at: expires_at.map(Arc::from) }
    }

    pub(crate) fn secret_text(&self) -> &Secret {
        &self.secret
    }

    /// Returns the text of the refresh token.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Returns the expiry date as Crossmint wrote it (ISO 8601), if it is known.
    #[must_use]
    pub fn expires_at(&self) -> Option<&str> {
        self.expires_at.as_deref()
    }
}

/// A Crossmint user.
///
/// `Debug` shows the ID only: e-mail addresses and phone numbers do not belong in logs.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct User {
    /// The user's ID, which is the JWT's `sub` claim.
    pub id: String,
    /// The e-mail address, if the user signed in with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The phone number, if the user signed in with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// The Twitter account, if the user signed in with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twitter: Option<Twitter>,
    /// All other members of Crossmint's answer.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl User {
    pub(crate) fn with_id(id: &str) -> Self {
        Self { id: id.to_owned(), email: None, phone_number: None, twitter: None, other: Map::new() }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A [`User`]'s Twitter account. `Debug` shows neither the handle nor the ID.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Twitter {
    /// The handle.
    pub username: String,
    /// Twitter's ID of the account.
    pub id: String,
}

impl fmt::Debug for Twitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Twitter").finish_non_exhaustive()
    }
}
