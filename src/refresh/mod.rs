//! The course of a refresh.
//!
//! [`Refresher::refresh`] is the path of one request: it joins the refresh of its token, finds that the token was
//! rotated a moment ago, or starts a refresh. [`Refresher::lead`] is the task of that refresh: it sends the token, or
//! finds that another replica has sent it, verifies the answer, and remembers it. [`Refresher::revoke`] is the path of a
//! logout.

mod digest;
mod grace;
mod limit;
mod negative_cache;
mod refreshed;
mod refusal_run;
#[cfg(feature = "redis")]
mod shared;
mod single_flight;
#[cfg(not(feature = "redis"))]
mod unshared;

use std::{error::Error, pin::pin, sync::Arc, time::Duration};

use futures_util::future::join;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tracing::Instrument as _;

#[cfg(feature = "redis")]
use self::shared::{Ended, Exchange, SharedRenewals, Standing};
#[cfg(not(feature = "redis"))]
use self::unshared::{Ended, SharedRenewals, Standing};
use self::{
    digest::digest_of,
    limit::{LogoutLimit, Permit, RefreshLimit},
    refreshed::Receipt,
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
    task_tracker::TaskTracker,
    upstream::{RefreshAnswer, Upstream},
    verify::Verifier,
};

/// Refreshes and revokes sessions.
pub(crate) struct Refresher {
    flights: Arc<SingleFlight>,
    /// `None` where replicas do not share their refreshes.
    shared: Option<Arc<SharedRenewals>>,
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
            shared: SharedRenewals::new(settings, &tasks, &counters),
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
            // Not in the `match`, which would keep room for the `Result` as well while it waits.
            let joined = self.flights.join(token.clone(), expired.as_ref(), || self.limit.enqueue())?;
            match joined {
                Joined::Remembered(delivery) if self.verifier.still_holds(&delivery.refreshed.session) => {
                    match self.standing(&delivery).await {
                        Standing::Current => {
                            self.counters.grace_hits.count();
                            return Ok(delivery);
                        }
                        // Found at the other replica by a refresh.
                        Standing::Rotated => expired = Some(delivery),
                        Standing::Ended => {
                            let (jwts, _) = self.flights.revoke(token);
                            self.refuse(&jwts);
                            return Err(AuthErrorKind::Refused.into());
                        }
                    }
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
                self.refuse([session.jwt_secret()]);
            }
            self.revoke_or_report(&revoked).await;
        }
    }

    /// Exchanges a refresh token, here or at another replica, for a session.
    async fn exchange(self: &Arc<Self>, token: &Secret) -> Result<Refreshed, Failure> {
        let Some(shared) = &self.shared else {
            let permit = self.limit.acquire().await?;
            return self.accept(self.send(permit, token).await?, Receipt::default()).await;
        };
        let mut course = shared.course(token);
        let outcome = match course.exchange(self).await {
            Ok(answer) => self.accept(answer, Receipt::new(course.deliver())).await,
            Err(error) => Err(error.into()),
        };
        outcome.map_err(|mut failure| {
            // The token itself is spent.
            let rescue = |token: &Secret| Arc::new(Rescued { token: token.clone(), set_cookie: None });
            failure.rescued = failure.rescued.or_else(|| course.successor().map(rescue));
            failure
        })
    }

    /// Sends a refresh token to Crossmint.
    async fn send(&self, permit: Permit<'_>, token: &Secret) -> Result<RefreshAnswer, AuthError> {
        self.counters.refreshes.count();
        let timer = RefreshTimer::start(&self.counters.recorder);
        let answer = self.upstream.refresh(token).await;
        timer.stop(answer.as_ref().err());
        permit.record(answer.as_ref().err());
        answer
    }

    /// Checks the whole of an answer before it is used.
    ///
    /// Once Crossmint has answered, the token is rotated: whatever is wrong with the rest, the successor must be kept.
    async fn accept(&self, answer: RefreshAnswer, receipt: Receipt) -> Result<Refreshed, Failure> {
        let RefreshAnswer { jwt, secret, expires_at, user, body } = answer;
        let bytes = body.len();
        // Verification takes time.
        drop(body);
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
            Ok(verified) => {
                let session = Session::refreshed(verified, material);
                Ok(Refreshed { receipt, ..Refreshed::new(session, set_cookie, bytes) })
            }
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

    /// Refuses JWTs from now on, here and at the other replicas.
    pub(crate) fn refuse<'a>(&self, jwts: impl IntoIterator<Item = &'a Secret>) {
        let revoked = jwts.into_iter().filter_map(|jwt| self.verifier.revoke(jwt)).collect();
        if let Some(shared) = &self.shared {
            shared.publish(revoked);
        }
    }

    /// Ends a session, here, at the other replicas and at Crossmint.
    ///
    /// # Errors
    ///
    /// When the call to Crossmint failed or timed out. It is not repeated.
    pub(crate) async fn revoke(self: &Arc<Self>, token: Secret) -> Result<(), AuthError> {
        tracing::debug!(reason = "logout", "a session has ended");
        let (jwts, revocation) = self.flights.revoke(token.clone());
        self.refuse(&jwts);
        // In a task of its own: a client that hangs up must be signed out, too.
        let refresher = Arc::clone(self);
        match revocation {
            Revocation::Now(latest) => {
                let logout = async move {
                    match refresher.end(&token, latest).await {
                        Some(latest) => refresher.send_logout(&latest).await,
                        None => Ok(()),
                    }
                };
                let call = self.tasks.spawn(logout.in_current_span())?;
                call.await.unwrap_or_else(|panic| Err(AuthError::new(AuthErrorKind::Unavailable, panic)))
            }
            Revocation::AfterRefresh(waiter) => {
                // The refresh may be that of another replica, which learns of the logout this way.
                let end = self.tasks.spawn(async move { refresher.end(&token, token.clone()).await })?;
                // The task of the refresh revokes the successor, also after this time limit.
                timeout(self.logout_timeout, join(waiter.outcome(), end)).await.map(drop).map_err(|_| timed_out())
            }
        }
    }

    /// Ends a session at the other replicas. Returns the token to revoke at Crossmint, which is `latest` unless another
    /// replica has rotated it. `None` if that is the task of a refresh under way elsewhere.
    async fn end(self: &Arc<Self>, token: &Secret, latest: Secret) -> Option<Secret> {
        let Some(shared) = &self.shared else { return Some(latest) };
        let mut ended = shared.end(token).await;
        // The store may not know that it was rotated.
        if ended.last.as_ref().is_some_and(|last| **last == **token) && *latest != **token {
            self.refuse(&ended.jwts);
            ended = shared.end(&latest).await;
        }
        self.carry_out(ended, latest)
    }

    /// Carries out what is left of a logout. Returns the token to revoke at Crossmint.
    fn carry_out(self: &Arc<Self>, ended: Ended, latest: Secret) -> Option<Secret> {
        self.refuse(&ended.jwts);
        // Without a runtime, nobody is served either.
        if let Some(claimed) = ended.claimed {
            let _ = self.tasks.spawn(Arc::clone(self).end_claimed(claimed));
        }
        if !ended.is_recorded {
            let last = ended.last.clone().unwrap_or(latest);
            let _ = self.tasks.spawn(Arc::clone(self).end_later(last));
        }
        ended.last
    }

    /// Revokes a token whose refresh at another replica has not ended, because that replica has died.
    async fn end_claimed(self: Arc<Self>, token: Secret) {
        if let Some(shared) = &self.shared
            && !shared.claimer_finishes(&token).await
        {
            self.revoke_or_report(&token).await;
        }
    }

    /// Repeats a logout that the store has not recorded, for as long as it may matter there.
    async fn end_later(self: Arc<Self>, token: Secret) {
        let Some(shared) = &self.shared else { return };
        let until = Instant::now() + shared.lease();
        while Instant::now() < until {
            shared.pause().await;
            let ended = shared.end(&token).await;
            self.refuse(&ended.jwts);
            if ended.is_recorded {
                // Its successor was not known at the logout.
                if let Some(last) = ended.last.filter(|last| **last != *token) {
                    self.revoke_or_report(&last).await;
                }
                return;
            }
        }
    }

    /// Checks with other replicas whether a session may be handed out again.
    async fn standing(&self, delivery: &Delivery) -> Standing {
        match &self.shared {
            Some(shared) => {
                // Boxed: otherwise every request that waits for a refresh would take this much more memory.
                Box::pin(shared.standing(delivery.refreshed.material().refresh_token().secret_text())).await
            }
            None => Standing::Current,
        }
    }

    /// Refuses the JWTs of sessions that sign out at other replicas, from now on.
    pub(crate) fn follow_logouts(&self) {
        if let Some(shared) = &self.shared {
            shared.follow(&self.verifier);
        }
    }

    /// Connects to the store that replicas share.
    pub(crate) async fn connect(&self) -> Result<(), AuthError> {
        match &self.shared {
            Some(shared) => shared.connect().await,
            None => Ok(()),
        }
    }

    /// Logs that a session may still be alive at Crossmint, although its user has signed out.
    pub(crate) fn report_failed_logout(&self, error: &AuthError) {
        throttled!(self.logout_log, info, error = %error.causes(), "could not revoke a session at Crossmint");
    }

    /// Revokes a session at Crossmint when nobody waits for that.
    async fn revoke_or_report(&self, token: &Secret) {
        if let Err(error) = self.send_logout(token).await {
            self.report_failed_logout(&error);
        }
    }

    /// Waiting for a permit counts against the time limit of the call.
    async fn send_logout(&self, token: &Secret) -> Result<(), AuthError> {
        let queued = Instant::now();
        let _permit = timeout(self.logout_timeout, self.logout_limit.acquire()).await.map_err(|_| timed_out())??;
        // The call has a time limit of its own: its span cannot record a time-out if the call is dropped.
        self.upstream.logout(token, self.logout_timeout.saturating_sub(queued.elapsed())).await
    }
}

#[cfg(feature = "redis")]
impl Exchange for Refresher {
    type Permit<'a> = Permit<'a>;

    fn has_expired(&self, jwt: &str) -> bool {
        self.verifier.has_expired(jwt)
    }

    async fn acquire(&self) -> Result<Permit<'_>, AuthError> {
        self.limit.acquire().await
    }

    async fn send<'a>(&'a self, permit: Permit<'a>, token: &'a Secret) -> Result<RefreshAnswer, AuthError> {
        Self::send(self, permit, token).await
    }

    async fn revoke(&self, token: &Secret) {
        self.revoke_or_report(token).await;
    }

    async fn end(self: &Arc<Self>, ended: Ended, token: Secret) {
        if let Some(last) = self.carry_out(ended, token) {
            self.revoke_or_report(&last).await;
        }
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
