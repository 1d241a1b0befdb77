//! The course of a refresh.
//!
//! [`Refresher::refresh`] is the path of one request: it joins the refresh of its token, finds that the token was
//! rotated a moment ago, or starts a refresh. [`Refresher::lead`] is the task of that refresh: it sends the token,
//! verifies the answer, and remembers it. [`Refresher::revoke`] is the path of a logout.

mod digest;
mod grace;
mod limit;
mod negative_cache;
mod refreshed;
mod refusal_run;
mod single_flight;

use std::{error::Error, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tracing::Instrument as _;

use self::{
    digest::digest_of,
    limit::{LogoutLimit, RefreshLimit},
    refusal_run::RefusalRun,
    single_flight::{Joined, Leader, Outcome, Revocation, SingleFlight},
};
pub(crate) use self::{
    refreshed::{Failure, Refreshed, Rescued},
    single_flight::Delivery,
};
use crate::{
    config::Settings,
    cookies::{Cookies, MAX_COOKIE, is_cookie_value},
    error::{AuthError, AuthErrorKind},
    log_throttle::{Throttle, throttled},
    secret::Secret,
    session::{AuthMaterial, RefreshToken, Session, User},
    stats::{Counters, RefreshTimer},
    task_tracker::{TaskTracker, runtime},
    upstream::{RefreshAnswer, Upstream},
    verify::Verifier,
};

/// Refreshes and revokes sessions.
pub(crate) struct Refresher {
    flights: Arc<SingleFlight>,
    limit: RefreshLimit,
    logout_limit: LogoutLimit,
    refresh_timeout: Duration,
    logout_timeout: Duration,
    upstream: Arc<Upstream>,
    verifier: Arc<Verifier>,
    cookies: Arc<Cookies>,
    tasks: TaskTracker,
    counters: Arc<Counters>,
    refusal_run: RefusalRun,
    outage_log: Throttle,
    refusal_log: Throttle,
    eviction_log: Throttle,
    logout_log: Throttle,
}

impl Refresher {
    pub(crate) fn new(
        settings: &Settings,
        upstream: Arc<Upstream>,
        verifier: Arc<Verifier>,
        cookies: Arc<Cookies>,
        tasks: TaskTracker,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            flights: Arc::new(SingleFlight::new(settings.rotation_grace, settings.rotation_grace_bytes)),
            limit: RefreshLimit::new(settings.max_concurrent_refreshes, settings.refresh_timeout),
            logout_limit: LogoutLimit::new(settings.max_concurrent_refreshes),
            refresh_timeout: settings.refresh_timeout,
            logout_timeout: settings.logout_timeout,
            upstream,
            verifier,
            cookies,
            tasks,
            counters,
            refusal_run: RefusalRun::new(settings.refusal_warning),
            outage_log: Throttle::default(),
            refusal_log: Throttle::default(),
            eviction_log: Throttle::default(),
            logout_log: Throttle::default(),
        }
    }

    /// Refreshes a session: joins the refresh of its token, finds its result, or leads it.
    pub(crate) async fn refresh(self: &Arc<Self>, token: Secret) -> Outcome {
        let mut expired = None;
        let waiter = loop {
            match self.flights.join(token.clone(), expired.as_ref(), || self.limit.enqueue())? {
                Joined::Remembered(delivery) if self.verifier.still_holds(&delivery.refreshed.session) => {
                    self.counters.grace_hits.count();
                    return Ok(delivery);
                }
                // A second round refreshes the successor in its place. A third one is rare: another request was faster.
                Joined::Remembered(delivery) => expired = Some(delivery),
                Joined::Waiter(waiter) => {
                    self.counters.joined.count();
                    tracing::trace!("joined a refresh");
                    break waiter;
                }
                Joined::Leader(leader, waiter, queued) => {
                    // A client that hangs up must not take the only copy of the successor with it.
                    self.tasks.spawn(Arc::clone(self).lead(leader, queued).in_current_span())?;
                    break waiter;
                }
            }
        };
        // Its hold on the family must not outlive this decision: the leader has one of its own.
        drop(expired);
        waiter.outcome().await
    }

    async fn lead(self: Arc<Self>, leader: Leader, queued: OwnedSemaphorePermit) {
        let outcome = {
            let mut exchange = pin!(self.exchange(&leader.token));
            match timeout(self.refresh_timeout, &mut exchange).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // A late answer contains the only copy of the successor.
                    leader.dismiss_waiters(timed_out());
                    // It ends: the wait for a permit, the call and the key set have time limits of their own.
                    exchange.await
                }
            }
        };
        self.report(&leader.token, &outcome);
        let session = outcome.as_ref().ok().map(|refreshed| {
            let session = &refreshed.session;
            self.verifier.cache(session.verified().clone(), refreshed.material().clone())
        });
        // Not before the session is cached: a logout in between would leave the JWT in the cache.
        let (revoked, evicted) = leader.finish(outcome);
        drop(queued);
        if evicted > 0 {
            self.counters.grace_evictions.add(evicted);
            if self.eviction_log.is_due() {
                tracing::warn!(
                    "rotated tokens are evicted before their grace period ends: raise `rotation_grace_bytes`"
                );
            }
        }
        if let Some(revoked) = revoked {
            if let Some(session) = session {
                self.verifier.revoke(session.jwt());
            }
            if let Err(error) = self.send_logout(&revoked).await {
                self.report_failed_logout(&error);
            }
        }
    }

    /// Exchanges a refresh token at Crossmint, and checks the whole answer before it is used.
    ///
    /// Once Crossmint has answered, the token is rotated: whatever is wrong with the rest, the successor must be kept.
    async fn exchange(&self, token: &Secret) -> Result<Refreshed, Failure> {
        let permit = self.limit.acquire().await?;
        self.counters.refreshes.count();
        let timer = RefreshTimer::start(&self.counters.recorder);
        let answer = self.upstream.refresh(token).await;
        timer.stop(answer.as_ref().err());
        permit.record(answer.as_ref().err());
        // Verification needs no permit.
        drop(permit);
        let RefreshAnswer { jwt, secret, expires_at, user, bytes } = answer?;
        let token = secret.clone();
        let rescue = |error, set_cookie| {
            let token = token.clone();
            Failure { error, rescued: Some(Arc::new(Rescued { token, set_cookie })) }
        };
        let unusable =
            |why: Box<dyn Error + Send + Sync>| rescue(AuthError::new(AuthErrorKind::UnusableAnswer, why), None);
        let jwt = jwt.ok_or_else(|| unusable("Crossmint's answer has no JWT".into()))?;
        let verified = match self.verifier.verify_issued(jwt.as_bytes()).await {
            Err(error) if error.kind() == AuthErrorKind::InvalidToken => return Err(unusable(error.into())),
            verified => verified,
        };
        let user = user.or_else(|| Some(User::with_id(&verified.as_ref().ok()?.user_id)));
        let material = AuthMaterial::from_parts(jwt, RefreshToken::from_parts(secret, expires_at), user);
        let set_cookie = self.cookies.store(&material).map_err(|why| unusable(why.into()))?;
        match verified {
            Ok(verified) if material.user().is_some_and(|user| *user.id != *verified.user_id) => {
                Err(unusable("the JWT and the user have different IDs".into()))
            }
            Ok(verified) => Ok(Refreshed { session: Session::refreshed(verified, material), set_cookie, bytes }),
            // No key can be loaded now. The pair is kept: the browser gets it under `KeepSession`, and has no other
            // copy.
            Err(error) => Err(rescue(error, Some(set_cookie))),
        }
    }

    fn report(&self, token: &Secret, outcome: &Result<Refreshed, Failure>) {
        self.counters.refreshed(outcome.as_ref().err().map(|failure| &failure.error));
        let Err(Failure { error, rescued }) = outcome else {
            self.refusal_run.end();
            return tracing::debug!("refreshed a session");
        };
        if rescued.is_some() {
            // Crossmint has accepted the token, whatever is wrong with the rest of its answer.
            self.refusal_run.end();
        }
        if error.kind() != AuthErrorKind::Refused {
            let kind = error.kind().as_str();
            throttled!(self.outage_log, error, kind, error = %error.causes(), "could not refresh a session");
            return;
        }
        tracing::debug!(reason = "refused", error = %error.causes(), "a session has ended");
        if self.refusal_run.completes_with(digest_of(token)) {
            self.counters.refusal_runs.count();
            if self.refusal_log.is_due() {
                tracing::warn!(
                    refusals = self.refusal_run.threshold,
                    "Crossmint refuses all refresh tokens: check that the API key is valid and belongs to this project; \
                     made-up tokens in large numbers look the same"
                );
            }
        }
    }

    /// Ends a session, here and at Crossmint.
    ///
    /// # Errors
    ///
    /// When the call to Crossmint failed or timed out. It is not repeated.
    pub(crate) async fn revoke(self: &Arc<Self>, token: Secret) -> Result<(), AuthError> {
        tracing::debug!(reason = "logout", "a session has ended");
        let (jwts, revocation) = self.flights.revoke(token);
        jwts.iter().for_each(|jwt| self.verifier.revoke(jwt));
        match revocation {
            Revocation::Now(token) => {
                // In a task of its own: a client that hangs up must be signed out, too.
                let refresher = Arc::clone(self);
                let logout = async move { refresher.send_logout(&token).await };
                let call = self.tasks.spawn(logout.in_current_span())?;
                call.await.unwrap_or_else(|panic| Err(AuthError::new(AuthErrorKind::Unavailable, panic)))
            }
            Revocation::AfterRefresh(waiter) => {
                runtime()?;
                // The task of the refresh revokes the successor, also after this time limit.
                timeout(self.logout_timeout, waiter.outcome()).await.map(drop).map_err(|_| timed_out())
            }
        }
    }

    /// Logs that a session may still be alive at Crossmint, although its user has signed out.
    pub(crate) fn report_failed_logout(&self, error: &AuthError) {
        throttled!(self.logout_log, info, error = %error.causes(), "could not revoke a session at Crossmint");
    }

    /// Waiting for a permit counts against the time limit of the call.
    async fn send_logout(&self, token: &Secret) -> Result<(), AuthError> {
        let queued = Instant::now();
        let _permit = timeout(self.logout_timeout, self.logout_limit.acquire()).await.map_err(|_| timed_out())??;
        // The call has a time limit of its own: its span cannot record a time-out if the call is dropped.
        self.upstream.logout(token, self.logout_timeout.saturating_sub(queued.elapsed())).await
    }
}

fn timed_out() -> AuthError {
    AuthError::new(AuthErrorKind::Unavailable, "Crossmint did not answer in time")
}

/// Checks that a string can be a refresh token, before it is sent to Crossmint.
///
/// # Errors
///
/// When it cannot.
pub(crate) fn check_token(token: &[u8]) -> Result<&str, AuthError> {
    let is_usable = !token.is_empty() && token.len() <= MAX_COOKIE && is_cookie_value(token);
    let token = std::str::from_utf8(token).ok().filter(|_| is_usable);
    token.ok_or_else(|| AuthError::of(AuthErrorKind::InvalidCredentials))
}
