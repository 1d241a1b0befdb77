//! What credentials are worth: what can be told at once, and what only Crossmint can tell.

use std::{
    error::Error,
    pin::pin,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::{sync::watch, time::timeout};

use super::{
    CrossmintAuth,
    cookies::{MAX_COOKIE, Presented, Slot, is_cookie_value},
    grace::Renewal,
    jwt::{Unverified, is_for_another_audience},
    keys::{Freshness, KeySet, Permission, Reason},
    renewal::{Entry, Failure, Handout, Outcome, Rescued, Settled, Ticket, digest_of},
    tasks::runtime,
    upstream::RefreshAnswer,
};
use crate::{
    clock,
    error::{AuthError, AuthErrorKind, OutagePolicy},
    secret::Secret,
    session::{AuthMaterial, RefreshToken, Session, User, Verified},
};

/// What credentials are worth at first sight.
pub(super) enum Judgement {
    Valid(Session),
    /// Only Crossmint can tell.
    Open(Pair),
}

/// A refresh token, with a JWT that may turn out to be valid.
pub(super) struct Pair {
    jwt: Option<Secret>,
    secret: Secret,
}

/// What they turned out to be worth.
pub(super) enum Resolved {
    Known(Session),
    Renewed(Handout),
}

impl CrossmintAuth {
    /// Judges credentials without asking anybody. This is the path of nearly all requests.
    pub(super) fn judge(&self, presented: &mut Presented<'_>) -> Result<Judgement, AuthError> {
        let without_jwt = |secret: &str| Ok(Judgement::Open(Pair { jwt: None, secret: secret.into() }));
        if let (Slot::One(jwt), Slot::One(token)) = (presented.jwt, presented.refresh_token)
            && let Some(session) = self.recall(jwt)
        {
            if !self.is_live(&session, now()) {
                // Read once more, it would say the same.
                return without_jwt(usable_text(token)?);
            }
            if session.refresh_token().secret().as_bytes() == token {
                return Ok(Judgement::Valid(session));
            }
            let session = session.with_refresh_token(usable_text(token)?);
            self.0.tokens.insert(session.clone());
            return Ok(Judgement::Valid(session));
        }
        self.leave_out_neighbours(presented);
        let token = presented.one_refresh_token()?.ok_or_else(|| AuthError::of(AuthErrorKind::MissingCredentials))?;
        let secret = usable_text(token)?;
        let Slot::One(jwt) = presented.jwt else { return without_jwt(secret) };
        let verified = self.verify(jwt);
        // Of an invalid one, not even the length is known; the others are short and text, and worth a copy.
        let text = match verified {
            Err(Unverifiable::Invalid(_)) => None,
            _ => std::str::from_utf8(jwt).ok(),
        };
        let Some(jwt) = text else { return without_jwt(secret) };
        let [jwt, secret] = Secret::pair(jwt, secret);
        Ok(match verified {
            Ok(verified) => Judgement::Valid(self.admit_pair(verified, jwt, secret)),
            Err(_) => Judgement::Open(Pair { jwt: Some(jwt), secret }),
        })
    }

    /// Leaves out unscoped cookies that belong to another project.
    pub(super) fn leave_out_neighbours(&self, presented: &mut Presented<'_>) {
        self.0.cookies.leave_out(presented, |jwt| {
            self.0.expectations.audience.as_deref().is_some_and(|audience| is_for_another_audience(jwt, audience))
        });
    }

    /// Finds a verified session, if its key still holds. Its JWT may have expired.
    fn recall(&self, jwt: &[u8]) -> Option<Session> {
        match self.0.keys.freshness() {
            Freshness::Stale if self.0.keys.is_due() => self.reload_in_background(),
            Freshness::Fresh | Freshness::Stale => {}
            Freshness::Unusable => return None,
        }
        self.0.tokens.find(jwt).filter(|session| self.has_current_key(session))
    }

    fn has_current_key(&self, session: &Session) -> bool {
        session.generation() == self.0.keys.generation()
    }

    fn is_live(&self, session: &Session, now: u64) -> bool {
        now < session.exp().saturating_add(self.0.settings.leeway.as_secs())
    }

    /// Verifies a JWT with the keys at hand.
    fn verify(&self, jwt: &[u8]) -> Result<Verified, Unverifiable> {
        let token = Unverified::read(jwt, &self.0.expectations, now()).map_err(Unverifiable::Invalid)?;
        let (keys, generation) = self.0.keys.current().ok_or(Unverifiable::NoKeys)?;
        let signed = &token.signed;
        let key = keys.find(signed.key_id.as_deref()).ok_or(Unverifiable::UnknownKey { issued_at: token.issued_at })?;
        self.0.counters.verifications.count();
        if !key.verifies(signed.message, signed.signature()) {
            return Err(Unverifiable::Invalid("the signature does not verify"));
        }
        Ok(Verified { user_id: token.user_id, expires_at: token.expires_at, generation })
    }

    fn admit_pair(&self, verified: Verified, jwt: Secret, secret: Secret) -> Session {
        let material = AuthMaterial::from_parts(jwt, RefreshToken::from_parts(secret, None), None);
        let session = Session::new(verified, material);
        self.0.tokens.insert(session.clone());
        session
    }

    /// Finds out what could not be told at first sight.
    pub(super) async fn resolve(&self, pair: Pair) -> Result<Resolved, Failure> {
        // Without keys nothing can be verified, least of all what a renewal would bring.
        self.ensure_keys().await?;
        if let Some(jwt) = pair.jwt {
            match self.verify_or_reload(jwt.as_bytes(), Reason::UnknownKey).await {
                Ok(verified) => return Ok(Resolved::Known(self.admit_pair(verified, jwt, pair.secret))),
                Err(error) if error.kind() == AuthErrorKind::InvalidToken => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A copy: the renewal is not to keep the JWT that it comes with.
        self.renew((&*pair.secret).into()).await.map(Resolved::Renewed)
    }

    pub(super) async fn ensure_keys(&self) -> Result<(), AuthError> {
        match self.0.keys.freshness() {
            Freshness::Fresh => Ok(()),
            Freshness::Stale => {
                self.reload_in_background();
                Ok(())
            }
            Freshness::Unusable => match self.reload(Reason::Missing).await {
                _ if self.0.keys.freshness() != Freshness::Unusable => Ok(()),
                Ok(_) => Err(AuthError::of(AuthErrorKind::Unavailable)),
                Err(error) => Err(error),
            },
        }
    }

    /// Verifies a JWT, after a reload if its key is unknown and the policy allows one.
    pub(super) async fn verify_or_reload(&self, jwt: &[u8], reason: Reason) -> Result<Verified, AuthError> {
        let mut verified = self.verify(jwt);
        if let Err(Unverifiable::UnknownKey { issued_at }) = verified {
            let reloaded = self.reload(reason).await?;
            verified = self.verify(jwt);
            if matches!(verified, Err(Unverifiable::UnknownKey { .. })) {
                match reloaded {
                    // The reload that was joined may be older than the key.
                    Reloaded::Joined if reason == Reason::Vouched => {
                        self.reload(reason).await?;
                        verified = self.verify(jwt);
                    }
                    // A new key, while junk tokens use up the reloads: a renewal would spend a good refresh token on
                    // it. Where the alternative is to end the session, that is the lesser evil.
                    Reloaded::NotBefore(delay)
                        if self.0.keys.may_be_news(issued_at)
                            && self.0.settings.on_outage == OutagePolicy::KeepSession =>
                    {
                        let why = "the key set may be older than the token's key";
                        return Err(AuthError::new(AuthErrorKind::Unavailable, why).retry_after(Some(delay)));
                    }
                    _ => {}
                }
            }
        }
        verified.map_err(|why| match why {
            Unverifiable::Invalid(why) => AuthError::new(AuthErrorKind::InvalidToken, why),
            Unverifiable::UnknownKey { .. } => AuthError::new(
                AuthErrorKind::InvalidToken,
                "the token was signed with a key that is not in the key set",
            ),
            Unverifiable::NoKeys => AuthError::of(AuthErrorKind::Unavailable),
        })
    }

    fn reload_in_background(&self) {
        // Whoever needs the outcome asks the keys.
        let _ = self.start_reload(Reason::Stale);
    }

    /// Reloads the key set, or waits for the reload that is under way, if it is time for one.
    ///
    /// # Errors
    ///
    /// When the last reload failed, whoever started it.
    async fn reload(&self, reason: Reason) -> Result<Reloaded, AuthError> {
        let (reloaded, under_way) = self.start_reload(reason)?;
        if let Some(mut under_way) = under_way {
            while under_way.changed().await.is_ok() {}
        }
        match (self.0.keys.last_failure(), reloaded) {
            (None, reloaded) => Ok(reloaded),
            (Some(error), Reloaded::NotBefore(delay)) => Err(error.retry_after(Some(delay))),
            (Some(error), _) => Err(error),
        }
    }

    /// The reload runs in its own task: who waits for it may hang up.
    fn start_reload(&self, reason: Reason) -> Result<(Reloaded, Option<watch::Receiver<()>>), AuthError> {
        // Before there is an attempt: a missing runtime is no failure of Crossmint's, to be remembered.
        runtime()?;
        let (attempt, done) = match self.0.keys.request_reload(reason) {
            Permission::Start(attempt, done) => (attempt, done),
            Permission::Join(done) => return Ok((Reloaded::Joined, Some(done))),
            Permission::NotBefore(delay) => return Ok((Reloaded::NotBefore(delay), None)),
        };
        let auth = self.clone();
        self.0.tasks.spawn(async move {
            let answer = auth.0.upstream.keys().await;
            let set = answer.and_then(|document| {
                KeySet::parse(&document).map_err(|why| AuthError::new(AuthErrorKind::UnusableAnswer, why))
            });
            match set {
                Ok(set) => {
                    auth.0.counters.reloads.count();
                    tracing::debug!(keys = set.len(), "loaded the key set");
                    attempt.succeed(set);
                }
                Err(error) => {
                    auth.0.counters.failed_reloads.count();
                    if auth.0.keys_log.is_due() {
                        let kind = error.kind();
                        tracing::warn!(?kind, error = &error as &dyn Error, "the key set could not be loaded");
                    }
                    attempt.fail(error);
                }
            }
        })?;
        Ok((Reloaded::Anew, Some(done)))
    }

    /// Renews a session: joins the renewal of its token, finds its result, or starts it.
    pub(super) async fn renew(&self, secret: Secret) -> Outcome {
        let mut expired = None;
        let pending = loop {
            match self.0.renewals.enter(secret.clone(), expired.as_ref()) {
                Entry::Renewed(handout) if self.is_valid(&handout.session) => {
                    self.0.counters.successor_hits.count();
                    return Ok(handout);
                }
                Entry::Renewed(handout) => expired = Some(handout),
                Entry::Refused(error) => return Err(error.into()),
                Entry::Full => return Err(crowded().into()),
                Entry::UnderWay(pending) => {
                    self.0.counters.joined.count();
                    tracing::trace!("joined a renewal");
                    break pending;
                }
                Entry::Yours(ticket, pending) => {
                    // A client that hangs up must not take the only copy of the new token with it.
                    self.0.tasks.spawn(self.clone().run_renewal(ticket))?;
                    break pending;
                }
            }
        };
        drop(expired);
        pending.outcome().await
    }

    /// Tells whether a session that was renewed a while ago still holds. A new key set is no reason to renew it again.
    fn is_valid(&self, session: &Session) -> bool {
        if !self.is_live(session, now()) {
            return false;
        }
        let jwt = session.jwt().as_bytes();
        if self.has_current_key(session) || self.recall(jwt).is_some() {
            return true;
        }
        let Ok(verified) = self.verify(jwt) else { return false };
        self.0.tokens.insert(Session::new(verified, session.material().clone()).into_known());
        true
    }

    async fn run_renewal(self, ticket: Ticket) {
        let outcome = {
            let mut exchange = pin!(self.exchange(ticket.token()));
            match timeout(self.0.settings.refresh_timeout, &mut exchange).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // Whoever waits goes. The answer may still come, and is the only copy of a good token.
                    ticket.dismiss(AuthError::new(AuthErrorKind::Unavailable, "Crossmint did not answer in time"));
                    exchange.await
                }
            }
        };
        self.report(ticket.token(), &outcome);
        let session = outcome.as_ref().ok().map(|renewal| renewal.session.clone().into_known());
        if let Some(session) = &session {
            self.0.tokens.insert(session.clone());
        }
        // In this order: a logout that comes in between finds the token.
        let Settled { revoked, evicted } = ticket.settle(outcome);
        if evicted > 0 {
            self.0.counters.evicted_successors.add(evicted);
            if self.0.evictions_log.is_due() {
                tracing::warn!("rotated tokens are forgotten before their time: raise `rotation_grace_bytes`");
            }
        }
        if let Some(revoked) = revoked {
            if let Some(session) = session {
                self.0.tokens.remove(session.jwt().as_bytes());
            }
            // The cookies are gone already: a failure changes nothing for the user.
            let _ = self.revoke(&revoked).await;
        }
    }

    fn report(&self, token: &Secret, outcome: &Result<Renewal, Failure>) {
        let Err(Failure { error, .. }) = outcome else {
            self.0.refusal_run.end();
            return tracing::debug!("renewed a session");
        };
        let (kind, error) = (error.kind(), error as &dyn Error);
        if kind == AuthErrorKind::Refused {
            tracing::debug!(reason = "refused", error, "a session has ended");
            if self.0.refusal_run.is_suspicious(digest_of(token)) {
                self.0.counters.refusal_runs.count();
                if self.0.refusals_log.is_due() {
                    tracing::warn!(
                        refusals = self.0.settings.refusal_warning,
                        "Crossmint refuses all refresh tokens: check that the API key is valid and belongs to this \
                         project; made-up tokens in large numbers look the same"
                    );
                }
            }
        } else if self.0.outage_log.is_due() {
            tracing::error!(?kind, error, "a session was not renewed: Crossmint is unavailable");
        } else {
            tracing::debug!(?kind, error, "a session was not renewed: Crossmint is unavailable");
        }
    }

    /// Ends a session at Crossmint. Waiting for a permit counts against the time limit of the call.
    ///
    /// # Errors
    ///
    /// At once when the queue for a permit is full: whoever waits there holds memory on behalf of a client that may be gone.
    pub(super) async fn revoke(&self, token: &Secret) -> Result<(), AuthError> {
        let unavailable = |why| AuthError::new(AuthErrorKind::Unavailable, why);
        let Ok(_queued) = self.0.logout_queue.try_acquire() else {
            return Err(unavailable("too many sessions are being ended at once"));
        };
        let call = async {
            let _permit = self.0.logout_places.acquire().await;
            self.0.upstream.logout(token).await
        };
        match timeout(self.0.settings.logout_timeout, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unavailable("Crossmint was not told in time")),
        }
    }

    /// Exchanges a refresh token at Crossmint, and trusts nothing of the answer before it has been checked.
    ///
    /// Once Crossmint has answered, the old token is spent: whatever is wrong with the rest, the new one is not lost.
    async fn exchange(&self, secret: &Secret) -> Result<Renewal, Failure> {
        let place = timeout(self.0.settings.refresh_timeout, self.0.places.take()).await;
        let Ok(Some(place)) = place else {
            return Err(crowded().into());
        };
        self.0.counters.renewals.count();
        let answer = self.0.upstream.refresh(secret).await;
        if !answer.as_ref().is_err_and(|error| error.kind() == AuthErrorKind::Unavailable) {
            place.answered();
        }
        // What is still to be done needs none.
        drop(place);
        let RefreshAnswer { jwt, secret, expires_at, user, bytes } = answer?;
        let token = secret.clone();
        let rescued = |error, set_cookie| Failure { error, rescued: Some(Arc::new(Rescued { token, set_cookie })) };
        let unusable = |why: Box<dyn Error + Send + Sync>| AuthError::new(AuthErrorKind::UnusableAnswer, why);
        let Some(jwt) = jwt else {
            return Err(rescued(unusable("Crossmint's answer has no JWT".into()), None));
        };
        let verified = match self.verify_or_reload(jwt.as_bytes(), Reason::Vouched).await {
            Err(error) if error.kind() == AuthErrorKind::InvalidToken => {
                return Err(rescued(unusable(error.into()), None));
            }
            verified => verified,
        };
        let user = user.or_else(|| Some(User::with_id(&verified.as_ref().ok()?.user_id)));
        let material = AuthMaterial::from_parts(jwt, RefreshToken::from_parts(secret, expires_at), user);
        let set_cookie = match self.0.cookies.store(&material) {
            Ok(set_cookie) => set_cookie,
            Err(why) => return Err(rescued(unusable(why.into()), None)),
        };
        match verified {
            Ok(verified) if material.user().is_some_and(|user| *user.id != *verified.user_id) => {
                Err(rescued(unusable("the JWT and the user have different IDs".into()), None))
            }
            Ok(verified) => Ok(Renewal::new(Session::new(verified, material).into_renewed(), set_cookie, bytes)),
            // No key can be had just now: the pair is as good as any.
            Err(error) => Err(rescued(error, Some(set_cookie))),
        }
    }
}

enum Unverifiable {
    /// The token is bad, whatever the keys.
    Invalid(&'static str),
    UnknownKey {
        issued_at: u64,
    },
    NoKeys,
}

/// What has been done for a fresher key set.
enum Reloaded {
    Anew,
    /// Somebody else had started it.
    Joined,
    /// Nothing: it is too soon.
    NotBefore(Duration),
}

fn crowded() -> AuthError {
    AuthError::new(AuthErrorKind::Unavailable, "too many sessions are being renewed at once")
}

/// Checks that a refresh token can be one before it goes anywhere.
pub(super) fn usable_secret(token: &[u8]) -> Result<Secret, AuthError> {
    usable_text(token).map(Into::into)
}

fn usable_text(token: &[u8]) -> Result<&str, AuthError> {
    let is_usable = !token.is_empty() && token.len() <= MAX_COOKIE && is_cookie_value(token);
    match std::str::from_utf8(token) {
        Ok(token) if is_usable => Ok(token),
        _ => Err(AuthError::of(AuthErrorKind::InvalidCredentials)),
    }
}

fn now() -> u64 {
    // A clock that is out of order makes every token an expired one.
    clock::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ApiKey, CrossmintAuthConfig, Environment};

    #[test]
    fn a_remembered_session_ends_with_its_jwt_and_its_key_set() {
        let key = ApiKey::unverified("project", Environment::Development);
        let config = CrossmintAuthConfig::builder(key).leeway(Duration::from_secs(5)).build().unwrap();
        let auth = CrossmintAuth::new(config);
        let session = |generation| {
            let verified = Verified { user_id: "alice".into(), expires_at: 1000, generation };
            Session::new(verified, AuthMaterial::new("jwt", RefreshToken::new("r")))
        };
        let current = auth.0.keys.generation();
        assert!(auth.is_live(&session(current), 1004));
        assert!(!auth.is_live(&session(current), 1005));
        assert!(!auth.is_live(&session(current), u64::MAX));
        assert!(auth.has_current_key(&session(current)));
        assert!(!auth.has_current_key(&session(current + 1)));
    }
}
