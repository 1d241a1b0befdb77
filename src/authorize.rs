//! What happens to a request: its method, path and headers in, one [`Decision`] out.
//!
//! [`Authorizer::authorize`] is synchronous. A decision that takes a call to Crossmint contains a future.

use std::sync::{Arc, Weak};

use futures_util::future::{BoxFuture, join};
use http::{Extensions, HeaderValue, Method};

use crate::{
    bearer::bearer_token,
    config::{CorsPreflights, CrossmintAuthConfig, OutagePolicy, Policies, Settings, Unauthenticated},
    cookies::{ClearScope, CookieCredentials, Cookies, Slot},
    csrf::{RequestHead, Site},
    error::{AuthError, AuthErrorKind},
    handle_registry::Registration,
    jwks::JwksCache,
    refresh::{Delivery, Failure, Refreshed, Refresher, check_token},
    secret::Secret,
    session::{AuthMaterial, RefreshToken, Session, Tokens},
    stats::Counters,
    task_tracker::TaskTracker,
    upstream::Upstream,
    verify::{Unverifiable, Verifier},
};

/// Decides what happens to requests and to credentials, by means of the owners of state.
pub(crate) struct Authorizer {
    pub(crate) config: CrossmintAuthConfig,
    pub(crate) cookies: Arc<Cookies>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) verifier: Arc<Verifier>,
    refresher: Arc<Refresher>,
    pub(crate) tasks: TaskTracker,
    pub(crate) counters: Arc<Counters>,
    registration: Registration,
}

/// What happens to a request.
pub(crate) enum Decision {
    /// Calls the inner service.
    Forward(Grant),
    /// Does not call it now.
    Hold(Hold),
}

/// What happens before the inner service is called, or instead of it.
///
/// The contents are boxed, because nearly all requests are forwarded, and decisions are moved.
pub(crate) enum Hold {
    /// Calls the inner service or answers with an error, once Crossmint has answered.
    Pending(BoxFuture<'static, Result<Grant, Rejection>>),
    /// Answers one of the two routes, once the body has been read.
    Route(Box<RouteRequest>),
    /// Answers with an error.
    Reject(Box<Rejection>),
}

impl Decision {
    fn reject(rejection: Rejection) -> Self {
        Self::Hold(Hold::Reject(Box::new(rejection)))
    }
}

impl Authorizer {
    /// Builds the owners of state, each from those that it uses.
    ///
    /// Tasks keep `owner` alive, so that clones of the configuration find it while a call is in flight.
    pub(crate) fn new(config: CrossmintAuthConfig, owner: Weak<Self>) -> Self {
        let checked = config.checked();
        let (tasks, counters) =
            (TaskTracker::new(owner), Arc::new(Counters::new(checked.settings.api_key.project_id())));
        let cookies = Arc::new(Cookies::new(checked.names.clone(), checked.settings.cookies.clone()));
        let upstream = Arc::new(Upstream::new(config.clone()));
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
        Self { config, cookies, upstream, verifier, refresher, tasks, counters, registration }
    }

    /// Logs a warning if this handle is the second one of its project.
    pub(crate) fn warn_of_duplicate(&self) {
        self.registration.warn_once(self.config.checked());
    }

    /// Decides what happens to a request, as far as that is possible without a call to Crossmint.
    pub(crate) fn authorize(self: &Arc<Self>, head: &RequestHead<'_>, policies: &Policies) -> Decision {
        // A preflight carries no cookies by design; the CORS layer or handler behind this one answers it.
        if policies.cors_preflights == CorsPreflights::Pass && head.is_preflight() {
            return Decision::Forward(Grant::default());
        }
        if head.is_handshake() && !head.is_allowed(&self.site()) {
            return Decision::reject(self.reject_form(AuthErrorKind::CrossSite, head, policies));
        }
        let path = head.uri.path();
        let route = if path == self.settings().refresh_route {
            Route::Refresh
        } else if path == self.settings().logout_route {
            Route::Logout
        } else {
            return self.authorize_session(head, policies);
        };
        self.authorize_route(route, head, policies)
            .map_or_else(Decision::reject, |request| Decision::Hold(Hold::Route(Box::new(request))))
    }

    /// Decides what happens to a request for one of the two routes, whatever its path.
    pub(crate) fn authorize_route(
        self: &Arc<Self>,
        route: Route,
        head: &RequestHead<'_>,
        policies: &Policies,
    ) -> Result<RouteRequest, Rejection> {
        if head.method != Method::POST {
            return Err(self.reject_form(AuthErrorKind::MethodNotAllowed, head, policies));
        }
        if !head.is_allowed(&self.site()) {
            return Err(self.reject_form(AuthErrorKind::CrossSite, head, policies));
        }
        let mut credentials = self.cookies.read(head.headers);
        self.ignore_foreign(&mut credentials);
        Ok(match route {
            Route::Refresh => {
                let cookie = credentials.one_refresh_token().and_then(|token| token.map(check_token).transpose());
                let cookie = cookie.map(|token| token.map(Into::into));
                let fallback = self.fallback(&credentials, head, policies);
                RouteRequest::Refresh(RefreshRequest { authorizer: Arc::clone(self), cookie, fallback })
            }
            Route::Logout => RouteRequest::Logout(self.authorize_logout(&credentials, head, policies)),
        })
    }

    fn authorize_session(self: &Arc<Self>, head: &RequestHead<'_>, policies: &Policies) -> Decision {
        if let Some(jwt) = find_bearer(head, policies) {
            let lookup = jwt.map_err(Into::into).and_then(|jwt| self.look_up_bearer(jwt));
            return self.decide(lookup, || Fallback::without_cookies(head, policies));
        }
        let mut credentials = self.cookies.read(head.headers);
        match self.look_up(&mut credentials) {
            Err(_) if credentials.is_empty() && policies.allow_missing_at(head.uri) => {
                Decision::Forward(Grant { accepts_bearer: policies.accepts_bearer(), ..Grant::default() })
            }
            lookup => self.decide(lookup, || self.fallback(&credentials, head, policies)),
        }
    }

    fn decide(self: &Arc<Self>, lookup: Result<Lookup, Failure>, fallback: impl FnOnce() -> Fallback) -> Decision {
        match lookup {
            Ok(Lookup::Session(session)) => Decision::Forward(Grant { session: Some(session), ..Grant::default() }),
            Ok(Lookup::Pending { jwt, refresh_token }) => {
                let (authorizer, fallback) = (Arc::clone(self), fallback());
                Decision::Hold(Hold::Pending(Box::pin(async move {
                    match authorizer.resolve(jwt, refresh_token, fallback.on_outage).await {
                        Ok((session, delivery)) => {
                            let set_cookie = delivery.map_or(SetCookie::Nothing, SetCookie::Delivery);
                            Ok(Grant { session: Some(session), set_cookie, ..Grant::default() })
                        }
                        Err(failure) => authorizer.allow_or_reject(failure, fallback),
                    }
                })))
            }
            Err(failure) => self.allow_or_reject(failure, fallback()).map_or_else(Decision::reject, Decision::Forward),
        }
    }

    /// Loads the key set, and connects to the store that replicas share.
    pub(crate) async fn warm_up(&self) -> Result<(), AuthError> {
        self.refresher.follow_logouts();
        let (keys, store) = join(self.verifier.warm_up(), self.refresher.connect()).await;
        keys.and(store)
    }

    /// Resolves credentials to a session.
    pub(crate) async fn session(&self, mut credentials: CookieCredentials<'_>) -> Result<Session, Failure> {
        let lookup = self.look_up(&mut credentials)?;
        self.complete(lookup).await
    }

    /// Resolves a JWT without a refresh token to a session.
    pub(crate) async fn bearer_session(&self, jwt: &str) -> Result<Session, Failure> {
        let lookup = self.look_up_bearer(jwt)?;
        self.complete(lookup).await
    }

    async fn complete(&self, lookup: Lookup) -> Result<Session, Failure> {
        let (session, delivery) = match lookup {
            Lookup::Session(session) => return Ok(session),
            Lookup::Pending { jwt, refresh_token } => {
                self.resolve(jwt, refresh_token, self.settings().policies.on_outage()).await?
            }
        };
        match delivery {
            Some(delivery) => Ok(delivery.latest()?.session.clone()),
            None => Ok(session),
        }
    }

    /// Refreshes a session, unless the key set that is to verify it cannot be loaded.
    pub(crate) async fn refresh(&self, token: Secret) -> Result<Arc<Refreshed>, Failure> {
        self.verifier.ensure_keys().await?;
        Ok(self.refresher.refresh(token).await?.latest()?)
    }

    /// Revokes a session: refuses its JWTs here, and its refresh token at Crossmint. Either may be missing.
    pub(crate) async fn log_out(
        &self,
        jwts: impl IntoIterator<Item = Secret>,
        token: Option<Secret>,
    ) -> Result<(), AuthError> {
        self.counters.logouts.count();
        self.refresher.refuse(&jwts.into_iter().collect::<Vec<_>>());
        match token.filter(|token| check_token(token.as_bytes()).is_ok()) {
            Some(token) => self.refresher.revoke(token).await,
            None => Ok(()),
        }
    }

    /// Ignores unscoped cookies of another project.
    pub(crate) fn ignore_foreign(&self, credentials: &mut CookieCredentials<'_>) {
        self.cookies.ignore_foreign(credentials, |jwt| self.verifier.is_foreign(jwt));
    }

    /// Looks up the session of credentials without waiting for Crossmint. Nearly all requests need no more than this.
    fn look_up(&self, credentials: &mut CookieCredentials<'_>) -> Result<Lookup, Failure> {
        let without_jwt = |token: &str| Ok(Lookup::Pending { jwt: None, refresh_token: Some(token.into()) });
        if let (Slot::One(jwt), Slot::One(token)) = (credentials.jwt, credentials.refresh_token)
            && let Some((session, is_live)) = self.verifier.cached(jwt)
        {
            // Only verified JWTs are cached: this one is for our project, and so are the cookies beside it.
            if !is_live {
                // Known to have expired: reading its claims again would change nothing.
                return without_jwt(check_token(token)?);
            }
            if session.refresh_token().is_some_and(|known| known.secret().as_bytes() == token) {
                return Ok(Lookup::Session(session));
            }
            let material = AuthMaterial::pair(session.jwt(), check_token(token)?);
            return Ok(Lookup::Session(self.verifier.cache(session.verified().clone(), material)));
        }
        self.refresher.follow_logouts();
        self.ignore_foreign(credentials);
        let token = check_token(credentials.one_refresh_token()?.ok_or(AuthErrorKind::MissingCredentials)?)?;
        let Slot::One(jwt) = credentials.jwt else { return without_jwt(token) };
        let verified = match self.verifier.check(jwt) {
            Ok(verified) => Some(verified),
            Err(Unverifiable::UnknownKey { .. } | Unverifiable::NoKeys) => None,
            // It can have any length: it is not kept while the refresh is in flight.
            Err(Unverifiable::Invalid(_)) => return without_jwt(token),
        };
        let Ok(jwt) = std::str::from_utf8(jwt) else { return without_jwt(token) };
        Ok(match verified {
            Some(verified) => Lookup::Session(self.verifier.cache(verified, AuthMaterial::pair(jwt, token))),
            None => {
                let [jwt, refresh_token] = Secret::pair(jwt, token);
                Lookup::Pending { jwt: Some(jwt), refresh_token: Some(refresh_token) }
            }
        })
    }

    /// Looks up the session of a JWT that came without a refresh token.
    fn look_up_bearer(&self, jwt: &str) -> Result<Lookup, Failure> {
        if let Some((session, true)) = self.verifier.cached(jwt.as_bytes()) {
            // A browser's request may have brought its refresh token, which is not this caller's.
            let is_paired = session.refresh_token().is_some();
            let bearer = || Session::new(session.verified().clone(), Tokens::Bearer(session.jwt_secret().clone()));
            return Ok(Lookup::Session(if is_paired { bearer() } else { session }));
        }
        self.refresher.follow_logouts();
        match self.verifier.check(jwt.as_bytes()) {
            Ok(verified) => Ok(Lookup::Session(self.verifier.cache(verified, Tokens::Bearer(jwt.into())))),
            Err(Unverifiable::UnknownKey { .. } | Unverifiable::NoKeys) => {
                Ok(Lookup::Pending { jwt: Some(jwt.into()), refresh_token: None })
            }
            Err(why @ Unverifiable::Invalid(_)) => Err(AuthError::from(why).into()),
        }
    }

    /// Resolves a JWT that may be valid, a refresh token, or both, to a session, and to its delivery if it was
    /// refreshed.
    async fn resolve(
        &self,
        jwt: Option<Secret>,
        mut refresh_token: Option<Secret>,
        on_outage: OutagePolicy,
    ) -> Result<(Session, Option<Delivery>), Failure> {
        // Without keys nothing can be verified: the refresh token would be used up for a session that cannot be
        // trusted.
        self.verifier.ensure_keys().await?;
        if let Some(jwt) = jwt {
            match self.verifier.verify(jwt.as_bytes(), on_outage).await {
                Ok(verified) => {
                    let tokens = match refresh_token {
                        Some(token) => {
                            AuthMaterial::from_parts(jwt, RefreshToken::from_parts(token, None), None).into()
                        }
                        None => Tokens::Bearer(jwt),
                    };
                    return Ok((self.verifier.cache(verified, tokens), None));
                }
                // Refreshed below, as if it had expired. A copy, because the token shares an allocation with the JWT,
                // which need not be kept during the refresh.
                Err(error) if error.kind() == AuthErrorKind::InvalidToken && refresh_token.is_some() => {
                    refresh_token = refresh_token.map(|token| (&*token).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let refresh_token = refresh_token.ok_or(AuthErrorKind::MissingCredentials)?;
        let delivery = self.refresher.refresh(refresh_token).await?;
        Ok((delivery.refreshed.session.clone(), Some(delivery)))
    }

    /// Revokes the session and deletes the cookies, whether or not Crossmint answers within the time limit.
    fn authorize_logout(
        self: &Arc<Self>,
        credentials: &CookieCredentials<'_>,
        head: &RequestHead<'_>,
        policies: &Policies,
    ) -> LogoutRequest {
        // Whatever the policy: refusing a JWT that was presented does no harm.
        let bearer = bearer_token(head.headers).and_then(Result::ok).map(Secret::from);
        // The route is protected against other sites, so the request may delete cookies that it does not carry.
        let mut scope = ClearScope::new(credentials, head.uri, head.headers);
        scope.is_logout = true;
        // A caller with a bearer token only has no cookies.
        let has_cookies = bearer.is_none() || !credentials.is_empty();
        let location = self.settings().after_logout.as_deref().filter(|_| head.is_shown());
        LogoutRequest {
            authorizer: Arc::clone(self),
            jwts: [bearer, credentials.jwt.text()],
            token: credentials.refresh_token.text(),
            expects_token: credentials.refresh_token == Slot::Absent,
            set_cookie: if has_cookies { self.cookies.clear(&scope) } else { Vec::new() },
            location: location.and_then(|path| HeaderValue::from_str(path).ok()),
            fallback: Fallback::without_cookies(head, policies),
        }
    }

    /// Forwards a request without a session if the policy allows that.
    fn allow_or_reject(&self, failure: Failure, fallback: Fallback) -> Result<Grant, Rejection> {
        let mut rejection = self.rejection(failure, &fallback);
        if fallback.unauthenticated == Unauthenticated::Allow {
            let Rejection { error, set_cookie, .. } = rejection;
            return Ok(Grant { error: Some(error), set_cookie: SetCookie::Fields(set_cookie), ..Grant::default() });
        }
        // Other errors are not mended by a login.
        rejection.location = fallback.login.filter(|_| rejection.error.ends_session());
        Err(rejection)
    }

    /// Rejects a request because of its form. Its cookies are not deleted.
    fn reject_form(&self, kind: AuthErrorKind, head: &RequestHead<'_>, policies: &Policies) -> Rejection {
        self.rejection(kind.into(), &Fallback::without_cookies(head, policies))
    }

    fn rejection(&self, Failure { error, rescued }: Failure, fallback: &Fallback) -> Rejection {
        self.counters.rejection(error.kind());
        // The policy travels with the error, since an extractor may answer with it later. It decides between 401, which
        // ends the session and deletes the cookies, and 503, which keeps them.
        let error = error
            .with_outage_ending_session(fallback.on_outage == OutagePolicy::EndSession)
            .with_bearer(fallback.accepts_bearer);
        let set_cookie = match &fallback.clear {
            None => Vec::new(),
            Some(scope) if error.ends_session() => self.cookies.clear(scope),
            Some(_) => rescued.and_then(|rescued| rescued.set_cookie.clone()).map_or_else(Vec::new, Vec::from),
        };
        Rejection { error, set_cookie, location: None }
    }

    /// Collects what a rejection of a request with cookies needs.
    fn fallback(&self, credentials: &CookieCredentials<'_>, head: &RequestHead<'_>, policies: &Policies) -> Fallback {
        let mut scope = ClearScope::new(credentials, head.uri, head.headers);
        scope.is_partial |= head.is_from_elsewhere(&self.site());
        let unauthenticated = policies.unauthenticated_at(head.uri).clone();
        let login = match &unauthenticated {
            Unauthenticated::Redirect(page) if head.is_navigation() => {
                HeaderValue::try_from(page.location(head.is_safe().then_some(head.uri))).ok()
            }
            _ => None,
        };
        Fallback {
            unauthenticated,
            on_outage: policies.on_outage(),
            accepts_bearer: policies.accepts_bearer(),
            clear: Some(scope),
            login,
        }
    }

    fn site(&self) -> Site<'_> {
        let Settings { trusted_origins, cookies, .. } = self.settings();
        Site { trusted_origins, is_https: cookies.secure }
    }

    fn settings(&self) -> &Settings {
        &self.config.checked().settings
    }
}

/// The two routes that are answered instead of forwarded.
#[derive(Clone, Copy)]
pub(crate) enum Route {
    Refresh,
    Logout,
}

/// Finds the JWT in the `Authorization` header, if it is accepted.
fn find_bearer<'a>(head: &RequestHead<'a>, policies: &Policies) -> Option<Result<&'a str, AuthErrorKind>> {
    policies.accepts_bearer().then(|| bearer_token(head.headers))?
}

/// The result of a look-up without a call to Crossmint.
enum Lookup {
    Session(Session),
    /// The JWT is missing, expired or invalid (`None`), so that the session has to be refreshed; or the key that
    /// verifies it is not loaded (`Some`). A bearer token has no refresh token.
    Pending {
        jwt: Option<Secret>,
        refresh_token: Option<Secret>,
    },
}

/// How a request is answered that has no session.
struct Fallback {
    unauthenticated: Unauthenticated,
    on_outage: OutagePolicy,
    accepts_bearer: bool,
    /// The cookies to delete. `None` if the response must not touch any.
    clear: Option<ClearScope>,
    /// Where a navigation is redirected to.
    login: Option<HeaderValue>,
}

impl Fallback {
    /// For a bearer token, whose outages end no session, and for requests that are rejected because of their form.
    fn without_cookies(head: &RequestHead<'_>, policies: &Policies) -> Self {
        Self {
            unauthenticated: policies.unauthenticated_at(head.uri).clone(),
            on_outage: OutagePolicy::KeepSession,
            accepts_bearer: policies.accepts_bearer(),
            clear: None,
            login: None,
        }
    }
}

/// Permission to call the inner service, with the additions to the request's extensions and to the response's cookies.
#[derive(Default)]
pub(crate) struct Grant {
    session: Option<Session>,
    /// The reason why there is no session, unless the request has no credentials.
    error: Option<AuthError>,
    accepts_bearer: bool,
    set_cookie: SetCookie,
}

impl Grant {
    /// Inserts the session, or its absence and the reason, into a request's extensions. Returns the response's cookies.
    pub(crate) fn insert_into(self, request: &mut Extensions) -> SetCookie {
        // Entries of outer layers are replaced or removed: handlers must be able to rely on them.
        if let Some(session) = self.session {
            request.insert(session);
        } else {
            request.remove::<Session>();
            request.insert(NoSession { accepts_bearer: self.accepts_bearer });
        }
        if let Some(error) = self.error {
            request.insert(error);
        } else {
            request.remove::<AuthError>();
        }
        self.set_cookie
    }
}

/// Marks a request that a layer has forwarded without a session.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "read by the extractors"))]
pub(crate) struct NoSession {
    pub(crate) accepts_bearer: bool,
}

/// The cookies to set on a response.
#[derive(Default)]
pub(crate) enum SetCookie {
    #[default]
    Nothing,
    /// Held until the inner service has responded: the grace period of the rotated token starts then.
    Delivery(Delivery),
    Fields(Vec<HeaderValue>),
}

impl SetCookie {
    /// Calls `add` with the fields to add to the response, if there are any.
    pub(crate) fn deliver(self, add: impl FnOnce(&[HeaderValue])) {
        match self {
            // After a logout meanwhile, the response sets no cookies. The handler has run by now.
            Self::Delivery(delivery) => {
                if let Ok(latest) = delivery.latest() {
                    add(&latest.set_cookie);
                }
            }
            Self::Fields(fields) if !fields.is_empty() => add(&fields),
            Self::Fields(_) | Self::Nothing => {}
        }
    }
}

/// The error to answer a request with, the cookies to set, and where to redirect to instead.
pub(crate) struct Rejection {
    pub(crate) error: AuthError,
    pub(crate) set_cookie: Vec<HeaderValue>,
    pub(crate) location: Option<HeaderValue>,
}

/// A request for one of the two routes whose body has not been read.
pub(crate) enum RouteRequest {
    Refresh(RefreshRequest),
    Logout(LogoutRequest),
}

pub(crate) struct RefreshRequest {
    authorizer: Arc<Authorizer>,
    cookie: Result<Option<Secret>, AuthError>,
    fallback: Fallback,
}

impl RefreshRequest {
    /// Refreshes the session of the body's token, or else the cookie's.
    pub(crate) async fn run(self, body: Result<Option<String>, AuthErrorKind>) -> Result<Arc<Refreshed>, Rejection> {
        let Self { authorizer, cookie, fallback } = self;
        let outcome = async {
            let token = match body? {
                Some(token) => token_of_body(&token)?,
                None => cookie?.ok_or(AuthErrorKind::MissingRefreshToken)?,
            };
            authorizer.refresh(token).await
        };
        outcome.await.map_err(|failure: Failure| authorizer.rejection(failure, &fallback))
    }

    pub(crate) fn exposes_secret(&self) -> bool {
        self.authorizer.settings().expose_refresh_secret
    }
}

pub(crate) struct LogoutRequest {
    authorizer: Arc<Authorizer>,
    /// In the `Authorization` header, and in the cookie.
    jwts: [Option<Secret>; 2],
    token: Option<Secret>,
    /// Whether the body may contain the refresh token: the caller has no cookie.
    pub(crate) expects_token: bool,
    set_cookie: Vec<HeaderValue>,
    location: Option<HeaderValue>,
    fallback: Fallback,
}

impl LogoutRequest {
    /// Revokes the session of the cookie's token, or else the body's. Returns the cookies to set, and where to redirect
    /// to.
    pub(crate) async fn run(
        self,
        body: Result<Option<String>, AuthErrorKind>,
    ) -> Result<(Vec<HeaderValue>, Option<HeaderValue>), Rejection> {
        let Self { authorizer, jwts, token, set_cookie, location, fallback, .. } = self;
        let of_body = match body.and_then(|token| token.map(|token| token_of_body(&token)).transpose()) {
            // A body that cannot be used does not keep anybody signed in.
            Err(kind) if jwts.iter().all(Option::is_none) => {
                return Err(authorizer.rejection(kind.into(), &fallback));
            }
            token => token.ok().flatten(),
        };
        if let Err(error) = authorizer.log_out(jwts.into_iter().flatten(), token.or(of_body)).await {
            authorizer.refresher.report_failed_logout(&error);
        }
        Ok((set_cookie, location))
    }
}

fn token_of_body(token: &str) -> Result<Secret, AuthErrorKind> {
    check_token(token.as_bytes()).map(Into::into).map_err(|_| AuthErrorKind::InvalidBody)
}
