//! [`Session`] as an axum extractor.

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, request::Parts};

use super::rejection::rejected;
use crate::{
    authorize::{NoSession, Rejection},
    error::{AuthError, AuthErrorKind},
    log_throttle::{Throttle, throttled},
    session::Session,
};

/// Extracts the session of the request.
///
/// A request without one is answered as by the layer: with 401, or with 503 in an outage under
/// [`OutagePolicy::KeepSession`](crate::OutagePolicy::KeepSession). This happens under
/// [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) and
/// [`AllowMissing`](crate::Unauthenticated::AllowMissing), and for CORS preflights. Extract `Result<Session,
/// AuthError>` to handle the reason yourself.
///
/// On a route without the layer, the answer is 500, and an event at level `ERROR` is logged.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthError> {
        let extensions = &parts.extensions;
        if let Some(session) = extensions.get::<Self>() {
            return Ok(session.clone());
        }
        if extensions.get::<NoSession>().is_none() {
            static LOG: Throttle = Throttle::new();
            throttled!(LOG, error, "the layer is not installed on this route");
            return Err(AuthError::of(AuthErrorKind::LayerMissing));
        }
        Err(extensions.get().cloned().unwrap_or_else(|| AuthError::of(AuthErrorKind::MissingCredentials)))
    }
}

/// Extracts the session of the request, if it has one.
///
/// `None` does not distinguish a guest from a user whose session could not be checked, or from a missing layer.
/// `Result<Session, AuthError>` does, by [`AuthError::kind`]:
///
/// ```
/// use tower_crossmint_auth::{AuthError, AuthErrorKind, Session};
///
/// async fn home(session: Result<Session, AuthError>) -> Result<String, AuthError> {
///     match session {
///         Ok(session) => Ok(format!("Hello, {}", session.user_id())),
///         Err(error) if error.kind() == AuthErrorKind::MissingCredentials => Ok("Hello, guest".to_owned()),
///         Err(error) => Err(error),
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(home));
/// ```
impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}

/// Answers as the layer that rejected the request would have, without changing the cookies.
///
/// An error of a [`CrossmintAuth`](crate::CrossmintAuth) method is answered as under
/// [`OutagePolicy::KeepSession`](crate::OutagePolicy::KeepSession).
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        rejected(Rejection { error: self, set_cookie: Vec::new() }, &HeaderMap::new()).map(Body::from)
    }
}
