//! Extractors and routes for axum.

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts, Request},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, request::Parts};
use serde::de::DeserializeOwned;

use super::rejection::rejected;
use crate::{
    auth::CrossmintAuth,
    authorize::NoSession,
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
        let Some(no_session) = extensions.get::<NoSession>() else {
            static LOG: Throttle = Throttle::new();
            throttled!(LOG, error, "the layer is not installed on this route: add `CrossmintAuthLayer` around it");
            return Err(AuthError::of(AuthErrorKind::LayerMissing));
        };
        let missing = || AuthError::of(AuthErrorKind::MissingCredentials).with_bearer(no_session.accepts_bearer);
        Err(extensions.get().cloned().unwrap_or_else(missing))
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
        rejected(self, &[], &HeaderMap::new()).map(Body::from)
    }
}

/// The claims of the session's JWT, as an extractor.
///
/// A request without a session is answered as by the extractor [`Session`]. If the claims do not deserialize to `T`,
/// the answer is 403: the user is signed in, but the token lacks what the route requires.
///
/// A type that only deserializes for some users guards a whole router:
///
/// ```
/// use axum::{Router, middleware::from_extractor, routing::get};
/// use serde::Deserialize;
/// use tower_crossmint_auth::Claims;
///
/// #[derive(Deserialize)]
/// struct Admin {
///     #[serde(rename = "role")]
///     _role: AdminRole,
/// }
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "lowercase")]
/// enum AdminRole {
///     Admin,
/// }
///
/// let admin: Router =
///     Router::new().route("/admin", get(|| async { "Hello, admin" })).route_layer(from_extractor::<Claims<Admin>>());
/// ```
///
/// # Security
///
/// Claims are as old as the JWT: a role that Crossmint has withdrawn is gone from the next refresh on.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub struct Claims<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Claims<T> {
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
        let session = <Session as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        session.claims_as().map(Self).map_err(|_| {
            let is_bearer = session.refresh_token().is_none();
            // Not the parser's text, which quotes claims: an e-mail address, for instance.
            let why = format!("the claims do not deserialize to {}", std::any::type_name::<T>());
            AuthError::new(AuthErrorKind::MissingClaims, why).with_bearer(is_bearer)
        })
    }
}

impl CrossmintAuth {
    /// Returns a router that answers the refresh and logout routes, to be merged into the application's.
    ///
    /// With it, these requests are answered wherever the layer is added, and whether it is added at all. The paths are
    /// those of the configuration, so the router belongs at the top level. CORS layers go around it. Requests that a
    /// layer intercepts are answered with the layer's policies, others with the configuration's.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, Session};
    ///
    /// fn app(auth: &CrossmintAuth) -> Router {
    ///     Router::new()
    ///         .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
    ///         .route_layer(CrossmintAuthLayer::from(auth.clone()))
    ///         .merge(auth.routes())
    /// }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let [refresh, logout] = self.route_paths();
        let (refreshes, logouts) = (self.clone(), self.clone());
        // Any method: the handle answers the others with 405 and the reason.
        Router::new()
            .route(refresh, any(move |request: Request| async move { refreshes.handle_refresh(request).await }))
            .route(logout, any(move |request: Request| async move { logouts.handle_logout(request).await }))
    }
}
