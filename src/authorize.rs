//! What happens to a request: its method, path and headers in, one [`Decision`] out.
//!
//! [`Authorizer::authorize`] is synchronous. A decision that takes a call to Crossmint contains a future.

use std::sync::{Arc, Weak};

use futures_util::future::BoxFuture;
use http::{Extensions, HeaderValue, Method};

use crate::{
    config::{CorsPreflights, CrossmintAuthConfig, OutagePolicy, Settings, Unauthenticated},
    cookies::{ClearScope, CookieCredentials, Cookies, Slot},
    csrf::{RequestHead, Site},
    error::{AuthError, AuthErrorKind},
    handle_registry::Registration,
    jwks::JwksCache,
    refresh::{Delivery, Failure, Refreshed, Refresher, check_token},
    secret::Secret,
    session::{AuthMaterial, RefreshToken, Session},
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
    /// Calls the inner service or answers with an error, once Crossmint has answered.
    Pending(BoxFuture<'static, Result<Grant, Rejection>>),
    /// Answers the refresh route, once the body has been read.
    Refresh(RefreshRequest),
    /// Answers the logout route with these cookies.
    Logout(BoxFuture<'static, Vec<HeaderValue>>),
    /// Answers with an error.
    Reject(Rejection),
}

impl Authorizer {
    /// Builds the owners of state, each from those that it uses.
    ///
    /// Tasks keep `owner` alive, so that clones of the configuration find it while a call is in flight.
    pub(crate) fn new(config: CrossmintAuthConfig, owner: Weak<Self>) -> Self {
        let checked = config.checked();
        let (tasks, counters) = (TaskTracker::new(owner), Arc::new(Counters::default()));
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
    pub(crate) fn authorize(self: &Arc<Self>, head: &RequestHead<'_>) -> Decision {
        let settings = self.settings();
        // A preflight carries no cookies by design; the CORS layer behind this one answers it.
        if settings.cors_preflights == CorsPreflights::Pass && head.is_preflight() {
            return Decision::Forward(Grant::default());
        }
        if head.is_handshake() && !head.is_allowed(&self.site()) {
            return self.reject_form(AuthErrorKind::CrossSite);
        }
        let path = head.uri.path();
        let is_refresh = path == settings.refresh_route;
        if !is_refresh && path != settings.logout_route {
            return self.authorize_session(head);
        }
        if head.method != Method::POST {
            return self.reject_form(AuthErrorKind::MethodNotAllowed);
        }
        if !head.is_allowed(&self.site()) {
            return self.reject_form(AuthErrorKind::CrossSite);
        }
        let mut credentials = self.cookies.read(head.headers);
        self.ignore_foreign(&mut credentials);
        if !is_refresh {
            return self.authorize_logout(&credentials, head);
        }
        let cookie = credentials.one_refresh_token().and_then(|token| token.map(check_token).transpose());
        let (cookie, scope) = (cookie.map(|token| token.map(Into::into)), self.clear_scope(&credentials, head));
        Decision::Refresh(RefreshRequest { authorizer: Arc::clone(self), cookie, scope })
    }

    fn authorize_session(self: &Arc<Self>, head: &RequestHead<'_>) -> Decision {
        let mut credentials = self.cookies.read(head.headers);
        match self.look_up(&mut credentials) {
            Ok(Lookup::Session(session)) => Decision::Forward(Grant { session: Some(session), ..Grant::default() }),
            Ok(Lookup::Pending { jwt, refresh_token }) => {
                let (authorizer, scope) = (Arc::clone(self), self.clear_scope(&credentials, head));
                Decision::Pending(Box::pin(async move {
                    match authorizer.resolve(jwt, refresh_token).await {
                        Ok((session, delivery)) => {
                            let set_cookie = delivery.map_or(SetCookie::Nothing, SetCookie::Delivery);
                            Ok(Grant { session: Some(session), error: None, set_cookie })
                        }
                        Err(failure) => authorizer.allow_or_reject(failure, &scope),
                    }
                }))
            }
            Err(_) if self.settings().unauthenticated != Unauthenticated::Reject && credentials.is_empty() => {
                Decision::Forward(Grant::default())
            }
            Err(failure) => {
                let outcome = self.allow_or_reject(failure, &self.clear_scope(&credentials, head));
                outcome.map_or_else(Decision::Reject, Decision::Forward)
            }
        }
    }

    /// Resolves credentials to a session.
    pub(crate) async fn session(&self, mut credentials: CookieCredentials<'_>) -> Result<Session, Failure> {
        let (session, delivery) = match self.look_up(&mut credentials)? {
            Lookup::Session(session) => return Ok(session),
            Lookup::Pending { jwt, refresh_token } => self.resolve(jwt, refresh_token).await?,
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

    /// Revokes a session. Credentials without a refresh token, or with two, have none.
    pub(crate) async fn log_out(&self, jwt: Option<Secret>, token: Option<Secret>) -> Result<(), AuthError> {
        if let Some(jwt) = jwt {
            self.verifier.evict(&jwt);
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

    /// Looks up the session of credentials without waiting for Crossmint. Nearly all requests need no more than this.
    fn look_up(&self, credentials: &mut CookieCredentials<'_>) -> Result<Lookup, Failure> {
        let without_jwt = |token: &str| Ok(Lookup::Pending { jwt: None, refresh_token: token.into() });
        if let (Slot::One(jwt), Slot::One(token)) = (credentials.jwt, credentials.refresh_token)
            && let Some(session) = self.verifier.cached(jwt)
        {
            // Only verified JWTs are cached: this one is for our project, and so are the cookies beside it.
            if !self.verifier.is_live(&session) {
                // Known to have expired: reading its claims again would change nothing.
                return without_jwt(check_token(token)?);
            }
            if session.refresh_token().secret().as_bytes() == token {
                return Ok(Lookup::Session(session));
            }
            let material = AuthMaterial::pair(session.jwt(), check_token(token)?);
            return Ok(Lookup::Session(self.verifier.cache(session.verified().clone(), material)));
        }
        self.ignore_foreign(credentials);
        let token = check_token(credentials.one_refresh_token()?.ok_or(AuthErrorKind::MissingCredentials)?)?;
        let Slot::One(jwt) = credentials.jwt else { return without_jwt(token) };
        match (self.verifier.check(jwt), std::str::from_utf8(jwt)) {
            (Ok(verified), Ok(jwt)) => {
                Ok(Lookup::Session(self.verifier.cache(verified, AuthMaterial::pair(jwt, token))))
            }
            (Err(Unverifiable::UnknownKey { .. } | Unverifiable::NoKeys), Ok(jwt)) => {
                let [jwt, refresh_token] = Secret::pair(jwt, token);
                Ok(Lookup::Pending { jwt: Some(jwt), refresh_token })
            }
            // An invalid JWT can have any length: it is not kept while the refresh is in flight.
            (Err(Unverifiable::Invalid(_)), _) | (_, Err(_)) => without_jwt(token),
        }
    }

    /// Resolves a refresh token, with a JWT that may be valid, to a session, and to its delivery if it was refreshed.
    async fn resolve(
        &self,
        jwt: Option<Secret>,
        refresh_token: Secret,
    ) -> Result<(Session, Option<Delivery>), Failure> {
        // Without keys nothing can be verified: the refresh token would be used up for a session that cannot be
        // trusted.
        self.verifier.ensure_keys().await?;
        if let Some(jwt) = jwt {
            match self.verifier.verify(jwt.as_bytes()).await {
                Ok(verified) => {
                    let material = AuthMaterial::from_parts(jwt, RefreshToken::from_parts(refresh_token, None), None);
                    return Ok((self.verifier.cache(verified, material), None));
                }
                // Refreshed below, as if it had expired.
                Err(error) if error.kind() == AuthErrorKind::InvalidToken => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A copy, because the token shares an allocation with the JWT, which need not be kept during the refresh.
        let delivery = self.refresher.refresh((&*refresh_token).into()).await?;
        Ok((delivery.refreshed.session.clone(), Some(delivery)))
    }

    /// Revokes the session and deletes the cookies, whether or not Crossmint answers within the time limit.
    fn authorize_logout(self: &Arc<Self>, credentials: &CookieCredentials<'_>, head: &RequestHead<'_>) -> Decision {
        // The route is protected against other sites, so the request may delete cookies that it does not carry.
        let mut scope = ClearScope::new(credentials, head.uri, head.headers);
        scope.is_logout = true;
        let cleared = self.cookies.clear(&scope);
        let (authorizer, jwt, token) = (Arc::clone(self), credentials.jwt.text(), credentials.refresh_token.text());
        Decision::Logout(Box::pin(async move {
            if let Err(error) = authorizer.log_out(jwt, token).await {
                authorizer.refresher.report_failed_logout(&error);
            }
            cleared
        }))
    }

    /// Forwards a request without a session if the policy allows that.
    fn allow_or_reject(&self, failure: Failure, scope: &ClearScope) -> Result<Grant, Rejection> {
        let Rejection { error, set_cookie } = self.rejection(failure, scope);
        match self.settings().unauthenticated {
            Unauthenticated::Allow => {
                Ok(Grant { session: None, error: Some(error), set_cookie: SetCookie::Fields(set_cookie) })
            }
            Unauthenticated::Reject | Unauthenticated::AllowMissing => Err(Rejection { error, set_cookie }),
        }
    }

    /// Rejects a request because of its form. Its cookies are not deleted.
    fn reject_form(&self, kind: AuthErrorKind) -> Decision {
        Decision::Reject(self.rejection(kind.into(), &ClearScope::default()))
    }

    fn rejection(&self, Failure { error, rescued }: Failure, scope: &ClearScope) -> Rejection {
        self.counters.rejection(error.kind());
        // The policy travels with the error, since an extractor may answer with it later. It decides between 401, which
        // ends the session and deletes the cookies, and 503, which keeps them.
        let error = error.with_outage_ending_session(self.settings().on_outage == OutagePolicy::EndSession);
        let set_cookie = if error.ends_session() {
            self.cookies.clear(scope)
        } else {
            rescued.and_then(|rescued| rescued.set_cookie.clone()).map_or_else(Vec::new, Vec::from)
        };
        Rejection { error, set_cookie }
    }

    fn clear_scope(&self, credentials: &CookieCredentials<'_>, head: &RequestHead<'_>) -> ClearScope {
        let mut scope = ClearScope::new(credentials, head.uri, head.headers);
        scope.is_partial |= head.is_from_elsewhere(&self.site());
        scope
    }

    fn site(&self) -> Site<'_> {
        let Settings { trusted_origins, cookies, .. } = self.settings();
        Site { trusted_origins, is_https: cookies.secure }
    }

    fn settings(&self) -> &Settings {
        &self.config.checked().settings
    }
}

/// The result of a look-up without a call to Crossmint.
enum Lookup {
    Session(Session),
    /// The JWT is missing, expired or invalid (`None`), so that the session has to be refreshed; or the key that
    /// verifies it is not loaded (`Some`).
    Pending {
        jwt: Option<Secret>,
        refresh_token: Secret,
    },
}

/// Permission to call the inner service, with the additions to the request's extensions and to the response's cookies.
#[derive(Default)]
pub(crate) struct Grant {
    session: Option<Session>,
    /// The reason why there is no session, unless the request has no credentials.
    error: Option<AuthError>,
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

/// Marks a request that a layer has forwarded without a session.
#[derive(Clone, Copy)]
pub(crate) struct NoSession;

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
    pub(crate) fn into_fields(self) -> Vec<HeaderValue> {
        match self {
            Self::Nothing => Vec::new(),
            // After a logout meanwhile, the response sets no cookies. The handler has run by now.
            Self::Delivery(delivery) => delivery.latest().map(|latest| latest.set_cookie.to_vec()).unwrap_or_default(),
            Self::Fields(fields) => fields,
        }
    }
}

/// The error to answer a request with, and the cookies to set.
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
