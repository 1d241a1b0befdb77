//! The verification of JWTs: their grammar and claims, their signature, and a cache of those that were verified.

pub(crate) mod claims;
mod revoked_tokens;
mod token_cache;

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;
use zeroize::Zeroizing;

use self::{
    claims::{Expectations, Unverified, is_for_another_audience},
    revoked_tokens::{RevokedTokens, digest_of},
    token_cache::TokenCache,
};
use crate::{
    clock,
    config::{Checked, OutagePolicy},
    error::{AuthError, AuthErrorKind},
    jwks::{JwksCache, ReloadDecision, ReloadReason},
    log_throttle::{Throttle, throttled},
    session::{RevokedJwt, Session, Tokens, Verified, decode_claims},
    stats::Counters,
};

/// Verifies JWTs, and remembers the sessions of those that it has verified.
pub(crate) struct Verifier {
    expectations: Expectations,
    cache: TokenCache,
    revoked: RevokedTokens,
    eviction_log: Throttle,
    jwks: Arc<JwksCache>,
    counters: Arc<Counters>,
}

impl Verifier {
    pub(crate) fn new(config: &Checked, jwks: Arc<JwksCache>, counters: Arc<Counters>) -> Self {
        let settings = &config.settings;
        let expectations = Expectations {
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            leeway: settings.leeway,
        };
        let cache = TokenCache::new(settings.token_cache_bytes, &counters.cache_hits);
        Self {
            expectations,
            cache,
            revoked: RevokedTokens::default(),
            eviction_log: Throttle::default(),
            jwks,
            counters,
        }
    }

    /// Finds the session of a JWT that was verified before, if its key is still in use, and tells whether it is live:
    /// the JWT may have expired.
    ///
    /// Starts the reload of a stale key set in the background when that is due.
    pub(crate) fn cached(&self, jwt: &[u8]) -> Option<(Session, bool)> {
        let (generation, now) = self.jwks.generation_and_time()?;
        let session = self.cache.get(jwt).filter(|session| session.generation() == generation)?;
        let is_live = self.is_live_at(&session, now);
        Some((session, is_live))
    }

    fn is_live_at(&self, session: &Session, now: u64) -> bool {
        now < session.exp().saturating_add(self.expectations.leeway.as_secs())
    }

    /// Verifies a JWT with the keys at hand.
    pub(crate) fn check(&self, jwt: &[u8]) -> Result<Verified, Unverifiable> {
        let (mut buffer, now) = (Zeroizing::default(), clock::unix_seconds());
        let token = Unverified::read(jwt, &mut buffer, &self.expectations, now).map_err(Unverifiable::Invalid)?;
        let (keys, generation) = self.jwks.current().ok_or(Unverifiable::NoKeys)?;
        let signed = &token.signed;
        let key = keys.find(signed.key_id.as_deref()).ok_or(Unverifiable::UnknownKey { issued_at: token.issued_at })?;
        self.counters.verifications.count();
        if !key.verifies(signed.message, signed.signature) {
            return Err(Unverifiable::Invalid("the signature does not verify"));
        }
        if self.revoked.contains(jwt) {
            return Err(Unverifiable::Invalid("the session has been signed out"));
        }
        Ok(Verified { user_id: token.user_id.into(), expires_at: token.expires_at, generation })
    }

    /// Verifies a JWT that a request has presented, after a reload if its key is unknown and the policy allows one.
    pub(crate) async fn verify(&self, jwt: &[u8], on_outage: OutagePolicy) -> Result<Verified, AuthError> {
        let mut outcome = self.check(jwt);
        if !matches!(outcome, Err(Unverifiable::UnknownKey { .. })) {
            return outcome.map_err(Into::into);
        }
        let reloaded = self.jwks.reload(ReloadReason::UnknownKey).await?;
        outcome = self.check(jwt);
        // The token's key may be newer than the key set, while the cool-down forbids a reload. Treating the token as
        // invalid would cost a refresh; answering 503 costs a retry. Under `EndSession`, there is no 503, and the
        // refresh is better than the end of the session.
        if let (Err(Unverifiable::UnknownKey { issued_at }), ReloadDecision::NotBefore(delay)) = (&outcome, reloaded)
            && self.jwks.is_older_than(*issued_at)
            && on_outage == OutagePolicy::KeepSession
        {
            let why = "the key set may be older than the token's key";
            return Err(AuthError::new(AuthErrorKind::Unavailable, why).with_retry_after(Some(delay)));
        }
        outcome.map_err(Into::into)
    }

    /// Verifies a JWT that Crossmint has just issued: its key may be newer than any reload.
    pub(crate) async fn verify_issued(&self, jwt: &[u8]) -> Result<Verified, AuthError> {
        let mut outcome = self.check(jwt);
        // A reload that was joined may be older than the key.
        for _ in 0..2 {
            if !matches!(outcome, Err(Unverifiable::UnknownKey { .. })) {
                break;
            }
            let reloaded = self.jwks.reload(ReloadReason::Issued).await?;
            outcome = self.check(jwt);
            if !matches!(reloaded, ReloadDecision::Join(_)) {
                break;
            }
        }
        outcome.map_err(Into::into)
    }

    /// Returns whether a session that was refreshed a while ago is still good. A new key set is no reason to refresh it
    /// again.
    pub(crate) fn still_holds(&self, session: &Session) -> bool {
        if !self.is_live_at(session, clock::unix_seconds()) {
            return false;
        }
        let jwt = session.jwt().as_bytes();
        // Signed out by its JWT alone.
        if self.revoked.contains(jwt) {
            return false;
        }
        if self.jwks.generation() == Some(session.generation()) || self.cached(jwt).is_some() {
            return true;
        }
        let verified = self.check(jwt);
        verified.map(|verified| self.cache(verified, session.tokens().clone())).is_ok()
    }

    /// Caches the session of a verified JWT.
    pub(crate) fn cache(&self, verified: Verified, tokens: impl Into<Tokens>) -> Session {
        let session = Session::new(verified, tokens);
        // There may have been a logout since the JWT was verified. One that follows empties the cache again, because it
        // records the JWT first, which takes the same lock.
        self.revoked.unless_revoked(session.jwt().as_bytes(), || self.cache.insert(session.clone()));
        session
    }

    /// Refuses a JWT from now on. An invalid one is refused anyway. Returns what other replicas have to know.
    pub(crate) fn revoke(&self, jwt: &str) -> Option<RevokedJwt> {
        let jwt = jwt.as_bytes();
        // Whatever has become of its key since then, a cached JWT has been verified.
        let exp = self.cache.exp(jwt).map_or_else(|| self.check(jwt).map(|verified| verified.expires_at), Ok);
        // Before the cache is emptied: whoever fills it afterwards finds the record.
        let (evicts, revoked) = match exp {
            Ok(exp) => {
                let expires_at = exp.saturating_add(self.expectations.leeway.as_secs());
                let revoked = digest_of(jwt).map(|digest| RevokedJwt { digest, expires_at });
                (self.revoked.insert(jwt, expires_at, clock::unix_seconds()), revoked)
            }
            Err(Unverifiable::NoKeys | Unverifiable::UnknownKey { .. }) => (self.revoked.insert_unverified(jwt), None),
            Err(Unverifiable::Invalid(_)) => (false, None),
        };
        self.report_eviction(evicts);
        self.cache.remove(jwt);
        revoked
    }

    /// Refuses JWTs that were revoked at other replicas.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "there are no other replicas"))]
    pub(crate) fn refuse(&self, revoked: impl Iterator<Item = RevokedJwt>) {
        let now = clock::unix_seconds();
        let revoked: HashMap<_, _> = revoked.map(|revoked| (revoked.digest, revoked.expires_at)).collect();
        let evicts = self.revoked.insert_remote(&revoked, now);
        self.report_eviction(evicts);
        // After they were recorded, as above.
        self.cache.remove_all(|token| digest_of(token).is_some_and(|digest| revoked.contains_key(&digest)));
    }

    fn report_eviction(&self, evicts: bool) {
        if evicts {
            self.counters.revocation_evictions.count();
            throttled!(self.eviction_log, warn, "more sessions sign out than JWTs can be remembered as revoked");
        }
    }

    /// Returns whether a JWT has expired. Its signature is not checked.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "there are no other replicas"))]
    pub(crate) fn has_expired(&self, jwt: &str) -> bool {
        let claims: Result<Expiry, _> = decode_claims(jwt);
        claims.is_ok_and(|Expiry { exp }| exp + self.expectations.leeway.as_secs_f64() <= clock::unix_seconds() as f64)
    }

    /// Returns whether a JWT is for another project. Its signature is not checked.
    pub(crate) fn is_foreign(&self, jwt: &[u8]) -> bool {
        self.expectations.audience.as_deref().is_some_and(|audience| is_for_another_audience(jwt, audience))
    }

    /// Loads the key set if there is none that can be used.
    pub(crate) async fn ensure_keys(&self) -> Result<(), AuthError> {
        self.jwks.ensure_usable().await
    }

    /// Does the same for the application itself, as soon as Crossmint may be called.
    pub(crate) async fn warm_up(&self) -> Result<(), AuthError> {
        self.jwks.warm_up().await
    }

    /// Returns how many JWTs were found in the cache.
    pub(crate) fn cache_hits(&self) -> u64 {
        self.cache.hits()
    }
}

#[derive(Deserialize)]
struct Expiry {
    exp: f64,
}

/// Why a JWT could not be verified.
pub(crate) enum Unverifiable {
    /// The token is malformed, expired, for another project, or its signature does not verify.
    Invalid(&'static str),
    UnknownKey {
        issued_at: u64,
    },
    NoKeys,
}

impl From<Unverifiable> for AuthError {
    fn from(why: Unverifiable) -> Self {
        match why {
            Unverifiable::Invalid(why) => Self::new(AuthErrorKind::InvalidToken, why),
            Unverifiable::UnknownKey { .. } => {
                Self::new(AuthErrorKind::InvalidToken, "the token was signed with a key that is not in the key set")
            }
            Unverifiable::NoKeys => Self::of(AuthErrorKind::Unavailable),
        }
    }
}

#[cfg(test)]
#[cfg(shuttle)]
mod model;
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{revoked_tokens::MAX_REVOKED, *};
    use crate::{
        config::{ApiKey, CrossmintAuthConfig, Environment},
        jwks::tests::loaded,
        session::AuthMaterial,
    };

    #[tokio::test]
    async fn a_cached_session_ends_with_its_jwt_and_its_key_set() {
        let key = ApiKey::unverified("project", Environment::Development);
        let config = CrossmintAuthConfig::builder(key).leeway(Duration::from_secs(5)).build().unwrap();
        let jwks = loaded();
        let current = jwks.generation().unwrap();
        let verifier = Verifier::new(config.checked(), jwks, Arc::default());
        let cache = |jwt: &str, generation| {
            let verified = Verified { user_id: "alice".into(), expires_at: 1000, generation };
            verifier.cache(verified, AuthMaterial::pair(jwt, "r"))
        };
        let session = cache("a JWT of the current set", current);
        assert!(verifier.is_live_at(&session, 1004));
        assert!(!verifier.is_live_at(&session, 1005));
        assert!(!verifier.is_live_at(&session, u64::MAX));
        assert!(verifier.cached(session.jwt().as_bytes()).is_some());
        let session = cache("a JWT of another set", current + 1);
        assert!(verifier.cached(session.jwt().as_bytes()).is_none());
    }

    #[tokio::test]
    async fn a_session_that_was_verified_before_its_logout_is_not_cached_after_it() {
        let key = ApiKey::unverified("project", Environment::Development);
        let jwks = loaded();
        let generation = jwks.generation().unwrap();
        let config = CrossmintAuthConfig::builder(key).build().unwrap();
        let verifier = Verifier::new(config.checked(), jwks, Arc::default());
        let verified = Verified { user_id: "alice".into(), expires_at: u64::MAX, generation };
        let jwt = "the JWT of a session";
        verifier.cache(verified.clone(), AuthMaterial::pair(jwt, "r"));
        assert!(verifier.cached(jwt.as_bytes()).is_some());
        verifier.revoke(jwt);
        assert!(verifier.cached(jwt.as_bytes()).is_none());
        // Of a request that was verified before the logout, and gets here after it.
        verifier.cache(verified, AuthMaterial::pair(jwt, "r"));
        assert!(verifier.cached(jwt.as_bytes()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_verified_jwt_that_is_revoked_while_there_are_no_keys_is_evicted_by_no_junk() {
        let key = ApiKey::unverified("project", Environment::Development);
        let jwks = loaded();
        let verified =
            Verified { user_id: "alice".into(), expires_at: u64::MAX, generation: jwks.generation().unwrap() };
        let config = CrossmintAuthConfig::builder(key).build().unwrap();
        let verifier = Verifier::new(config.checked(), Arc::clone(&jwks), Arc::default());
        let jwt = "the JWT of a session";
        verifier.cache(verified, AuthMaterial::pair(jwt, "r"));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(jwks.current().is_none());
        verifier.revoke(jwt);
        for number in 0..1_000 {
            verifier.revoked.insert_unverified(format!("{number:016}").as_bytes());
        }
        assert!(verifier.revoked.contains(jwt.as_bytes()));
    }

    #[tokio::test]
    async fn a_jwt_that_was_revoked_elsewhere_is_neither_cached_nor_verified_any_more() {
        let key = ApiKey::unverified("project", Environment::Development);
        let config = CrossmintAuthConfig::builder(key).build().unwrap();
        let jwks = loaded();
        let generation = jwks.generation().unwrap();
        let [here, elsewhere] = [(); 2].map(|()| Verifier::new(config.checked(), Arc::clone(&jwks), Arc::default()));
        let verified = Verified { user_id: "alice".into(), expires_at: u64::MAX - 10, generation };
        let [revoked, other] = ["the JWT that is revoked", "the JWT of another session"];
        for jwt in [revoked, other] {
            here.cache(verified.clone(), AuthMaterial::pair(jwt, "r"));
            elsewhere.cache(verified.clone(), AuthMaterial::pair(jwt, "r"));
        }
        here.refuse(elsewhere.revoke(revoked).into_iter());
        assert!(here.cached(revoked.as_bytes()).is_none() && here.cached(other.as_bytes()).is_some());
        // Of a request that was verified before the logout, and gets here after it.
        here.cache(verified, AuthMaterial::pair(revoked, "r"));
        assert!(here.cached(revoked.as_bytes()).is_none());
    }

    #[test]
    fn jwts_that_no_longer_fit_into_the_memory_are_counted() {
        let key = ApiKey::unverified("project", Environment::Development);
        let config = CrossmintAuthConfig::builder(key).build().unwrap();
        let jwks = loaded();
        let generation = jwks.generation().unwrap();
        let counters = Arc::new(Counters::default());
        let verifier = Verifier::new(config.checked(), jwks, Arc::clone(&counters));
        let jwt = |number| format!("{number:016}");
        for number in 0..MAX_REVOKED as u64 + 2 {
            let verified = Verified { user_id: "alice".into(), expires_at: u64::MAX - 10 - number, generation };
            verifier.cache(verified, AuthMaterial::pair(&jwt(number), "r"));
            verifier.revoke(&jwt(number));
        }
        assert_eq!(counters.revocation_evictions.read(), 2);
        assert!(verifier.revoked.contains(jwt(0).as_bytes()), "the last one to expire");
    }
}
