//! The handle, with the methods of the class in Crossmint's TypeScript SDK.

use std::{fmt, sync::Arc};

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    authorize::{Authorizer, Decision, Rejection, Route, RouteRequest},
    config::{CrossmintAuthConfig, Policies},
    cookies::{ClearScope, CookieCredentials, replace_in_response},
    csrf::RequestHead,
    error::{AuthError, AuthErrorKind},
    refresh::check_token,
    session::{AuthMaterial, Session, User, decode_claims},
    stats::Stats,
    task_tracker::runtime,
};

/// The handle behind the layer, for handlers and for code without Tower.
///
/// It does what the class of the same name in `@crossmint/server-sdk` does: see [`docs::handle`](crate::docs::handle).
/// Clones are cheap. They share one key set, one cache of verified tokens and the refreshes in flight with each other
/// and with the layers made from them.
///
/// Methods that call Crossmint need a tokio runtime with time and I/O enabled. Outside of a runtime, they return
/// [`Unavailable`](AuthErrorKind::Unavailable).
///
/// ```
/// use http::HeaderMap;
/// use tower_crossmint_auth::{AuthError, AuthErrorKind, CrossmintAuth};
///
/// /// Resolves a request's cookies to a user ID. `response` gets the new cookies of a refreshed session.
/// async fn user_id(auth: &CrossmintAuth, request: &HeaderMap, response: &mut HeaderMap) -> Result<String, AuthError> {
///     match auth.get_session(request).await {
///         Ok(session) => {
///             if let (true, Some(material)) = (session.is_refreshed(), session.material()) {
///                 auth.store_auth_material(response, material)?;
///             }
///             Ok(session.user_id().to_owned())
///         }
///         Err(error) => {
///             // A request without cookies has none to clear: see `clear_auth_material`.
///             if error.kind() == AuthErrorKind::Refused {
///                 auth.clear_auth_material(response);
///             }
///             Err(error)
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct CrossmintAuth(Arc<Authorizer>);

impl CrossmintAuth {
    /// Returns the handle of a configuration. Makes no network calls: see [`warm_up`](Self::warm_up).
    ///
    /// All clones of one configuration share one handle while it is in use. A configuration that is built separately
    /// has a handle with its own caches, even for the same project: a browser session that is refreshed through both is
    /// signed out, and a warning is logged. Clone the handle, the layer or the configuration instead.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a configuration is handed over, or a clone of it")]
    pub fn new(config: CrossmintAuthConfig) -> Self {
        let authorizer = config.checked().handle.get_or_create(|handle| Authorizer::new(config.clone(), handle));
        authorizer.warn_of_duplicate();
        Self(authorizer)
    }

    /// Loads the key set, so that the first request does not have to wait for it.
    ///
    /// With the feature `redis` and `share_renewals`, it also connects to the store.
    ///
    /// Does nothing if there is a key set that can be used. Otherwise each call asks Crossmint, so that it can be
    /// retried in a loop. If the last attempt was less than a second ago, or Crossmint has asked for a pause
    /// (`Retry-After`, up to a minute), the call waits until then. Attempts that requests cause are further apart: the
    /// pauses grow to 30 s.
    ///
    /// # Errors
    ///
    /// Returns an error if the key set cannot be loaded, or if there is no connection to the store. The layer remains
    /// usable, and tries again when a request needs them.
    pub async fn warm_up(&self) -> Result<(), AuthError> {
        self.0.warm_up().await
    }

    /// Resolves credentials to a session, and refreshes it if its JWT is missing, expired or invalid.
    ///
    /// Credentials are a request's headers, an [`AuthMaterial`], or a JWT with its refresh token. If
    /// [`Session::is_refreshed`] returns true, pass the session's material to
    /// [`store_auth_material`](Self::store_auth_material).
    ///
    /// # Errors
    ///
    /// Returns an error if there is no refresh token (even if the JWT is valid), if two cookies of one name differ, if
    /// the token cannot be one of Crossmint's or Crossmint refuses it, and if Crossmint is unavailable.
    pub async fn get_session<'a>(&self, credentials: impl Into<Credentials<'a>>) -> Result<Session, AuthError> {
        self.0.session(self.read(credentials.into())).await.map_err(|failure| failure.error)
    }

    /// Resolves a JWT without a refresh token to a session, such as the one in an `Authorization` header.
    ///
    /// The session has no [refresh token](Session::refresh_token), and cannot be refreshed.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`verify_jwt`](Self::verify_jwt).
    pub async fn session_from_jwt(&self, jwt: &str) -> Result<Session, AuthError> {
        self.0.bearer_session(jwt).await.map_err(|failure| failure.error)
    }

    /// Exchanges a refresh token, or the one-time secret of a login, for new material.
    ///
    /// Concurrent calls with one token make one call to Crossmint. Later calls return the same material during the
    /// grace period ([`rotation_grace`](crate::CrossmintAuthConfigBuilder::rotation_grace)). The new JWT has been
    /// verified. Once the token has been sent, the call completes even if the returned future is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the token cannot be one of Crossmint's, if Crossmint refuses it, is unavailable, or sends an
    /// answer that cannot be used.
    pub async fn refresh(&self, secret: &str) -> Result<AuthMaterial, AuthError> {
        let token = check_token(secret.as_bytes())?;
        let refreshed = self.0.refresh(token.into()).await.map_err(|failure| failure.error)?;
        Ok(refreshed.material().clone())
    }

    /// Revokes a session at Crossmint, and refuses its JWTs here until they expire: the one that is given, and those
    /// that refreshes have issued within the grace period.
    ///
    /// JWTs remain valid until their `exp` wherever else they are verified, which includes other processes and handles
    /// with a configuration of their own, unless these share refreshes through a store: then they refuse the JWTs
    /// within a second. Clear the cookies too: [`clear_auth_material`](Self::clear_auth_material).
    ///
    /// Credentials without a refresh token, or with two different ones, are not an error, and neither is a session that
    /// Crossmint does not know (400, 401 or 404): there is nothing to revoke.
    ///
    /// # Errors
    ///
    /// Returns an error if Crossmint does not answer within
    /// [`logout_timeout`](crate::CrossmintAuthConfigBuilder::logout_timeout), or if too many logouts are in flight. The
    /// session is removed from the caches all the same. If a refresh of the session is in flight, its successor is
    /// revoked afterwards; a failure of that call is logged.
    pub async fn logout<'a>(&self, credentials: impl Into<Credentials<'a>>) -> Result<(), AuthError> {
        let mut credentials = self.read(credentials.into());
        self.0.ignore_foreign(&mut credentials);
        self.0.log_out(credentials.jwt.text(), credentials.refresh_token.text()).await
    }

    /// Revokes the session of the current request, for example after a change of password.
    ///
    /// Does the same as [`logout`](Self::logout). The refresh token of a session that was kept from an earlier request
    /// may have been rotated since, and then revokes nothing at Crossmint. A session [without a refresh
    /// token](Session::refresh_token) is only refused here: Crossmint is not called. Other sessions of the user are not
    /// affected, because Crossmint has no call that lists or ends them.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`logout`](Self::logout).
    pub async fn revoke_session(&self, session: &Session) -> Result<(), AuthError> {
        let token = session.refresh_token().map(|token| token.secret().into());
        self.0.log_out([session.jwt_secret().clone()], token).await
    }

    /// Fetches a user by ID. The API key needs the scope `users.read`.
    ///
    /// # Errors
    ///
    /// Returns [`UserUnavailable`](AuthErrorKind::UserUnavailable) if there is no such user or the key lacks the scope,
    /// and another kind if Crossmint is unavailable.
    pub async fn get_user(&self, user_id: &str) -> Result<User, AuthError> {
        runtime()?;
        self.0.upstream.user(user_id).await
    }

    /// Verifies a JWT and returns its claims.
    ///
    /// Loads the key set if it is missing, or if the JWT names an unknown key.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidToken`](AuthErrorKind::InvalidToken), with the reason as its source, if the JWT is not valid,
    /// and another kind if there is no key set and it cannot be loaded. Under
    /// [`OutagePolicy::KeepSession`](crate::OutagePolicy::KeepSession), the kind is
    /// [`Unavailable`](AuthErrorKind::Unavailable) if the JWT names a key that the key set may be too old to contain.
    pub async fn verify_jwt(&self, jwt: &str) -> Result<Map<String, Value>, AuthError> {
        self.0.verifier.ensure_keys().await?;
        self.0.verifier.verify(jwt.as_bytes(), self.policies().on_outage()).await?;
        Ok(decode_claims(jwt).unwrap_or_default())
    }

    /// Sets both cookies to `material` in a response's headers, and adds `Cache-Control: no-store`.
    ///
    /// Replaces earlier `Set-Cookie` fields of these names. The layer does not overwrite them.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidCredentials`](AuthErrorKind::InvalidCredentials) if a token has bytes that a cookie must not
    /// contain, or is too long for one. The headers are then unchanged.
    pub fn store_auth_material(&self, response: &mut HeaderMap, material: &AuthMaterial) -> Result<(), AuthError> {
        let invalid = |why| AuthError::new(AuthErrorKind::InvalidCredentials, why);
        replace_in_response(response, &self.0.cookies.store(material).map_err(invalid)?);
        Ok(())
    }

    /// Deletes both cookies in a response's headers, and adds `Cache-Control: no-store`.
    ///
    /// Replaces earlier `Set-Cookie` fields of these names.
    ///
    /// # Security
    ///
    /// Call it when the user signs out, or when the cookies of a request turned out to be invalid. Never call it for a
    /// request without cookies: another site can cause one, because browsers withhold SameSite cookies from it but
    /// accept the deletions in its response. A link on that site would sign the user out.
    pub fn clear_auth_material(&self, response: &mut HeaderMap) {
        replace_in_response(response, &self.0.cookies.clear(&ClearScope::default()));
    }

    /// Waits until no refresh, logout or reload of the key set is in flight on behalf of this handle and its layers.
    ///
    /// They outlive clients that disconnect. Await this method after the server has stopped and before the runtime
    /// ends: a runtime that is dropped during a refresh loses the only copy of a new refresh token. It takes at most
    /// the sum of the time limits of a refresh (a quarter longer), in the queue and at Crossmint, of a reload, and of a
    /// logout.
    ///
    /// ```no_run
    /// # use tower_crossmint_auth::CrossmintAuth;
    /// # async fn serve(auth: CrossmintAuth, listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
    /// let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    /// axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    /// auth.wait_idle().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_idle(&self) {
        self.0.tasks.wait().await;
    }

    /// Returns a snapshot of the counters of this handle and its layers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.0.verifier.cache_hits())
    }

    /// Returns the URL of Crossmint's key set.
    #[must_use]
    pub fn jwks_uri(&self) -> &str {
        self.0.upstream.jwks_uri()
    }

    /// Returns the policies of the configuration.
    pub(crate) fn policies(&self) -> &Policies {
        &self.0.config.checked().settings.policies
    }

    /// Returns the paths of the refresh and logout routes.
    #[cfg(feature = "axum")]
    pub(crate) fn route_paths(&self) -> [&str; 2] {
        let settings = &self.0.config.checked().settings;
        [&settings.refresh_route, &settings.logout_route]
    }

    /// Decides what happens to a request.
    pub(crate) fn authorize(&self, head: &RequestHead<'_>, policies: &Policies) -> Decision {
        self.0.authorize(head, policies)
    }

    /// Decides what happens to a request for one of the two routes.
    pub(crate) fn authorize_route(&self, route: Route, head: &RequestHead<'_>) -> Result<RouteRequest, Rejection> {
        self.0.authorize_route(route, head, self.policies())
    }

    fn read<'a>(&self, credentials: Credentials<'a>) -> CookieCredentials<'a> {
        match credentials.0 {
            Source::Headers(headers) => self.0.cookies.read(headers),
            Source::Pair { jwt, secret } => CookieCredentials::pair(jwt, secret),
        }
    }
}

impl fmt::Debug for CrossmintAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrossmintAuth").field(&self.0.config).finish()
    }
}

/// The tokens of a request or of a caller, for [`CrossmintAuth::get_session`] and [`CrossmintAuth::logout`].
///
/// ```
/// use tower_crossmint_auth::{AuthMaterial, Credentials, RefreshToken};
///
/// let headers = http::HeaderMap::new();
/// let material = AuthMaterial::new("eyJ...", RefreshToken::new("secret"));
///
/// let from_cookies = Credentials::from(&headers);
/// let from_material = Credentials::from(&material);
/// let from_tokens = Credentials::pair("eyJ...", "secret");
/// # let _ = (from_cookies, from_material, from_tokens);
/// ```
#[derive(Clone, Copy)]
pub struct Credentials<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Headers(&'a HeaderMap),
    Pair { jwt: &'a str, secret: &'a str },
}

impl<'a> Credentials<'a> {
    /// Pairs a JWT with its refresh token. An empty string means that there is none.
    #[must_use]
    pub fn pair(jwt: &'a str, refresh_secret: &'a str) -> Self {
        Self(Source::Pair { jwt, secret: refresh_secret })
    }
}

impl<'a> From<&'a HeaderMap> for Credentials<'a> {
    /// Takes the cookies from a request's headers.
    fn from(headers: &'a HeaderMap) -> Self {
        Self(Source::Headers(headers))
    }
}

impl<'a> From<&'a AuthMaterial> for Credentials<'a> {
    fn from(material: &'a AuthMaterial) -> Self {
        Self::pair(material.jwt(), material.refresh_token().secret())
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}
