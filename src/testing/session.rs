//! Sessions as a browser stores them.

use std::fmt;

use serde_json::Value;

use super::{api::Api, jwt::JwtTemplate};

/// A user's session: a JWT and an unused refresh token.
///
/// Its `Debug` output redacts both.
#[derive(Clone)]
pub struct MockSession {
    project_id: String,
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
        let Self { project_id, jwt, refresh_token, .. } = self;
        format!("crossmint-jwt-{project_id}={jwt}; crossmint-refresh-token-{project_id}={refresh_token}")
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

/// Builds a session whose JWT differs from that of [`MockCrossmint::sign_in`](crate::testing::MockCrossmint::sign_in).
///
/// The options apply to this JWT only. For those that the refresh endpoint issues later, see
/// [`set_refreshed_jwt_lifetime`](crate::testing::MockCrossmint::set_refreshed_jwt_lifetime) and
/// [`set_refreshed_claim`](crate::testing::MockCrossmint::set_refreshed_claim).
#[derive(Debug)]
#[must_use = "create() makes the session"]
pub struct SessionBuilder<'a> {
    api: &'a Api,
    user_id: String,
    template: JwtTemplate,
}

impl<'a> SessionBuilder<'a> {
    pub(crate) fn new(api: &'a Api, user_id: &str) -> Self {
        Self { api, user_id: user_id.to_owned(), template: JwtTemplate::default() }
    }

    /// Sets the number of seconds from now to the JWT's `exp`; a negative number makes an expired JWT.
    ///
    /// One hour by default.
    pub fn jwt_lifetime(mut self, seconds: i64) -> Self {
        self.template.lifetime = seconds;
        self
    }

    /// Sets the JWT's `aud`, a string or an array.
    ///
    /// The project ID by default. Set another one to simulate a token that was issued for another project.
    pub fn audience(self, audience: impl Into<Value>) -> Self {
        self.claim("aud", audience)
    }

    /// Sets the JWT's `iss`.
    ///
    /// [`MockCrossmint::issuer`](crate::testing::MockCrossmint::issuer) by default.
    pub fn issuer(self, issuer: impl Into<Value>) -> Self {
        self.claim("iss", issuer)
    }

    /// Sets any claim of the JWT, including those that the mock sets by default; `null` removes the claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.template.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Signs the user in.
    #[must_use]
    pub fn create(self) -> MockSession {
        let refresh_token = self.api.open_session(&self.user_id);
        let jwt = self.api.mint(&self.user_id, &self.template);
        MockSession { project_id: self.api.project_id().to_owned(), user_id: self.user_id, jwt, refresh_token }
    }
}
