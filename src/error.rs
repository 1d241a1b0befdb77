//! What can go wrong, and what each case means for the client and its cookies.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

/// The reason why a request has no session, or why a call to Crossmint failed.
///
/// The layer inserts it into the extensions of every response with which it rejects a request, so that an outer layer
/// can log it or answer in another format: see [`docs::rejections`](crate::docs::rejections). Neither its text nor its
/// sources contain a token.
#[derive(Clone, Debug)]
pub struct AuthError {
    kind: AuthErrorKind,
    /// Whether an outage ends the session, and whether to ask for a bearer token, as far as a layer has decided that.
    outage_ends_session: bool,
    accepts_bearer: bool,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl AuthError {
    /// Creates an error without a source.
    pub(crate) fn of(kind: AuthErrorKind) -> Self {
        Self { kind, outage_ends_session: false, accepts_bearer: false, retry_after: None, source: None }
    }

    pub(crate) fn new(kind: AuthErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(Arc::from(source.into())), ..Self::of(kind) }
    }

    pub(crate) fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// Records the outage policy of the layer that rejects a request, so that an extractor behind it answers alike.
    pub(crate) fn with_outage_ending_session(mut self, ends: bool) -> Self {
        self.outage_ends_session = ends;
        self
    }

    /// Records whether that layer accepts bearer tokens, for the same reason.
    pub(crate) fn with_bearer(mut self, is_accepted: bool) -> Self {
        self.accepts_bearer = is_accepted;
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> AuthErrorKind {
        self.kind
    }

    /// Returns whether Crossmint is unavailable, so that the error says nothing about the session.
    ///
    /// That is so for the kinds [`Unavailable`](AuthErrorKind::Unavailable),
    /// [`RateLimited`](AuthErrorKind::RateLimited) and [`UnusableAnswer`](AuthErrorKind::UnusableAnswer), to which the
    /// [`OutagePolicy`](crate::OutagePolicy) applies.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.kind.row().status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Formats the error and its sources as one text, for logs: not every subscriber follows sources.
    pub(crate) fn causes(&self) -> Causes<'_> {
        Causes(self)
    }

    /// Returns the status of a response that rejects a request for this error.
    pub(crate) fn status(&self) -> StatusCode {
        match self.kind.row().status {
            StatusCode::SERVICE_UNAVAILABLE if self.outage_ends_session => StatusCode::UNAUTHORIZED,
            status => status,
        }
    }

    /// Returns the text that the layer sends to the client: one of a fixed set, which tells an attacker nothing.
    ///
    /// `Display` is for logs.
    #[must_use]
    pub fn message(&self) -> &'static str {
        self.kind.row().message
    }

    /// Returns the challenge of the response (RFC 9110 section 11.6.1, RFC 6750 section 3).
    pub(crate) fn challenge(&self) -> Option<Cow<'static, str>> {
        let code = match self.kind {
            AuthErrorKind::InvalidToken => Some("invalid_token"),
            AuthErrorKind::InvalidAuthorization => Some("invalid_request"),
            AuthErrorKind::MissingClaims => Some("insufficient_scope"),
            // The request had no bearer token, and the client is told no more than that one is accepted.
            _ => None,
        };
        match code {
            Some(code) if self.accepts_bearer => {
                Some(format!(r#"Bearer error="{code}", error_description="{}""#, self.message()).into())
            }
            _ if self.status() != StatusCode::UNAUTHORIZED => None,
            _ if self.accepts_bearer => Some("Bearer".into()),
            // A 401 must have a challenge, and no scheme is registered for cookies.
            _ => Some("Cookie".into()),
        }
    }

    /// Returns whether the response deletes the cookies, as every 401 does.
    pub(crate) fn ends_session(&self) -> bool {
        self.status() == StatusCode::UNAUTHORIZED
    }

    /// Returns the delay before the next attempt, in whole seconds (RFC 9110 section 10.2.3).
    pub(crate) fn retry_after(&self) -> Duration {
        let delay = self.retry_after.unwrap_or(DEFAULT_RETRY_AFTER).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER);
        // Rounded up: a retry before the delay has passed is refused again.
        Duration::from_secs(delay.as_secs() + u64::from(delay.subsec_nanos() > 0))
    }

    /// Returns the same delay, but only if Crossmint has asked for one.
    pub(crate) fn requested_retry_after(&self) -> Option<Duration> {
        self.retry_after.map(|_| self.retry_after())
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.row().description)
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

pub(crate) struct Causes<'a>(&'a AuthError);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        write!(f, "{error}")?;
        let mut source = error.source();
        while let Some(error) = source {
            // After a GOAWAY frame, h2 appends its debug data, which is the peer's text.
            let text = error.to_string();
            write!(f, ": {}", text.split(" (b\"").next().unwrap_or_default())?;
            source = error.source();
        }
        Ok(())
    }
}

/// What one kind of error means.
struct Row {
    /// 401 ends the session: the cookies are deleted. 503 does if the outage policy says so. Any other status says
    /// nothing about the session, which stays.
    status: StatusCode,
    /// For the client: the same for several kinds where the difference would help an attacker.
    message: &'static str,
    /// For logs: the `Display` of the error.
    description: &'static str,
}

/// Declares the kinds, each with its row of the table: name, status, message, description.
macro_rules! error_kinds {
    ($($(#[$doc:meta])+ $kind:ident = $name:literal: $status:ident, $message:expr, $description:literal;)+) => {
        /// The kinds of [`AuthError`].
        ///
        /// [`docs::rejections`](crate::docs::rejections#statuses-cookies-and-messages) lists the status and the cookies
        /// for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum AuthErrorKind {
            $($(#[$doc])+ $kind,)+
        }

        impl AuthErrorKind {
            /// All kinds, in the order of their declaration.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),+];

            /// Returns the name of the kind, such as `missing_credentials`: a label for logs and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            fn row(self) -> Row {
                let (status, message, description) = match self {
                    $(Self::$kind => (StatusCode::$status, $message, $description),)+
                };
                Row { status, message, description }
            }
        }
    };
}

error_kinds! {
    /// The cookies contain no session: they are absent, or there is a JWT without a refresh token.
    MissingCredentials = "missing_credentials": UNAUTHORIZED,
        "Please sign in", "the request's cookies contain no session";

    /// The refresh route was called without a refresh token in the body or the cookies.
    MissingRefreshToken = "missing_refresh_token": UNAUTHORIZED,
        "Please provide a refresh token either in the request body or cookies",
        "neither the body nor the cookies contain a refresh token";

    /// Two cookies with one name have different values. One of them may have been planted by a sibling subdomain.
    AmbiguousCredentials = "ambiguous_credentials": UNAUTHORIZED,
        SESSION_ENDED, "the request has two different cookies of one name";

    /// A token is empty, too long for a cookie, or contains bytes that a cookie must not contain. It was neither sent
    /// to Crossmint nor stored.
    InvalidCredentials = "invalid_credentials": UNAUTHORIZED,
        SESSION_ENDED, "a token is not one that Crossmint could have issued";

    /// The JWT that was presented [without a refresh token](crate::Bearer), or to
    /// [`verify_jwt`](crate::CrossmintAuth::verify_jwt), is expired or invalid.
    InvalidToken = "invalid_token": UNAUTHORIZED,
        "The token is expired or not valid", "the JWT is expired or not valid for this project";

    /// The `Authorization` header is repeated, or has no single token of the scheme `Bearer`.
    InvalidAuthorization = "invalid_authorization": BAD_REQUEST,
        "The Authorization header must have one Bearer token",
        "the Authorization header does not have one Bearer token";

    /// The session's JWT lacks [claims](crate::Claims) that the route requires.
    MissingClaims = "missing_claims": FORBIDDEN,
        "You are not allowed to do this", "the JWT lacks claims that the route requires";

    /// Crossmint refused the refresh token, or the session was signed out moments ago.
    Refused = "refused": UNAUTHORIZED, SESSION_ENDED, "Crossmint does not accept the session";

    /// The call to Crossmint failed: a network error, a time-out, an unexpected status, or too many refreshes in
    /// flight.
    Unavailable = "unavailable": SERVICE_UNAVAILABLE, TRY_AGAIN, "Crossmint is unavailable";

    /// Crossmint answered 429. The call is not repeated before the time that `Retry-After` names.
    RateLimited = "rate_limited": SERVICE_UNAVAILABLE, TRY_AGAIN, "Crossmint limits the rate of requests";

    /// Crossmint's answer cannot be used: it is not JSON, or its JWT cannot be verified.
    UnusableAnswer = "unusable_answer": SERVICE_UNAVAILABLE, TRY_AGAIN, "Crossmint's answer is not usable";

    /// [`get_user`](crate::CrossmintAuth::get_user) found no such user, or the API key lacks the scope `users.read`.
    UserUnavailable = "user_unavailable": NOT_FOUND, "The user is not available", "Crossmint does not return this user";

    /// Another site that is not in `trusted_origins` called the refresh or logout route, or opened a WebSocket.
    CrossSite = "cross_site": FORBIDDEN,
        "Cross-site requests are not allowed here", "the request comes from an origin that is not trusted";

    /// The refresh or logout route was called with a method other than `POST`.
    MethodNotAllowed = "method_not_allowed": METHOD_NOT_ALLOWED,
        "Only POST is allowed here", "the route accepts only POST";

    /// The refresh route received a token in a body that is not `application/json`.
    UnsupportedMediaType = "unsupported_media_type": UNSUPPORTED_MEDIA_TYPE,
        "A refresh token in the body needs the content type application/json", "the body is not application/json";

    /// The refresh route received a body that is neither empty nor a JSON object with a string `refresh`.
    InvalidBody = "invalid_body": BAD_REQUEST,
        "The body must be a JSON object whose `refresh` is a string, or empty",
        "the body is not a JSON object with a string `refresh`";

    /// The refresh route received a body of more than 16 KiB.
    BodyTooLarge = "body_too_large": PAYLOAD_TOO_LARGE,
        "The body must not be larger than 16 KiB", "the body is larger than 16 KiB";

    /// The body of the refresh route did not arrive within 5 s.
    BodyTimeout = "body_timeout": REQUEST_TIMEOUT,
        "The body did not arrive in time", "the body did not arrive within 5 s";

    /// [`Session`](crate::Session) was extracted on a route without the layer.
    LayerMissing = "layer_missing": INTERNAL_SERVER_ERROR,
        "The request could not be handled", "the layer is not installed on this route";
}

/// An option with a value that cannot work.
///
/// The text names the option, or the environment variable that sets it, shows the value unless it is a secret, and says
/// what to change. `Debug` shows the same text, for a `main` that returns the error.
#[derive(Clone)]
pub struct ConfigError {
    option: &'static str,
    /// The environment variable that the value was read from, if any.
    variable: Option<&'static str>,
    why: String,
}

impl ConfigError {
    pub(crate) fn new(option: &'static str, why: impl Into<String>) -> Self {
        Self { option, variable: None, why: why.into() }
    }

    /// Returns an error unless the option can be used.
    pub(crate) fn ensure(is_usable: bool, option: &'static str, why: impl Into<String>) -> Result<(), Self> {
        if is_usable { Ok(()) } else { Err(Self::new(option, why)) }
    }

    pub(crate) fn of_variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    /// Returns the name of the option, such as `refresh_route`.
    #[must_use]
    pub fn option(&self) -> &'static str {
        self.option
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, name) = match self.variable {
            Some(variable) => ("environment variable", variable),
            None => ("option", self.option),
        };
        write!(f, "the {source} `{name}` cannot be used: {}", self.why)
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for ConfigError {}

const SESSION_ENDED: &str = "The session has ended, please sign in again";
const TRY_AGAIN: &str = "The session could not be checked, please try again later";

/// Used if Crossmint sends no `Retry-After`: long enough for a short outage, short enough for a user who waits.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

// A zero would make clients retry in a loop; a very long delay would outlast the outage.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_known() {
        for (index, kind) in AuthErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index, "{kind:?}");
            let error = AuthError::of(*kind);
            assert!(!error.to_string().ends_with('.') && !error.message().is_empty());
        }
    }

    #[test]
    fn only_an_outage_depends_on_the_policy() {
        for kind in AuthErrorKind::ALL {
            let [end, keep] = [true, false].map(|ends| AuthError::of(*kind).with_outage_ending_session(ends));
            let is_outage = keep.status() == StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!([end.is_outage(), keep.is_outage()], [is_outage; 2], "{kind:?}");
            assert_eq!(end.status() != keep.status(), is_outage, "{kind:?}");
            assert_eq!(end.ends_session(), is_outage || keep.ends_session(), "{kind:?}");
        }
    }
}
