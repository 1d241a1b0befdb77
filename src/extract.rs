//! [`Session`] as an axum extractor.

use axum_core::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;

use crate::{
    auth::Rejection,
    error::{AuthError, AuthErrorKind, OutagePolicy},
    response,
    session::Session,
};

/// Extracts the session of the request.
///
/// A request without one is answered with 401, as by the layer. That happens under
/// [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) and
/// [`AllowMissing`](crate::Unauthenticated::AllowMissing), and where the layer is missing.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AuthError> {
        parts.extensions.get().cloned().ok_or_else(|| AuthErrorKind::MissingCredentials.into())
    }
}

/// Extracts the session of the request, if it has one.
impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get().cloned())
    }
}

/// Answers as the layer does under [`OutagePolicy::KeepSession`], without touching the cookies.
impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        let disposition = self.disposition(OutagePolicy::KeepSession);
        let rejection = Rejection { error: self, disposition, set_cookie: Vec::new() };
        response::rejected(rejection, false).map(Body::from)
    }
}
