//! What happens to a request: its method, path and headers in, one [`Decision`] out.
//!
//! [`Authorizer::authorize`] is synchronous. What takes a call to Crossmint is a future in the decision.

use std::{
    error::Error,
    sync::{Arc, Weak},
};

use futures_util::future::BoxFuture;
use http::{Extensions, HeaderValue, Method};

use crate::{
    config::{CorsPreflights, CrossmintAuthConfig, OutagePolicy, Settings, Unauthenticated},
    cookies::{ClearScope, CookieCredentials, Cookies, Slot},
    csrf::{RequestHead, Site},
    error::{AuthError, AuthErrorKind},
    jwks::JwksCache,
    refresh::{Delivery, Failure, Refreshed, Refresher, check_token},
    registration::Registration,
    secret::Secret,
    session::{AuthMaterial, RefreshToken, Session},
    stats::Counters,
    task_tracker::TaskTracker,
    throttle::{Throttle, throttled},
    upstream::Upstream,
    verify::{Unverifiable, Verifier},
};

/// Decides what happens to requests and to credentials, with the help of the other rooms.
pub(crate) struct Authorizer {
    pub(crate) config: CrossmintAuthConfig,
    pub(crate) cookies: Arc<Cookies>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) verifier: Arc<Verifier>,
    refresher: Arc<Refresher>,
    pub(crate) tasks: TaskTracker,
    pub(crate) counters: Arc<Counters>,
    logout_log: Throttle,
    _registration: Registration,
}

/// What happens to a request.
pub(crate) enum Decision {
    /// Calls the inner service.
    Forward(Grant),
    /// Calls the inner service, or not, once Crossmint has answered.
    Pending(BoxFuture<'static, Result<Grant, Rejection>>),
    /// Answers the refresh route, once the body has been read.
    Refresh(RefreshRequest),
    /// Answers the logout route with these cookies.
    Logout(BoxFuture<'static, Vec<HeaderValue>>),
    /// Answers with an error.
    Reject(Rejection),
}

impl Authorizer {
    /// Builds the rooms, each from those that it uses. Tasks keep `owner` alive: a clone of the configuration that comes
    /// meanwhile must find it.
    pub(crate) fn new(config: CrossmintAuthConfig, owner: Weak<Self>) -> Self {
        let checked = config.checked();
        let (tasks, counters) = (TaskTracker::new(owner), Arc::new(Counters::default()));
        let cookies = Arc::new(Cookies::new(checked.names.clone(), checked.settings.cookies.clone()));
        let upstream = Arc::new(Upstream::new(checked));
        let fetch = {
            let upstream = Arc::clone(&upstream);
            move || Box::pin(Arc::clone(&upstream).keys()) as _
        };
        let jwks = Arc::new(JwksCache::new(fetch, tasks.clone(), Arc::clone(&counters)));
        let verifier = Arc::new(Verifier::new(checked, jwks, Arc::clone(&counters)));
        let refresher = Arc::new(Refresher::new(
            &checked.settings,
            Arc::clone(&upstream),
            Arc::clone(&verifier),
            Arc::clone(&cookies),
            tasks.clone(),
            Arc::clone(&counters),
        ));
        let registration = Registration::new(checked);
        let logout_log = Throttle::default();
        Self {
            config,
            cookies,
            upstream,
            verifier,
            refresher,
            tasks,
            counters,
            logout_log,
            _registration: registration,
        }
    }

    /// Decides what happens to a request, as far as that is possible without a call to Crossmint.
    pub(crate) fn authorize(self: &Arc<Self>, head: &RequestHead<'_>) -> Decision {
        let settings = self.settings();
        // A preflight carries no cookies by design; the CORS layer behind this one answers it.
        if settings.cors_preflights == CorsPreflights::Pass && head.is_preflight() {
            return Decision::Forward(Grant::default());
        }
        if head.is_handshake() && !head.is_allowed(&self.site()) {
            return self.reject(AuthErrorKind::CrossSite);
        }
        let path = head.uri.path();
        let is_refresh = path == settings.refresh_route;
        if !is_refresh && path != settings.logout_route {
            return self.authorize_session(head);
        }
        if head.method != Method::POST {
            return self.reject(AuthErrorKind::MethodNotAllowed);
        }
        if !head.is_allowed(&self.site()) {
            return self.reject(AuthErrorKind::CrossSite);
        }
        let mut credentials = self.cookies.read(head.headers);
        self.ignore_foreign(&mut credentials);
        if is_refresh {
            let cookie = credentials.one_refresh_token().and_then(|token| token.map(check_token).transpose());
            let (cookie, scope) = (cookie.map(|token| token.map(Into::into)), self.clear_scope(&credentials, head));
            Decision::Refresh(RefreshRequest { authorizer: Arc::clone(self), cookie, scope })
        } else {
            Decision::Logout(self.answer_logout(&credentials, head))
        }
    }

    fn authorize_session(self: &Arc<Self>, head: &RequestHead<'_>) -> Decision {
        let mut credentials = self.cookies.read(head.headers);
        let rejected = match self.look_up(&mut credentials) {
            Ok(Lookup::Session(session)) => return Decision::Forward(Resolved::Session(session).into()),
            Ok(Lookup::Pending(pair)) => {
                let (authorizer, scope) = (Arc::clone(self), self.clear_scope(&credentials, head));
                return Decision::Pending(Box::pin(async move {
                    match authorizer.resolve(pair).await {
                        Ok(resolved) => Ok(resolved.into()),
                        Err(failure) => authorizer.refuse(failure, &scope),
                    }
                }));
            }
            Err(_) if self.settings().unauthenticated != Unauthenticated::Reject && credentials.is_empty() => {
                Ok(Grant::default())
            }
            Err(error) => self.refuse(error.into(), &self.clear_scope(&credentials, head)),
        };
        match rejected {
            Ok(grant) => Decision::Forward(grant),
            Err(rejection) => Decision::Reject(rejection),
        }
    }

    /// Resolves credentials to a session.
    pub(crate) async fn session(&self, credentials: CookieCredentials<'_>) -> Result<Session, AuthError> {
        let lookup = self.look_up(&mut { credentials })?;
        let pair = match lookup {
            Lookup::Session(session) => return Ok(session),
            Lookup::Pending(pair) => pair,
        };
        match self.resolve(pair).await {
            Ok(Resolved::Session(session)) => Ok(session),
            Ok(Resolved::Delivery(delivery)) => Ok(delivery.latest().map_err(AuthError::of)?.session.clone()),
            Err(failure) => Err(failure.error),
        }
    }

    /// Refreshes a session, unless the key set that is to verify it cannot be loaded.
    pub(crate) async fn refresh(&self, token: Secret) -> Result<Arc<Refreshed>, Failure> {
        self.verifier.ensure_keys().await?;
        Ok(self.refresher.refresh(token).await?.latest()?)
    }

    /// Ends a session. Credentials without a refresh token, or with two, have none.
    pub(crate) async fn log_out(&self, jwt: Option<Secret>, token: Option<Secret>) -> Result<(), AuthError> {
        if let Some(jwt) = jwt {
            self.verifier.forget(&jwt);
        }
        match token.filter(|token| check_token(token.as_bytes()).is_ok()) {
            Some(token) => self.refresher.revoke(token).await,
            None => Ok(()),
        }
    }

    /// Ignores unscoped cookies of another project.
    pub(crate) fn ignore_foreign(&self, credentials: &mut CookieCredentials<'_>) {
        self.cookies.ignore_foreign(credentials, |jwt| self.verifier.is_foreign(jwt));
    }

    /// Looks at credentials without any call to Crossmint. This is the path of nearly all requests.
    fn look_up(&self, credentials: &mut CookieCredentials<'_>) -> Result<Lookup, AuthError> {
        let without_jwt = |token: &str| Ok(Lookup::Pending(TokenPair { jwt: None, refresh_token: token.into() }));
        if let (Slot::One(jwt), Slot::One(token)) = (credentials.jwt, credentials.refresh_token)
            && let Some(session) = self.verifier.recall(jwt)
        {
            if !self.verifier.is_live(&session) {
                // Its claims say the same at a second reading.
                return without_jwt(check_token(token)?);
            }
            if session.refresh_token().secret().as_bytes() == token {
                return Ok(Lookup::Session(session));
            }
            let material = AuthMaterial::pair(session.jwt(), check_token(token)?);
            return Ok(Lookup::Session(self.verifier.remember(session.verified().clone(), material)));
        }
        self.ignore_foreign(credentials);
        let token = credentials.one_refresh_token()?.ok_or_else(|| AuthError::of(AuthErrorKind::MissingCredentials))?;
        let token = check_token(token)?;
        let Slot::One(jwt) = credentials.jwt else { return without_jwt(token) };
        let verified = self.verifier.check(jwt);
        // Of an invalid one, not even the length is known; the others are short and text, and worth a copy.
        let text = match verified {
            Err(Unverifiable::Invalid(_)) => None,
            _ => std::str::from_utf8(jwt).ok(),
        };
        let Some(jwt) = text else { return without_jwt(token) };
        if let Ok(verified) = verified {
            return Ok(Lookup::Session(self.verifier.remember(verified, AuthMaterial::pair(jwt, token))));
        }
        let [jwt, refresh_token] = Secret::pair(jwt, token);
        Ok(Lookup::Pending(TokenPair { jwt: Some(jwt), refresh_token }))
    }

    async fn resolve(&self, TokenPair { jwt, refresh_token }: TokenPair) -> Result<Resolved, Failure> {
        // Without keys nothing can be verified, least of all the result of a refresh.
        self.verifier.ensure_keys().await?;
        if let Some(jwt) = jwt {
            match self.verifier.verify(jwt.as_bytes()).await {
                Ok(verified) => {
                    let material = AuthMaterial::from_parts(jwt, RefreshToken::from_parts(refresh_token, None), None);
                    return Ok(Resolved::Session(self.verifier.remember(verified, material)));
                }
                Err(error) if error.kind() == AuthErrorKind::InvalidToken => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A copy: the refresh is not to keep the JWT that the token shares an allocation with.
        self.refresher.refresh((&*refresh_token).into()).await.map(Resolved::Delivery)
    }

    /// The answer waits for Crossmint as long as the timeout allows, and does not depend on it.
    fn answer_logout(
        self: &Arc<Self>,
        credentials: &CookieCredentials<'_>,
        head: &RequestHead<'_>,
    ) -> BoxFuture<'static, Vec<HeaderValue>> {
        // A caller that is allowed to use this route wants the session to end, even if its cookies did not come along.
        let cleared = self.cookies.clear(&ClearScope::new(credentials, head.uri, head.headers).for_logout());
        let (authorizer, jwt, token) = (Arc::clone(self), credentials.jwt.text(), credentials.refresh_token.text());
        Box::pin(async move {
            if let Err(error) = authorizer.log_out(jwt, token).await {
                let error = &error as &dyn Error;
                throttled!(authorizer.logout_log, info, error, "Crossmint was not told of a logout");
            }
            cleared
        })
    }

    fn refuse(&self, failure: Failure, scope: &ClearScope) -> Result<Grant, Rejection> {
        let Rejection { error, set_cookie } = self.rejection(failure, scope);
        match self.settings().unauthenticated {
            Unauthenticated::Allow => {
                Ok(Grant { session: None, error: Some(error), set_cookie: SetCookie::Fields(set_cookie) })
            }
            Unauthenticated::Reject | Unauthenticated::AllowMissing => Err(Rejection { error, set_cookie }),
        }
    }

    /// Rejects a request for its form, which says nothing about the session.
    fn reject(&self, kind: AuthErrorKind) -> Decision {
        Decision::Reject(self.rejection(kind.into(), &ClearScope::default()))
    }

    fn rejection(&self, Failure { error, rescued }: Failure, scope: &ClearScope) -> Rejection {
        self.counters.rejection(error.kind());
        let error = error.with_outage_ending_session(self.settings().on_outage == OutagePolicy::EndSession);
        let set_cookie = if error.ends_session() {
            self.cookies.clear(scope)
        } else {
            rescued.and_then(|rescued| rescued.set_cookie.clone()).map_or_else(Vec::new, Vec::from)
        };
        Rejection { error, set_cookie }
    }

    fn clear_scope(&self, credentials: &CookieCredentials<'_>, head: &RequestHead<'_>) -> ClearScope {
        let scope = ClearScope::new(credentials, head.uri, head.headers);
        if head.is_from_elsewhere(&self.site()) { scope.partial() } else { scope }
    }

    fn site(&self) -> Site<'_> {
        let Settings { trusted_origins, cookies, .. } = self.settings();
        Site { trusted_origins, is_https: cookies.secure }
    }

    fn settings(&self) -> &Settings {
        &self.config.checked().settings
    }
}

/// What is known of credentials without a call to Crossmint.
enum Lookup {
    Session(Session),
    Pending(TokenPair),
}

/// A refresh token, and a JWT that may turn out to be valid.
struct TokenPair {
    jwt: Option<Secret>,
    refresh_token: Secret,
}

/// The session of credentials, with or without new cookies.
enum Resolved {
    Session(Session),
    Delivery(Delivery),
}

/// Leave to call the inner service: what the request's extensions say, and what the response sets on its way out.
#[derive(Default)]
pub(crate) struct Grant {
    session: Option<Session>,
    /// Why there is no session, unless the request just has none.
    error: Option<AuthError>,
    set_cookie: SetCookie,
}

impl Grant {
    /// Puts the session, or its absence and the reason, into a request's extensions, and removes what was there before:
    /// only this layer says who is signed in. Returns what is left for the response.
    pub(crate) fn insert_into(self, request: &mut Extensions) -> SetCookie {
        if let Some(session) = self.session {
            request.insert(session);
        } else {
            request.remove::<Session>();
            request.insert(NoSession);
        }
        if let Some(error) = self.error {
            request.insert(error);
        } else {
            request.remove::<AuthError>();
        }
        self.set_cookie
    }
}

impl From<Resolved> for Grant {
    fn from(resolved: Resolved) -> Self {
        match resolved {
            Resolved::Session(session) => Self { session: Some(session), ..Self::default() },
            Resolved::Delivery(delivery) => {
                let session = Some(delivery.session.clone());
                Self { session, set_cookie: SetCookie::Delivery(delivery), ..Self::default() }
            }
        }
    }
}

/// Marks a request that a layer has forwarded without a session.
#[derive(Clone, Copy)]
pub(crate) struct NoSession;

/// The cookies that a response sets on its way out.
#[derive(Default)]
pub(crate) enum SetCookie {
    #[default]
    Nothing,
    /// Held until the response is sent: the grace period of the rotated token starts then.
    Delivery(Delivery),
    Fields(Vec<HeaderValue>),
}

impl SetCookie {
    pub(crate) fn into_fields(self) -> Vec<HeaderValue> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Delivery(delivery) => {
                delivery.latest().map_or_else(|_| Vec::new(), |latest| latest.set_cookie.to_vec())
            }
            Self::Fields(fields) => fields,
        }
    }
}

/// Why a request is answered with an error, and what becomes of its cookies.
pub(crate) struct Rejection {
    pub(crate) error: AuthError,
    pub(crate) set_cookie: Vec<HeaderValue>,
}

/// A request for the refresh route whose body has not been read.
pub(crate) struct RefreshRequest {
    authorizer: Arc<Authorizer>,
    cookie: Result<Option<Secret>, AuthError>,
    scope: ClearScope,
}

impl RefreshRequest {
    /// Refreshes the session of the body's token, or else the cookie's.
    pub(crate) async fn run(self, body: Result<Option<String>, AuthErrorKind>) -> Result<Arc<Refreshed>, Rejection> {
        let Self { authorizer, cookie, scope } = self;
        let outcome = async {
            let token = match body? {
                Some(token) => check_token(token.as_bytes()).map_err(|_| AuthErrorKind::InvalidBody)?.into(),
                None => cookie?.ok_or(AuthErrorKind::MissingRefreshToken)?,
            };
            authorizer.refresh(token).await
        };
        outcome.await.map_err(|failure: Failure| authorizer.rejection(failure, &scope))
    }

    pub(crate) fn exposes_secret(&self) -> bool {
        self.authorizer.settings().expose_refresh_secret
    }
}
