//! The handle: everything that the class of Crossmint's TypeScript SDK does.

use std::{fmt, sync::Arc};

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    authorize::{Authorizer, Decision},
    config::CrossmintAuthConfig,
    cookies::{ClearScope, CookieCredentials, replace_in_response},
    csrf::RequestHead,
    error::{AuthError, AuthErrorKind},
    refresh::check_token,
    session::{AuthMaterial, Session, User, decode_claims},
    stats::Stats,
    task_tracker::runtime,
};

/// Crossmint sessions for handlers, and for code without tower.
///
/// It offers what the class of the same name in `@crossmint/server-sdk` does. All clones, and the layers made from
/// them, share one key set, one cache of verified tokens and one view of the renewals under way. Methods that talk to
/// Crossmint need a tokio runtime.
///
/// ```
/// use http::HeaderMap;
/// use tower_crossmint_auth::{AuthError, AuthErrorKind, CrossmintAuth};
///
/// /// Signs in whoever sent these headers; `response` gets new cookies, or loses the dead ones.
/// async fn user_id(auth: &CrossmintAuth, request: &HeaderMap, response: &mut HeaderMap) -> Result<String, AuthError> {
///     match auth.get_session(request).await {
///         Ok(session) => {
///             if session.is_refreshed() {
///                 auth.store_auth_material(response, material)?;
///             }
///             Ok(session.user_id().to_owned())
///         }
///         Err(error) => {
///             // Without cookies, there are none to delete: see `clear_auth_material`.
///             if error.kind() != AuthErrorKind::MissingCredentials {
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
    /// All clones of one configuration share one handle while it is in use. A configuration that is built separately has a
    /// handle with caches of its own, even for the same project: a browser session that is refreshed through two of them is
    /// signed out, and a warning is logged for the second one. Clone the handle, the layer or the configuration instead.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a configuration is handed over, or a clone of it")]
    pub fn new(config: CrossmintAuthConfig) -> Self {
        Self(config.checked().handle.get_or_create(|handle| Authorizer::new(config.clone(), handle)))
    }

    /// Loads the key set, so that the first request need not.
    ///
    /// # Errors
    ///
    /// When the key set cannot be loaded. The layer works all the same: it tries again when a request needs a key.
    pub async fn warm_up(&self) -> Result<(), AuthError> {
        self.0.verifier.ensure_keys().await
    }

    /// Returns the session that the credentials stand for. Renews it if its JWT is missing, expired or invalid.
    ///
    /// Credentials are a request's headers, an [`AuthMaterial`], or a JWT with its refresh secret. A session that
    /// has been renewed says so: [`Session::renewed`].
    ///
    /// # Errors
    ///
    /// When there is no refresh token (even if the JWT is valid), when Crossmint refuses it, and when Crossmint
    /// cannot be asked.
    pub async fn get_session<'a>(&self, credentials: impl Into<Credentials<'a>>) -> Result<Session, AuthError> {
        self.0.session(self.read(credentials.into())).await
    }

    /// Exchanges a refresh secret, or the one-time secret of a login, for new material.
    ///
    /// Concurrent calls with one secret make one call to Crossmint, and for a while later ones get the same material
    /// ([`rotation_grace`](crate::CrossmintAuthConfigBuilder::rotation_grace)). The new JWT has been verified.
    ///
    /// # Errors
    ///
    /// When Crossmint refuses the secret, cannot be asked, or answers with something that cannot be used.
    pub async fn refresh(&self, secret: &str) -> Result<AuthMaterial, AuthError> {
        let token = check_token(secret.as_bytes())?;
        let refreshed = self.0.refresh(token.into()).await.map_err(|failure| failure.error)?;
        Ok(refreshed.session.material().clone())
    }

    /// Signs out: ends the session at Crossmint and forgets it here.
    ///
    /// A JWT stays valid until its `exp` wherever it is verified without asking Crossmint; here, its entry in the
    /// cache is dropped. Clear the cookies too: [`clear_auth_material`](Self::clear_auth_material).
    ///
    /// # Errors
    ///
    /// When Crossmint could not be told within [`logout_timeout`](crate::CrossmintAuthConfigBuilder::logout_timeout), or
    /// too many logouts are under way. There is nothing left to do then. Credentials without a refresh token, or with two,
    /// are no error, nor is a session that Crossmint does not know (400, 401 or 404): there is nothing to end.
    pub async fn logout<'a>(&self, credentials: impl Into<Credentials<'a>>) -> Result<(), AuthError> {
        let (jwt, token) = {
            let mut credentials = self.read(credentials.into());
            self.0.ignore_foreign(&mut credentials);
            (credentials.jwt.text(), credentials.refresh_token.text())
        };
        self.0.log_out(jwt, token).await
    }

    /// Looks a user up by ID. Needs an API key with the scope `users.read`.
    ///
    /// # Errors
    ///
    /// When there is no such user, the key lacks the scope, or Crossmint cannot be asked.
    pub async fn get_user(&self, user_id: &str) -> Result<User, AuthError> {
        runtime()?;
        self.0.upstream.user(user_id).await
    }

    /// Verifies a JWT and returns its claims.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`](AuthErrorKind::InvalidToken) with the reason as its source; or when there is no key set and it
    /// cannot be loaded.
    pub async fn verify_jwt(&self, jwt: &str) -> Result<Map<String, Value>, AuthError> {
        self.0.verifier.ensure_keys().await?;
        self.0.verifier.verify(jwt.as_bytes()).await?;
        Ok(decode_claims(jwt).unwrap_or_default())
    }

    /// Adds the two `Set-Cookie` fields that store `material` to a response's headers, and `Cache-Control: no-store`.
    /// They take the place of fields for the same cookies: the last word counts, also against the layer.
    ///
    /// # Errors
    ///
    /// When a token has bytes that no cookie may have, or is too long for one. Nothing is added then.
    pub fn store_auth_material(&self, response: &mut HeaderMap, material: &AuthMaterial) -> Result<(), AuthError> {
        let invalid = |why| AuthError::new(AuthErrorKind::InvalidCredentials, why);
        replace_in_response(response, &self.0.cookies.store(material).map_err(invalid)?);
        Ok(())
    }

    /// Adds the two `Set-Cookie` fields that delete the cookies to a response's headers, and
    /// `Cache-Control: no-store`. They take the place of fields for the same cookies.
    ///
    /// # Security
    ///
    /// Use it where the user signs out, or for a request whose cookies turned out to be dead. Any site can make a browser
    /// send a request without its SameSite cookies, and the browser accepts the deletions in the response: where a
    /// request without cookies is answered with them, a link on another site signs the user out.
    pub fn clear_auth_material(&self, response: &mut HeaderMap) {
        replace_in_response(response, &self.0.cookies.clear(&ClearScope::default()));
    }

    /// Waits until no call to Crossmint is under way on behalf of this handle and its layers, whoever has hung up.
    ///
    /// Wait for it between the end of the server and the end of the runtime: a runtime that ends during a renewal takes
    /// the only copy of a new refresh token with it. It takes no longer than the time limits of the calls.
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

    /// Returns what this handle and its layers have done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.0.verifier.cache_hits())
    }

    /// Returns where Crossmint publishes its key set.
    #[must_use]
    pub fn jwks_uri(&self) -> &str {
        self.0.upstream.jwks_uri()
    }

    /// Decides what happens to a request.
    pub(crate) fn authorize(&self, head: &RequestHead<'_>) -> Decision {
        self.0.authorize(head)
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

/// What [`CrossmintAuth::get_session`] and [`CrossmintAuth::logout`] look at.
///
/// ```
/// use tower_crossmint_auth::{AuthMaterial, Credentials, RefreshToken};
///
/// let headers = http::HeaderMap::new();
/// let material = AuthMaterial::new("eyJ...", RefreshToken::new("secret"));
///
/// let from_cookies = Credentials::from(&headers);
/// let from_a_login = Credentials::from(&material);
/// let from_anywhere = Credentials::pair("eyJ...", "secret");
/// # let _ = (from_cookies, from_a_login, from_anywhere);
/// ```
#[derive(Clone, Copy)]
pub struct Credentials<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Headers(&'a HeaderMap),
    Pair { jwt: &'a str, secret: &'a str },
}

impl<'a> Credentials<'a> {
    /// Pairs a JWT with its refresh secret. An empty text stands for none.
    #[must_use]
    pub fn pair(jwt: &'a str, refresh_secret: &'a str) -> Self {
        Self(Source::Pair { jwt, secret: refresh_secret })
    }
}

impl<'a> From<&'a HeaderMap> for Credentials<'a> {
    /// Takes the cookies of a request.
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
