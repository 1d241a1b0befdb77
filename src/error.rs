//! What can go wrong with a session, and what each case means for the client and its cookies.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

/// Why a request has no session, or why a call to Crossmint failed.
///
/// The layer puts it into the extensions of every response that it rejects a request with, so that an outer
/// layer can log it or answer in another format. Neither its text nor its sources contain a token.
#[derive(Clone, Debug)]
pub struct AuthError {
    kind: AuthErrorKind,
    /// What a layer does about it, once one has decided.
    policy: Option<OutagePolicy>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl AuthError {
    /// Creates an error whose kind says it all.
    pub(crate) fn of(kind: AuthErrorKind) -> Self {
        Self { kind, policy: None, retry_after: None, source: None }
    }

    pub(crate) fn new(kind: AuthErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, policy: None, retry_after: None, source: Some(Arc::from(source.into())) }
    }

    pub(crate) fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn kind(&self) -> AuthErrorKind {
        self.kind
    }

    /// Returns when to try again, in whole seconds: rounded up, since earlier is too early.
    pub(crate) fn delay(&self) -> Duration {
        let delay = self.retry_after.unwrap_or(DEFAULT_RETRY_AFTER).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER);
        Duration::from_secs(delay.as_secs() + u64::from(delay.subsec_nanos() > 0))
    }

    /// Returns when Crossmint wants to be asked again, if it has said so.
    pub(crate) fn requested_delay(&self) -> Option<Duration> {
        self.retry_after.map(|_| self.delay())
    }

    /// Records the policy of the layer that refuses a request, so that whoever answers in its place does the same.
    pub(crate) fn under(mut self, policy: OutagePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Decides the answer to a request that failed with this error.
    pub(crate) fn disposition(&self) -> Disposition {
        use AuthErrorKind::*;
        let (status, cookies) = match self.kind {
            MissingCredentials | MissingRefreshToken | AmbiguousCredentials | InvalidCredentials | InvalidToken
            | Refused => (StatusCode::UNAUTHORIZED, CookieFate::Cleared),
            Unavailable | RateLimited | UnusableAnswer => match self.policy {
                Some(OutagePolicy::EndSession) => (StatusCode::UNAUTHORIZED, CookieFate::Cleared),
                Some(OutagePolicy::KeepSession) | None => (StatusCode::SERVICE_UNAVAILABLE, CookieFate::Kept),
            },
            UserUnavailable => (StatusCode::NOT_FOUND, CookieFate::Kept),
            CrossSite => (StatusCode::FORBIDDEN, CookieFate::Kept),
            MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, CookieFate::Kept),
            UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, CookieFate::Kept),
            InvalidBody => (StatusCode::BAD_REQUEST, CookieFate::Kept),
            BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, CookieFate::Kept),
            BodyTimeout => (StatusCode::REQUEST_TIMEOUT, CookieFate::Kept),
            LayerMissing => (StatusCode::INTERNAL_SERVER_ERROR, CookieFate::Kept),
        };
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then(|| self.delay());
        Disposition { status, cookies, retry_after }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            AuthErrorKind::MissingCredentials => "the request's cookies hold no session",
            AuthErrorKind::MissingRefreshToken => "neither the body nor the cookies hold a refresh token",
            AuthErrorKind::AmbiguousCredentials => "the request carries two different cookies of one name",
            AuthErrorKind::InvalidCredentials => "the refresh token is not one that Crossmint could have issued",
            AuthErrorKind::InvalidToken => "the jwt is expired or not valid for this project",
            AuthErrorKind::Refused => "the session has ended: Crossmint does not accept it",
            AuthErrorKind::Unavailable => "Crossmint could not be asked",
            AuthErrorKind::RateLimited => "Crossmint asks for fewer requests",
            AuthErrorKind::UnusableAnswer => "Crossmint's answer cannot be used",
            AuthErrorKind::UserUnavailable => "Crossmint does not give out this user",
            AuthErrorKind::CrossSite => "the request comes from an origin that is not trusted",
            AuthErrorKind::MethodNotAllowed => "the route accepts only POST",
            AuthErrorKind::UnsupportedMediaType => "the body is not application/json",
            AuthErrorKind::InvalidBody => "the body is not a JSON object with a string `refresh`",
            AuthErrorKind::BodyTooLarge => "the body is larger than 16 KiB",
            AuthErrorKind::BodyTimeout => "the body did not arrive within 5 s",
            AuthErrorKind::LayerMissing => "the layer is not installed on this route",
        })
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The kinds of [`AuthError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthErrorKind {
    /// The cookies hold no session: nothing at all, or a JWT without the refresh token that belongs to it.
    MissingCredentials,
    /// The refresh route was called without a refresh token, in the body or in the cookies.
    MissingRefreshToken,
    /// Two cookies of one name came with different values: somebody may be planting one.
    AmbiguousCredentials,
    /// The refresh token is too long or has bytes that no cookie may have. It was not sent to Crossmint.
    InvalidCredentials,
    /// [`verify_jwt`](crate::CrossmintAuth::verify_jwt) did not accept the token.
    InvalidToken,
    /// Crossmint refused, or the session was signed out a moment ago.
    Refused,
    /// Crossmint could not be asked: network, time limit, a status that is no verdict, too many refreshes at once.
    Unavailable,
    /// Crossmint answered 429: it is asked again only after the time that it names.
    RateLimited,
    /// Crossmint answered, but not with what was asked for: no JSON, a JWT that does not verify.
    UnusableAnswer,
    /// [`get_user`](crate::CrossmintAuth::get_user): there is no such user, or the API key lacks the scope `users.read`.
    UserUnavailable,
    /// The refresh or logout route was called, or a WebSocket opened, by another site that is not in `trusted_origins`.
    CrossSite,
    /// The refresh or logout route was called with another method than POST.
    MethodNotAllowed,
    /// The refresh route got a body that is not `application/json`.
    UnsupportedMediaType,
    /// The refresh route got a body that is not a JSON object with a string `refresh`.
    InvalidBody,
    /// The refresh route got a body of more than 16 KiB.
    BodyTooLarge,
    /// The body of the refresh route took longer than 5 s.
    BodyTimeout,
    /// [`Session`](crate::Session) was extracted on a route that no layer is installed on.
    LayerMissing,
}

impl AuthErrorKind {
    /// All kinds, in the order of their declaration.
    pub(crate) const ALL: [Self; Self::LayerMissing as usize + 1] = [
        Self::MissingCredentials,
        Self::MissingRefreshToken,
        Self::AmbiguousCredentials,
        Self::InvalidCredentials,
        Self::InvalidToken,
        Self::Refused,
        Self::Unavailable,
        Self::RateLimited,
        Self::UnusableAnswer,
        Self::UserUnavailable,
        Self::CrossSite,
        Self::MethodNotAllowed,
        Self::UnsupportedMediaType,
        Self::InvalidBody,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::LayerMissing,
    ];

    /// Returns the text for the client: one per kind, whatever the cause.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::MissingCredentials => "Please sign in",
            Self::MissingRefreshToken => "Please provide a refresh token either in the request body or cookies",
            Self::AmbiguousCredentials | Self::InvalidCredentials | Self::InvalidToken | Self::Refused => {
                "The session has ended, please sign in again"
            }
            Self::Unavailable | Self::RateLimited | Self::UnusableAnswer => {
                "The session could not be checked, please try again later"
            }
            Self::UserUnavailable => "The user is not available",
            Self::CrossSite => "Cross-site requests are not allowed here",
            Self::MethodNotAllowed => "Only POST is allowed here",
            Self::UnsupportedMediaType => "A refresh token in the body needs the content type application/json",
            Self::InvalidBody => "The body must be a JSON object whose `refresh` is a string, or empty",
            Self::BodyTooLarge => "The body must not be larger than 16 KiB",
            Self::BodyTimeout => "The body did not arrive in time",
            Self::LayerMissing => "The request could not be handled",
        }
    }
}

/// What the layer does when Crossmint itself is failing: no connection, no answer in time, a 5xx or 429, an answer
/// that is not JSON.
///
/// A definite refusal by Crossmint always ends the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutagePolicy {
    /// Answers 401 and clears the cookies, as `@crossmint/server-sdk` does. The default.
    #[default]
    EndSession,
    /// Answers 503 with `Retry-After` and keeps the cookies, so that an outage logs nobody out.
    KeepSession,
}

/// The answer to a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disposition {
    pub(crate) status: StatusCode,
    pub(crate) cookies: CookieFate,
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieFate {
    Cleared,
    Kept,
}

const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_known() {
        for (index, kind) in AuthErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
            let error = AuthError::of(kind);
            assert!(!error.to_string().ends_with('.') && !kind.message().is_empty());
        }
    }

    #[test]
    fn only_an_outage_depends_on_the_policy() {
        for kind in AuthErrorKind::ALL {
            let [end, keep] = [OutagePolicy::EndSession, OutagePolicy::KeepSession]
                .map(|policy| AuthError::of(kind).under(policy).disposition());
            let is_outage = keep.status == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(end != keep, is_outage, "{kind:?}");
            assert_eq!(end.cookies == CookieFate::Cleared, end.status == StatusCode::UNAUTHORIZED, "{kind:?}");
            assert_eq!((keep.retry_after.is_some(), end.retry_after), (is_outage, None), "{kind:?}");
        }
    }
}
