//! Sessions as a browser holds them, and the JWTs in them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{ISSUER, MockCrossmint, PROJECT_ID};

/// A user's session: a JWT, and a refresh token that was not used yet.
///
/// Its `Debug` output shows neither.
#[derive(Clone)]
pub struct MockSession {
    user_id: String,
    jwt: String,
    refresh_token: String,
}

impl MockSession {
    /// Returns the user's ID, the JWT's `sub`.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Returns the JWT.
    #[must_use]
    pub fn jwt(&self) -> &str {
        &self.jwt
    }

    /// Returns the refresh secret.
    #[must_use]
    pub fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    /// Returns a `Cookie` header with both cookies under their scoped names, `crossmint-jwt-<project ID>` and
    /// `crossmint-refresh-token-<project ID>`.
    #[must_use]
    pub fn cookie_header(&self) -> String {
        let Self { jwt, refresh_token, .. } = self;
        format!("crossmint-jwt-{PROJECT_ID}={jwt}; crossmint-refresh-token-{PROJECT_ID}={refresh_token}")
    }

    /// Returns a `Cookie` header with both cookies under their unscoped names, which older Crossmint SDKs write.
    #[must_use]
    pub fn legacy_cookie_header(&self) -> String {
        let Self { jwt, refresh_token, .. } = self;
        format!("crossmint-jwt={jwt}; crossmint-refresh-token={refresh_token}")
    }
}

impl fmt::Debug for MockSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockSession")
            .field("user_id", &self.user_id)
            .field("jwt", &"***")
            .field("refresh_token", &"***")
            .finish()
    }
}

/// Makes a session whose JWT differs from what [`MockCrossmint::sign_in`] gives.
///
/// Its options shape this one JWT; those that the refresh endpoint hands out later are shaped by
/// [`MockCrossmint::set_renewed_jwt_lifetime`] and [`MockCrossmint::set_renewed_claim`].
#[derive(Debug)]
#[must_use = "create() makes the session"]
pub struct SessionBuilder<'a> {
    mock: &'a MockCrossmint,
    user_id: String,
    shape: JwtShape,
}

impl<'a> SessionBuilder<'a> {
    pub(super) fn new(mock: &'a MockCrossmint, user_id: &str) -> Self {
        Self { mock, user_id: user_id.to_owned(), shape: JwtShape::default() }
    }

    /// Sets the seconds from now to the JWT's `exp`; below zero it has expired already.
    ///
    /// One hour by default.
    pub fn jwt_lifetime(mut self, seconds: i64) -> Self {
        self.shape.lifetime = seconds;
        self
    }

    /// Sets the JWT's `aud`, a string or an array.
    ///
    /// The project ID by default. Set another one to play a token of another project under the same keys.
    pub fn audience(self, audience: impl Into<Value>) -> Self {
        self.claim("aud", audience)
    }

    /// Sets the JWT's `iss`.
    ///
    /// [`MockCrossmint::issuer`] by default.
    pub fn issuer(self, issuer: impl Into<Value>) -> Self {
        self.claim("iss", issuer)
    }

    /// Sets any claim of the JWT, also one that the mock would set itself; `null` leaves the claim out.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.shape.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Signs the user in.
    #[must_use]
    pub fn create(self) -> MockSession {
        let api = self.mock.api();
        let refresh_token = api.open_session(&self.user_id);
        let jwt = api.mint(&self.user_id, &self.shape);
        MockSession { user_id: self.user_id, jwt, refresh_token }
    }
}

/// What a minted JWT is to say besides its user's ID.
#[derive(Clone, Debug)]
pub(super) struct JwtShape {
    pub(super) lifetime: i64,
    /// Take the place of the mock's own; `null` leaves a claim out.
    pub(super) claims: Map<String, Value>,
}

impl Default for JwtShape {
    fn default() -> Self {
        Self { lifetime: 3600, claims: Map::new() }
    }
}

impl JwtShape {
    pub(super) fn claims_for(&self, user_id: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
        let expiry = now.saturating_add(self.lifetime);
        let mut claims = Map::from_iter([
            ("iss".to_owned(), json!(ISSUER)),
            ("sub".to_owned(), json!(user_id)),
            ("aud".to_owned(), json!(PROJECT_ID)),
            ("iat".to_owned(), json!(now.min(expiry))),
            ("exp".to_owned(), json!(expiry)),
            // Two JWTs of one user and one second would else be the same bytes.
            ("jti".to_owned(), json!(NEXT_ID.fetch_add(1, Ordering::Relaxed).to_string())),
        ]);
        claims.extend(self.claims.clone());
        claims.retain(|_, value| !value.is_null());
        Value::Object(claims)
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
