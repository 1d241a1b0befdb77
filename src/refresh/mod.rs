//! The story of a refresh.
//!
//! [`Refresher::refresh`] is the way of one request: it joins the refresh of its token, finds that the token was rotated a
//! moment ago, or leads a refresh of its own. [`Refresher::lead`] is the task that does so: it sends the token, verifies the
//! answer, and remembers it. [`Refresher::revoke`] is the way of a logout.

mod digest;
mod grace;
mod limit;
mod negative_cache;
mod outcome;
mod refusal_run;
mod single_flight;

use std::{error::Error, pin::pin, sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use self::{
    digest::digest_of,
    limit::{LogoutLimit, RefreshLimit},
    refusal_run::RefusalRun,
    single_flight::{Joined, Leader, Outcome, Revocation, Revoked, SingleFlight},
};
pub(crate) use self::{
    outcome::{Failure, Refreshed, Rescued},
    single_flight::Delivery,
};
use crate::{
    config::Settings,
    cookies::{Cookies, MAX_COOKIE, is_cookie_value},
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    session::{AuthMaterial, RefreshToken, Session, User},
    stats::Counters,
    task_tracker::{TaskTracker, runtime},
    throttle::{Throttle, throttled},
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
    refusals: usize,
    outage_log: Throttle,
    refusal_log: Throttle,
    eviction_log: Throttle,
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
            refusals: settings.refusal_warning,
            outage_log: Throttle::default(),
            refusal_log: Throttle::default(),
            eviction_log: Throttle::default(),
        }
    }

    /// Refreshes a session: joins the refresh of its token, finds its result, or leads it.
    pub(crate) async fn refresh(self: &Arc<Self>, token: Secret) -> Outcome {
        let mut expired = None;
        let waiter = loop {
            let enqueue = || self.limit.enqueue().map_err(Into::into);
            match self.flights.join(token.clone(), expired.as_ref(), enqueue) {
                Joined::Remembered(delivery) if self.verifier.still_holds(&delivery.session) => {
                    self.counters.grace_hits.count();
                    return Ok(delivery);
                }
                // Once more: its successor is the token to refresh.
                Joined::Remembered(delivery) => expired = Some(delivery),
                Joined::Rejected(error) => return Err(error.into()),
                Joined::Waiter(waiter) => {
                    self.counters.joined.count();
                    tracing::trace!("joined a refresh");
                    break waiter;
                }
                Joined::Leader(leader, waiter, queued) => {
                    // A client that hangs up must not take the only copy of the successor with it.
                    self.tasks.spawn(Arc::clone(self).lead(leader, queued))?;
                    break waiter;
                }
            }
        };
        drop(expired);
        waiter.outcome().await
    }

    async fn lead(self: Arc<Self>, leader: Leader, queued: OwnedSemaphorePermit) {
        let outcome = {
            let mut exchange = pin!(self.exchange(leader.token()));
            match timeout(self.refresh_timeout, &mut exchange).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // The answer may still come, and contains the only copy of the successor.
                    leader.dismiss_waiters(AuthError::new(
                        AuthErrorKind::Unavailable,
                        "Crossmint did not answer in time",
                    ));
                    exchange.await
                }
            }
        };
        self.report(leader.token(), &outcome);
        let session = outcome.as_ref().ok().map(|refreshed| {
            let session = &refreshed.session;
            self.verifier.remember(session.verified().clone(), session.material().clone())
        });
        // In this order: a logout that comes in between finds the token.
        let finished = leader.finish(outcome);
        drop(queued);
        if finished.evicted > 0 {
            self.counters.grace_evictions.add(finished.evicted);
            if self.eviction_log.is_due() {
                tracing::warn!(
                    "rotated tokens are evicted before their grace period ends: raise `rotation_grace_bytes`"
                );
            }
        }
        if let Some(revoked) = finished.revoked {
            if let Some(session) = session {
                self.verifier.forget(session.jwt());
            }
            // The cookies are gone already: a failure changes nothing for the user.
            let _ = self.send_logout(&revoked).await;
        }
    }

    /// Exchanges a refresh token at Crossmint, and trusts nothing of the answer before it has been checked.
    ///
    /// Once Crossmint has answered, the token is rotated: whatever is wrong with the rest, the successor is not lost.
    async fn exchange(&self, token: &Secret) -> Result<Refreshed, Failure> {
        let permit = self.limit.acquire().await.map_err(AuthError::from)?;
        self.counters.refreshes.count();
        let answer = self.upstream.refresh(token).await;
        permit.record(answer.as_ref().err());
        // Verification needs no permit.
        drop(permit);
        let RefreshAnswer { jwt, secret, expires_at, user, bytes } = answer?;
        let token = secret.clone();
        let rescued = |error, set_cookie| Failure { error, rescued: Some(Arc::new(Rescued { token, set_cookie })) };
        let unusable = |why: Box<dyn Error + Send + Sync>| AuthError::new(AuthErrorKind::UnusableAnswer, why);
        let Some(jwt) = jwt else {
            return Err(rescued(unusable("Crossmint's answer has no JWT".into()), None));
        };
        let verified = match self.verifier.verify_issued(jwt.as_bytes()).await {
            Err(error) if error.kind() == AuthErrorKind::InvalidToken => {
                return Err(rescued(unusable(error.into()), None));
            }
            verified => verified,
        };
        let user = user.or_else(|| Some(User::with_id(&verified.as_ref().ok()?.user_id)));
        let material = AuthMaterial::from_parts(jwt, RefreshToken::from_parts(secret, expires_at), user);
        let set_cookie = match self.cookies.store(&material) {
            Ok(set_cookie) => set_cookie,
            Err(why) => return Err(rescued(unusable(why.into()), None)),
        };
        match verified {
            Ok(verified) if material.user().is_some_and(|user| *user.id != *verified.user_id) => {
                Err(rescued(unusable("the JWT and the user have different IDs".into()), None))
            }
            Ok(verified) => Ok(Refreshed::new(Session::refreshed(verified, material), set_cookie, bytes)),
            // No key can be loaded just now: the pair is as good as any.
            Err(error) => Err(rescued(error, Some(set_cookie))),
        }
    }

    fn report(&self, token: &Secret, outcome: &Result<Refreshed, Failure>) {
        let Err(Failure { error, .. }) = outcome else {
            self.refusal_run.end();
            return tracing::debug!("refreshed a session");
        };
        let (kind, error) = (error.kind(), error as &dyn Error);
        if kind != AuthErrorKind::Refused {
            throttled!(self.outage_log, error, ?kind, error, "a session was not refreshed: Crossmint is unavailable");
            return;
        }
        tracing::debug!(reason = "refused", error, "a session has ended");
        if self.refusal_run.completes_with(digest_of(token)) {
            self.counters.refusal_runs.count();
            if self.refusal_log.is_due() {
                tracing::warn!(
                    refusals = self.refusals,
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
    /// When Crossmint could not be told in time. There is nothing left to do then.
    pub(crate) async fn revoke(self: &Arc<Self>, token: Secret) -> Result<(), AuthError> {
        tracing::debug!(reason = "logout", "a session has ended");
        let Revoked { jwts, upstream } = self.flights.revoke(token);
        for jwt in jwts {
            self.verifier.forget(&jwt);
        }
        match upstream {
            Revocation::Now(token) => {
                // In a task of its own: a client that hangs up wants to sign out all the same.
                let refresher = Arc::clone(self);
                let call = self.tasks.spawn(async move { refresher.send_logout(&token).await })?;
                call.await.unwrap_or_else(|panic| Err(AuthError::new(AuthErrorKind::Unavailable, panic)))
            }
            Revocation::AfterRefresh(waiter) => {
                runtime()?;
                // The task of the refresh tells Crossmint.
                let _ = timeout(self.logout_timeout, waiter.outcome()).await;
                Ok(())
            }
        }
    }

    /// Waiting for a permit counts against the time limit of the call.
    async fn send_logout(&self, token: &Secret) -> Result<(), AuthError> {
        let call = async {
            let _permit = self.logout_limit.acquire().await?;
            self.upstream.logout(token).await
        };
        match timeout(self.logout_timeout, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AuthError::new(AuthErrorKind::Unavailable, "Crossmint did not answer in time")),
        }
    }
}

/// Checks that a refresh token can be one before it goes anywhere.
///
/// # Errors
///
/// When it cannot: it is not sent to Crossmint then.
pub(crate) fn check_token(token: &[u8]) -> Result<&str, AuthError> {
    let is_usable = !token.is_empty() && token.len() <= MAX_COOKIE && is_cookie_value(token);
    match std::str::from_utf8(token) {
        Ok(token) if is_usable => Ok(token),
        _ => Err(AuthError::of(AuthErrorKind::InvalidCredentials)),
    }
}
