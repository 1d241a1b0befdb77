//! What happens to a request: the decision, and what it needs to be carried out.

use std::{error::Error, sync::Arc};

use futures_util::future::BoxFuture;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method,
    header::{CACHE_CONTROL, SET_COOKIE},
};

use super::{
    Credentials, CrossmintAuth,
    cookies::{ClearScope, Cookies, Presented},
    grace::Renewal,
    origin::{RequestHead, Site},
    renewal::{Failure, Handout},
    sessions::{Judgement, Resolved, usable_secret},
};
use crate::{
    config::{CorsPreflights, Unauthenticated},
    error::{AuthError, AuthErrorKind, CookieFate, Disposition},
    secret::Secret,
    session::Session,
};

impl CrossmintAuth {
    /// Decides what happens to a request, as far as that is possible at once.
    pub(crate) fn admit(&self, head: &RequestHead<'_>) -> Admission {
        let settings = &self.0.settings;
        // It carries no cookies by design; the CORS layer behind this one answers it.
        if settings.cors_preflights == CorsPreflights::Pass && head.is_preflight() {
            return Admission::Decided(Verdict::Forward(Passage::default()));
        }
        if head.is_handshake() && !head.is_allowed(&self.site()) {
            return self.reject(AuthErrorKind::CrossSite);
        }
        let path = head.uri.path();
        let is_refresh = path == settings.refresh_route;
        if !is_refresh && path != settings.logout_route {
            return self.admit_session(head);
        }
        if head.method != Method::POST {
            return self.reject(AuthErrorKind::MethodNotAllowed);
        }
        if !head.is_allowed(&self.site()) {
            return self.reject(AuthErrorKind::CrossSite);
        }
        let mut presented = self.0.cookies.read(head.headers);
        self.leave_out_neighbours(&mut presented);
        if is_refresh {
            let (cookie, scope) = (cookie_token(&presented), self.clear_scope(&presented, head));
            Admission::Refresh(RefreshCall { auth: self.clone(), cookie, scope })
        } else {
            // Whoever may call this route wants the session to end, whether or not its cookies came along.
            let scope = ClearScope::new(presented.carried, head.uri, head.headers).for_logout();
            Admission::Logout(self.log_out(&presented, &scope))
        }
    }

    fn admit_session(&self, head: &RequestHead<'_>) -> Admission {
        let mut presented = self.0.cookies.read(head.headers);
        Admission::Decided(match self.judge(&mut presented) {
            Ok(Judgement::Valid(session)) => Verdict::Forward(Resolved::Known(session).into()),
            Ok(Judgement::Open(pair)) => {
                let (auth, scope) = (self.clone(), self.clear_scope(&presented, head));
                return Admission::Pending(Box::pin(async move {
                    match auth.resolve(pair).await {
                        Ok(resolved) => Verdict::Forward(resolved.into()),
                        Err(failure) => auth.refuse(failure, &scope),
                    }
                }));
            }
            Err(_) if self.0.settings.unauthenticated != Unauthenticated::Reject && presented.is_empty() => {
                Verdict::Forward(Passage::default())
            }
            Err(error) => self.refuse(error.into(), &self.clear_scope(&presented, head)),
        })
    }

    fn clear_scope(&self, presented: &Presented<'_>, head: &RequestHead<'_>) -> ClearScope {
        let scope = ClearScope::new(presented.carried, head.uri, head.headers);
        if head.is_from_elsewhere(&self.site()) { scope.partial() } else { scope }
    }

    fn site(&self) -> Site<'_> {
        let settings = &self.0.settings;
        Site { trusted_origins: &settings.trusted_origins, is_https: settings.cookies.secure }
    }

    /// The layer's logout: the answer waits for Crossmint as long as the time limit says, and does not depend on it.
    fn log_out(&self, presented: &Presented<'_>, scope: &ClearScope) -> BoxFuture<'static, Vec<HeaderValue>> {
        let cleared = self.0.cookies.clear(scope);
        let (auth, jwt, secret) = (self.clone(), presented.jwt.text(), presented.refresh_token.text());
        Box::pin(async move {
            let credentials =
                Credentials::pair(jwt.as_deref().unwrap_or_default(), secret.as_deref().unwrap_or_default());
            if let Err(error) = auth.logout(credentials).await {
                let error = &error as &dyn Error;
                if auth.0.logout_log.is_due() {
                    tracing::info!(error, "Crossmint was not told of a logout");
                } else {
                    tracing::debug!(error, "Crossmint was not told of a logout");
                }
            }
            cleared
        })
    }

    /// Turns a failure into what happens to the request.
    fn refuse(&self, failure: Failure, scope: &ClearScope) -> Verdict {
        let rejection = self.rejection(failure, scope);
        match self.0.settings.unauthenticated {
            Unauthenticated::Allow => {
                let set_cookie = SetCookie::Fields(rejection.set_cookie);
                Verdict::Forward(Passage { session: None, error: Some(rejection.error), set_cookie })
            }
            Unauthenticated::Reject | Unauthenticated::AllowMissing => Verdict::Rejected(rejection),
        }
    }

    /// Refuses a request for what it is, which says nothing of the session.
    fn reject(&self, kind: AuthErrorKind) -> Admission {
        Admission::Decided(Verdict::Rejected(self.rejection(kind.into(), &ClearScope::default())))
    }

    fn rejection(&self, Failure { error, rescued }: Failure, scope: &ClearScope) -> Rejection {
        self.0.counters.refusal(error.kind());
        let error = error.under(self.0.settings.on_outage);
        let disposition = error.disposition();
        let set_cookie = match disposition.cookies {
            CookieFate::Cleared => self.0.cookies.clear(scope),
            CookieFate::Kept => rescued.and_then(|rescued| rescued.set_cookie.clone()).map_or_else(Vec::new, Vec::from),
        };
        Rejection { error, disposition, set_cookie }
    }
}

/// What [`CrossmintAuth::admit`] decides.
pub(crate) enum Admission {
    /// Do as it says.
    Decided(Verdict),
    /// Wait for this, then do as it says.
    Pending(BoxFuture<'static, Verdict>),
    /// Answer the refresh route, once its body has been read.
    Refresh(RefreshCall),
    /// Answer the logout route with these cookies.
    Logout(BoxFuture<'static, Vec<HeaderValue>>),
}

/// What happens to a request that is for none of the two routes.
pub(crate) enum Verdict {
    /// Call the inner service.
    Forward(Passage),
    /// Answer with this.
    Rejected(Rejection),
}

/// A request's leave to pass: what it is told, and what its response sets on the way out.
#[derive(Default)]
pub(crate) struct Passage {
    session: Option<Session>,
    /// Why there is no session, if that was worth a word.
    error: Option<AuthError>,
    set_cookie: SetCookie,
}

impl Passage {
    /// Puts the session, or its absence and the reason, into a request's extensions. Whatever was there before goes: only
    /// this layer says who is signed in. Returns what is left for the response.
    pub(crate) fn enter(self, request: &mut Extensions) -> SetCookie {
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

/// The mark of a request that a layer has passed on without a session.
#[derive(Clone, Copy)]
pub(crate) struct NoSession;

impl From<Resolved> for Passage {
    fn from(resolved: Resolved) -> Self {
        match resolved {
            Resolved::Known(session) => Self { session: Some(session), ..Self::default() },
            Resolved::Renewed(renewal) => {
                let session = Some(renewal.session.clone());
                Self { session, set_cookie: SetCookie::Renewed(renewal), ..Self::default() }
            }
        }
    }
}

/// The cookies that a response sets on its way out.
#[derive(Default)]
pub(crate) enum SetCookie {
    #[default]
    Nothing,
    /// Held until the response is on its way: the grace period of the old token starts then.
    Renewed(Handout),
    Fields(Vec<HeaderValue>),
}

impl SetCookie {
    pub(crate) fn into_fields(self) -> Vec<HeaderValue> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Renewed(handout) => {
                handout.deliver().map_or_else(|_| Vec::new(), |latest| latest.set_cookie.to_vec())
            }
            Self::Fields(fields) => fields,
        }
    }
}

/// Everything that an answer to a refused request says.
pub(crate) struct Rejection {
    pub(crate) error: AuthError,
    pub(crate) disposition: Disposition,
    pub(crate) set_cookie: Vec<HeaderValue>,
}

/// A call of the refresh route whose body is still to come.
pub(crate) struct RefreshCall {
    auth: CrossmintAuth,
    cookie: Result<Option<Secret>, AuthError>,
    scope: ClearScope,
}

impl RefreshCall {
    /// Renews the session that the body's token stands for, or else the cookie's.
    pub(crate) async fn run(self, body: Result<Option<String>, AuthErrorKind>) -> Result<Arc<Renewal>, Rejection> {
        let Self { auth, cookie, scope } = self;
        let outcome = async {
            let secret = match body? {
                Some(token) => usable_secret(token.as_bytes()).map_err(|_| AuthErrorKind::InvalidBody)?,
                None => cookie?.ok_or(AuthErrorKind::MissingRefreshToken)?,
            };
            auth.ensure_keys().await?;
            Ok(auth.renew(secret).await?.deliver()?)
        };
        outcome.await.map_err(|failure: Failure| auth.rejection(failure, &scope))
    }

    pub(crate) fn exposes_secret(&self) -> bool {
        self.auth.0.settings.expose_refresh_secret
    }
}

fn cookie_token(presented: &Presented<'_>) -> Result<Option<Secret>, AuthError> {
    presented.one_refresh_token()?.map(usable_secret).transpose()
}

/// Adds cookies to a response, except where the application has set a cookie of that name itself.
pub(crate) fn add_cookies(headers: &mut HeaderMap, set_cookie: &[HeaderValue]) {
    let is_free = |cookie: &&HeaderValue| {
        !headers.get_all(SET_COOKIE).iter().any(|present| Cookies::same_cookie(present, cookie))
    };
    // Before the first is added: two that are cleared may differ in nothing but the domain.
    let added: Vec<&HeaderValue> = set_cookie.iter().filter(is_free).collect();
    for cookie in added {
        headers.append(SET_COOKIE, cookie.clone());
    }
    forbid_caching(headers);
}

/// Keeps caches from storing a response with somebody's cookies, whatever the application has said.
fn forbid_caching(headers: &mut HeaderMap) {
    // Fields for one kind of cache take precedence over `Cache-Control` there (RFC 9213 section 2.2).
    let is_targeted = |name: &&HeaderName| {
        name.as_str().ends_with("-cache-control")
            || ["surrogate-control", "x-accel-expires", "edge-control"].contains(&name.as_str())
    };
    let targeted: Vec<HeaderName> = headers.keys().filter(is_targeted).cloned().collect();
    for name in targeted {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Sets cookies on a response, in place of those of the same names.
pub(super) fn set_cookies(headers: &mut HeaderMap, set_cookie: &[HeaderValue]) {
    let present: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in present.iter().filter(|present| !set_cookie.iter().any(|new| Cookies::same_cookie(present, new))) {
        headers.append(SET_COOKIE, cookie.clone());
    }
    add_cookies(headers, set_cookie);
}
