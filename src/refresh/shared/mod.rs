//! Refreshes that are shared between replicas.
//!
//! Two replicas that send one refresh token end its session. So each refresh follows a [`Course`]:
//!
//! 1. It looks up what other replicas have recorded of the token, and follows its successors to the last one. What it
//!    finds is opened with keys that only the token reveals, and verified like an answer of Crossmint's.
//! 2. While another replica sends the token, it waits for that answer.
//! 3. Otherwise it claims the token, sends it, and records Crossmint's answer before anyone gets it.
//! 4. A claim holds longer than a call can take, and is taken over once if its replica has died.
//! 5. A logout ends all tokens of the session that are recorded. It beats every other outcome.
//! 6. While the store is unreachable, the token is sent without it, or the refresh fails: see [`WhenUnreachable`].
//!
//! A valid JWT never gets here.

mod log;
mod seal;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use self::{
    log::Follower,
    seal::{Kind, Seal, Seals},
};
use super::{grace::MAX_UNDELIVERED, negative_cache::MIN_REFUSAL};
use crate::{
    config::{RedisRenewals, Settings, WhenUnreachable},
    error::{AuthError, AuthErrorKind},
    log_throttle::{Throttle, throttled},
    secret::Secret,
    session::RevokedJwt,
    stats::Counters,
    store::{
        Chain, Claim, Claimed, Fence, Finished, Id, Outcome, Previous, RedisStore, Reply, Store, Tail, Unreachable,
    },
    task_tracker::{TaskTracker, runtime},
    upstream::RefreshAnswer,
    verify::Verifier,
};

/// Coordinates refreshes with other replicas.
pub(crate) struct SharedRenewals {
    store: Arc<dyn Store>,
    seals: Seals,
    when_unreachable: WhenUnreachable,
    /// For how long a claim holds: longer than a call to Crossmint can take.
    lease: Duration,
    /// For how long a refresh waits for another replica's.
    follow_limit: Duration,
    /// For how long a rotated token is remembered once its successor has been delivered.
    grace: Duration,
    /// The looks that are under way, which later ones join.
    looks: Mutex<HashMap<Id, WeakShared<Look>>>,
    follower: Follower,
    tasks: TaskTracker,
    counters: Arc<Counters>,
    unreachable_log: Throttle,
}

type Look = BoxFuture<'static, Option<Chain>>;

/// What the store says of the successor of a rotated token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the latest one, as far as the store knows.
    Current,
    /// Another replica has rotated it.
    Rotated,
    /// The session has been signed out.
    Ended,
}

/// What a logout has found in the store.
pub(crate) struct Ended {
    pub(crate) jwts: Vec<Secret>,
    /// The token to revoke at Crossmint.
    pub(crate) last: Option<Secret>,
    /// The token instead that another replica is sending: it revokes the successor itself, unless it dies.
    pub(crate) claimed: Option<Secret>,
    /// Whether the store has recorded all of it.
    pub(crate) is_recorded: bool,
}

impl SharedRenewals {
    /// Returns `None` unless the configuration names a store.
    pub(crate) fn new(settings: &Settings, tasks: &TaskTracker, counters: &Arc<Counters>) -> Option<Arc<Self>> {
        let options = settings.share_renewals.as_ref()?;
        let store = |context: &str| Arc::new(RedisStore::new(options, context)) as _;
        Some(Arc::new(Self::with_store(settings, options, store, tasks.clone(), Arc::clone(counters))))
    }

    fn with_store(
        settings: &Settings,
        options: &RedisRenewals,
        store: impl FnOnce(&str) -> Arc<dyn Store>,
        tasks: TaskTracker,
        counters: Arc<Counters>,
    ) -> Self {
        let limit = settings.refresh_timeout;
        let lease = limit + limit / 4 + LEASE_MARGIN;
        let (seals, context) = Seals::new(settings, options.pepper.clone(), lease);
        Self {
            store: store(&context),
            seals,
            when_unreachable: options.when_unreachable,
            lease,
            follow_limit: limit,
            grace: settings.rotation_grace,
            looks: Mutex::default(),
            follower: Follower::default(),
            tasks,
            counters,
            unreachable_log: Throttle::default(),
        }
    }

    /// Starts the refresh of a token.
    pub(crate) fn course(self: &Arc<Self>, token: &Secret) -> Course {
        let now = Instant::now();
        Course {
            shared: Arc::clone(self),
            token: token.clone(),
            seal: self.seals.seal_of(token),
            rotated: Vec::new(),
            deadline: now + self.follow_limit,
            claimed_until: now,
            is_alone: false,
            denials: 0,
        }
    }

    /// Checks a successor before it is handed out again: a logout or a refresh at another replica is not known here.
    ///
    /// Concurrent checks share one look. A store that is unreachable knows nothing.
    pub(crate) async fn standing(&self, token: &Secret) -> Standing {
        let Some(seal) = self.seals.seal_of(token) else { return Standing::Current };
        let Some(chain) = self.join_look(seal.id).await else { return Standing::Current };
        match chain.tail {
            _ if !chain.answers.is_empty() => Standing::Rotated,
            Tail::Ended(sealed) if seal.open_note(Kind::Tombstone, &sealed).is_some() => Standing::Ended,
            Tail::Refused(sealed) if seal.open_note(Kind::Refusal, &sealed).is_some() => Standing::Ended,
            _ => Standing::Current,
        }
    }

    async fn join_look(&self, id: Id) -> Option<Chain> {
        let look: Shared<Look> = {
            // Held for a look-up. A look that nobody waits for any more is dropped, and is not joined.
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let ongoing = looks.get(&id).and_then(WeakShared::upgrade).filter(|look| look.peek().is_none());
            ongoing.unwrap_or_else(|| {
                looks.retain(|_, look| look.upgrade().is_some());
                let store = Arc::clone(&self.store);
                let look = async move { store.look(id).await.ok() }.boxed().shared();
                looks.extend(look.downgrade().map(|look| (id, look)));
                look
            })
        };
        look.await
    }

    /// Records a logout, down the chain of the session's tokens.
    pub(crate) async fn end(&self, token: &Secret) -> Ended {
        let mut ended = Ended { jwts: Vec::new(), last: Some(token.clone()), claimed: None, is_recorded: true };
        for _ in 0..MAX_CHAIN {
            let Some(seal) = ended.last.as_ref().and_then(|token| self.seals.seal_of(token)) else { break };
            let Some(tombstone) = seal.seal_note(Kind::Tombstone, "") else { break };
            match self.store.end(seal.id, tombstone, self.tombstone_life()).await {
                Ok(Previous::Claimed(proof)) if seal.open_note(Kind::Claim, &proof).is_some() => {
                    ended.claimed = ended.last.take();
                }
                Ok(Previous::Claimed(_) | Previous::Stalled | Previous::Nothing) => break,
                Ok(Previous::Rotated(sealed)) => {
                    let Some(answer) = seal.open_answer(&sealed) else { break };
                    ended.jwts.extend(answer.jwt);
                    ended.last = Some(answer.secret);
                }
                Err(error) => {
                    self.unreachable(error);
                    ended.is_recorded = false;
                    break;
                }
            }
        }
        ended
    }

    /// Waits for the replica that was sending a token when it was ended. Returns whether it has finished.
    pub(crate) async fn claimer_finishes(&self, token: &Secret) -> bool {
        let until = Instant::now() + self.lease;
        while Instant::now() < until
            && let Some(seal) = self.seals.seal_of(token)
            && let Some(tombstone) = seal.seal_note(Kind::Tombstone, "")
        {
            self.pause().await;
            match self.store.end(seal.id, tombstone, self.tombstone_life()).await {
                Ok(Previous::Claimed(_)) | Err(_) => {}
                Ok(Previous::Stalled) => return false,
                Ok(Previous::Rotated(_) | Previous::Nothing) => return true,
            }
        }
        false
    }

    /// Waits before something is repeated.
    pub(crate) async fn pause(&self) {
        sleep(RETRY_PAUSE).await;
    }

    /// Returns for how long other replicas may hand out the successor of an ended token, or send it.
    fn tombstone_life(&self) -> Duration {
        MIN_REFUSAL.max(self.grace).max(self.lease)
    }

    /// Returns for how long a claim holds.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Refuses JWTs at all replicas.
    pub(crate) fn publish(self: &Arc<Self>, revoked: Vec<RevokedJwt>) {
        if revoked.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        let publish = async move {
            shared.repeat(Instant::now() + shared.lease, |store| store.revoke(revoked.clone())).await;
        };
        // Without a runtime, nobody is served either.
        let _ = self.tasks.spawn(publish);
    }

    /// Refuses the JWTs of sessions that sign out at other replicas, from now on.
    pub(crate) fn follow(&self, verifier: &Arc<Verifier>) {
        self.follower.start(&self.store, verifier);
    }

    /// Connects to the store.
    pub(crate) async fn connect(&self) -> Result<(), AuthError> {
        self.store.connect().await.map_err(|error| self.unreachable(error))
    }

    /// Lets records expire after the grace period, once the sender says that the successor has been delivered.
    fn expire_once_delivered(&self, ids: Vec<Id>) -> oneshot::Sender<()> {
        let (sender, delivered) = oneshot::channel();
        let (store, grace) = (Arc::clone(&self.store), self.grace);
        // Not tracked: if it fails, the records only live for longer than they have to.
        if let Ok(runtime) = runtime() {
            runtime.spawn(async move {
                if delivered.await.is_ok() {
                    for id in ids {
                        let _ = store.delivered(id, grace).await;
                    }
                }
            });
        }
        sender
    }

    /// Does something in the store, and repeats it until `until` if it fails.
    async fn repeat<T>(&self, until: Instant, operation: impl Fn(&dyn Store) -> Reply<'_, T>) -> Option<T> {
        let mut is_reported = false;
        loop {
            match operation(&*self.store).await {
                Ok(result) => return Some(result),
                Err(_) if is_reported => {}
                // Nobody waits for it.
                Err(error) => drop(self.unreachable(error)),
            }
            is_reported = true;
            if Instant::now() >= until {
                return None;
            }
            self.pause().await;
        }
    }

    fn unreachable(&self, Unreachable(why): Unreachable) -> AuthError {
        self.counters.shared_unreachable.count();
        let error = AuthError::new(AuthErrorKind::Unavailable, why);
        let when_unreachable = self.when_unreachable;
        throttled!(
            self.unreachable_log,
            warn,
            error = %error.causes(),
            ?when_unreachable,
            "refreshes are not shared: the store is unreachable"
        );
        error
    }
}

/// What an exchange needs besides the store.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// Permits sending one token.
    type Permit<'a>: Send;

    /// Returns whether a JWT that another replica has received is of no use any more.
    fn has_expired(&self, jwt: &str) -> bool;

    fn acquire(&self) -> impl Future<Output = Result<Self::Permit<'_>, AuthError>> + Send;

    /// Sends a token to Crossmint.
    fn send<'a>(
        &'a self,
        permit: Self::Permit<'a>,
        token: &'a Secret,
    ) -> impl Future<Output = Result<RefreshAnswer, AuthError>> + Send;

    /// Revokes a session at Crossmint.
    fn revoke(&self, token: &Secret) -> impl Future<Output = ()> + Send;

    /// Ends a session that was handed out although it had been signed out. `token` is the one that was presented.
    fn end(self: &Arc<Self>, ended: Ended, token: Secret) -> impl Future<Output = ()> + Send;
}

/// The refresh of one token, among all replicas.
pub(crate) struct Course {
    shared: Arc<SharedRenewals>,
    /// The token to send: the latest successor of the one that the refresh was started with, as far as is known.
    token: Secret,
    /// `None` if the token is too short to be shared.
    seal: Option<Seal>,
    /// The records of the tokens before it.
    rotated: Vec<Id>,
    /// Until when other replicas are waited for.
    deadline: Instant,
    /// Until when another replica's claim holds, whatever has become of its record since.
    claimed_until: Instant,
    /// The store is unreachable.
    is_alone: bool,
    /// How many claims were denied.
    denials: u32,
}

/// The right to send a token.
struct HeldClaim {
    fence: Fence,
    /// When the claim is over.
    until: Instant,
}

/// What comes after a token was sent.
enum Sent {
    Answer(RefreshAnswer),
    Failed(AuthError),
    /// Another replica has an answer.
    Superseded,
    /// There was a logout meanwhile. This token has to be revoked, if any.
    Ended(Option<Secret>),
}

/// Where a token stands.
enum Position {
    Answer(Box<RefreshAnswer>),
    /// It can be claimed.
    Free,
    /// Another replica sends it.
    Claimed,
    /// Its last known successor has to be looked up.
    Rotated,
}

impl Course {
    /// Returns the token that the refresh was started with, or its latest successor that is known.
    pub(crate) fn successor(&self) -> Option<&Secret> {
        (!self.rotated.is_empty()).then_some(&self.token)
    }

    /// Starts to wait for the delivery of an answer. The sender says that it was delivered.
    pub(crate) fn deliver(&self) -> oneshot::Sender<()> {
        self.shared.expire_once_delivered(self.rotated.clone())
    }

    /// Exchanges the token at Crossmint, or finds the answer that another replica has received for it or for its latest
    /// successor.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub(crate) async fn exchange(&mut self, exchange: &Arc<impl Exchange>) -> Result<RefreshAnswer, AuthError> {
        loop {
            // An expired one is refreshed in its turn.
            let is_live = |answer: &RefreshAnswer| !answer.jwt.as_deref().is_some_and(|jwt| exchange.has_expired(jwt));
            if let Some(answer) = self.look().await?.filter(is_live) {
                self.shared.counters.shared_hits.count();
                return Ok(answer);
            }
            // Before the claim, which holds for no longer than a call may take.
            let permit = exchange.acquire().await?;
            let Some(claim) = self.claim(exchange).await? else { continue };
            let answer = exchange.send(permit, &self.token).await;
            match self.finish(exchange, claim, answer).await {
                Sent::Answer(answer) => return Ok(answer),
                Sent::Failed(error) => return Err(error),
                Sent::Superseded => {}
                Sent::Ended(token) => {
                    if let Some(token) = token {
                        exchange.revoke(&token).await;
                    }
                    return Err(AuthError::of(AuthErrorKind::Refused));
                }
            }
        }
    }

    /// Looks up what other replicas have recorded of the token. Waits for the replica that sends it, if any.
    ///
    /// Returns the latest answer that is recorded. Its JWT may have expired.
    ///
    /// # Errors
    ///
    /// When the token must not be sent, and when another replica takes too long.
    async fn look(&mut self) -> Result<Option<RefreshAnswer>, AuthError> {
        let store = Arc::clone(&self.shared.store);
        let (mut poll, max_poll) = if store.pushes() { PUSHED_POLL } else { POLL };
        while let Some(seal) = &self.seal {
            // Before the look: a change after it must not be missed.
            let mut watch = store.watch(seal.id);
            let position = match store.look(seal.id).await {
                Ok(chain) => self.follow(chain)?,
                Err(error) => self.without_store(error)?,
            };
            match position {
                Position::Answer(answer) => return Ok(Some(*answer)),
                Position::Free => break,
                Position::Rotated => {}
                Position::Claimed => {
                    self.check_deadline()?;
                    let next_look = self.deadline.min(Instant::now() + poll);
                    let _ = timeout_at(next_look, watch.changed()).await;
                    poll = max_poll.min(poll * 2);
                }
            }
        }
        Ok(None)
    }

    /// Follows the successors of the token.
    fn follow(&mut self, chain: Chain) -> Result<Position, AuthError> {
        let mut latest = None;
        for sealed in chain.answers {
            let Some(seal) = &self.seal else { break };
            let Some(answer) = seal.open_answer(&sealed) else { return self.without_store(unreadable()) };
            self.rotated.push(seal.id);
            self.advance(answer.secret.clone());
            latest = Some(Box::new(answer));
        }
        let Some(seal) = &self.seal else { return Ok(latest.map_or(Position::Free, Position::Answer)) };
        let now = Instant::now();
        let position = match chain.tail {
            Tail::Ended(sealed) => {
                seal.open_note(Kind::Tombstone, &sealed).map(|_| Err(AuthError::of(AuthErrorKind::Refused)))
            }
            Tail::Refused(sealed) => {
                seal.open_note(Kind::Refusal, &sealed).map(|_| Err(AuthError::of(AuthErrorKind::Refused)))
            }
            Tail::Rotated => Some(Ok(Position::Rotated)),
            _ if latest.is_some() => latest.map(|answer| Ok(Position::Answer(answer))),
            // The store has lost the claim, but not its replica.
            Tail::Absent if now < self.claimed_until => Some(Ok(Position::Claimed)),
            Tail::Absent | Tail::Stalled => Some(Ok(Position::Free)),
            Tail::Claimed { proof, lease } => seal.open_note(Kind::Claim, &proof).map(|_| {
                self.claimed_until = now + lease.min(self.shared.lease);
                Ok(Position::Claimed)
            }),
            Tail::Failed(failure, retry_after) => seal.open_failure(&failure, retry_after).map(Err),
            Tail::Lost(proof) => seal.open_note(Kind::Claim, &proof).map(|_| {
                self.shared.counters.shared_lost.count();
                let why = "two replicas have stopped while they were refreshing this session";
                Err(AuthError::new(AuthErrorKind::Unavailable, why))
            }),
        };
        position.unwrap_or_else(|| self.without_store(unreadable()))
    }

    /// Claims the token, so that no other replica sends it. `None` if another one was faster.
    ///
    /// # Errors
    ///
    /// When the token cannot be claimed and must not be sent without a claim, or not in time.
    async fn claim(&mut self, exchange: &Arc<impl Exchange>) -> Result<Option<HeldClaim>, AuthError> {
        let asked_at = Instant::now();
        let claim = HeldClaim { fence: random()?, until: asked_at + self.shared.lease };
        let Some(seal) = self.seal.as_ref().filter(|_| !self.is_alone) else { return Ok(Some(claim)) };
        let unsealed = || AuthError::new(AuthErrorKind::Unavailable, "a claim could not be encrypted");
        let proof = seal.seal_note(Kind::Claim, "").ok_or_else(unsealed)?;
        let request = Claim { fence: claim.fence, proof, lease: self.shared.lease };
        match self.shared.store.claim(seal.id, request).await {
            Ok(Claimed::Granted { .. }) if asked_at.elapsed() > MAX_CLAIM_DELAY => {
                // It may be over before the call is.
                self.release_later(exchange, claim);
                self.check_deadline()?;
                Ok(None)
            }
            Ok(Claimed::Granted { is_takeover }) => {
                let counters = &self.shared.counters;
                counters.shared_claims.count();
                if is_takeover {
                    counters.shared_takeovers.count();
                }
                Ok(Some(claim))
            }
            Ok(Claimed::Denied(chain)) => {
                // The store may lose that claim before the next look.
                if let Tail::Claimed { proof, lease } = &chain.tail
                    && chain.answers.is_empty()
                    && seal.open_note(Kind::Claim, proof).is_some()
                {
                    self.claimed_until = Instant::now() + (*lease).min(self.shared.lease);
                }
                self.check_deadline()?;
                self.denials += 1;
                // Nobody else is that fast, that often.
                if self.denials < MAX_DENIALS { Ok(None) } else { self.without_store(unreadable()).map(|_| None) }
            }
            Err(error) => {
                let position = self.without_store(error);
                if matches!(position, Ok(Position::Free)) {
                    return Ok(Some(claim));
                }
                // The claim may have arrived.
                self.release_later(exchange, claim);
                position.map(|_| None)
            }
        }
    }

    /// Records what has become of the token, before anyone gets it.
    async fn finish(
        &mut self,
        exchange: &Arc<impl Exchange>,
        claim: HeldClaim,
        answer: Result<RefreshAnswer, AuthError>,
    ) -> Sent {
        if let Some(seal) = &self.seal
            && let Some(outcome) = self.outcome(seal, &answer)
        {
            let id = seal.id;
            let (to_revoke, jwt) = match &answer {
                Ok(answer) => (Some(answer.secret.clone()), answer.jwt.clone()),
                Err(error) => ((error.kind() != AuthErrorKind::Refused).then(|| self.token.clone()), None),
            };
            match self.shared.store.finish(id, claim.fence, outcome.clone()).await {
                Ok(Finished::Ended(tombstone)) if seal.open_note(Kind::Tombstone, &tombstone).is_some() => {
                    return Sent::Ended(to_revoke);
                }
                Ok(Finished::Superseded(chain))
                    if chain.answers.first().is_some_and(|sealed| seal.open_answer(sealed).is_some()) =>
                {
                    return Sent::Superseded;
                }
                // Whatever else is recorded there is not of this token.
                Ok(_) => {}
                Err(error) => {
                    self.shared.unreachable(error);
                    self.finish_later(exchange, claim, outcome, to_revoke, jwt);
                }
            }
            if answer.is_ok() {
                self.rotated.push(id);
            }
        }
        answer.map_or_else(Sent::Failed, Sent::Answer)
    }

    fn release_later(&self, exchange: &Arc<impl Exchange>, claim: HeldClaim) {
        self.finish_later(exchange, claim, Outcome::Released, Some(self.token.clone()), None);
    }

    /// Records an outcome in the background. Until that succeeds, the claim is not given up.
    ///
    /// A logout leaves the successor, `to_revoke` and `jwt`, to the holder of the claim, who may have handed it out
    /// meanwhile.
    fn finish_later(
        &self,
        exchange: &Arc<impl Exchange>,
        HeldClaim { fence, until }: HeldClaim,
        outcome: Outcome,
        to_revoke: Option<Secret>,
        jwt: Option<Secret>,
    ) {
        let (shared, exchange, token) = (Arc::clone(&self.shared), Arc::clone(exchange), self.token.clone());
        let finish = async move {
            let Some(seal) = shared.seals.seal_of(&token) else { return };
            let finish = shared.repeat(until, |store| store.finish(seal.id, fence, outcome.clone()));
            if let Some(Finished::Ended(tombstone)) = finish.await
                && seal.open_note(Kind::Tombstone, &tombstone).is_some()
                && let Some(token) = to_revoke
            {
                let mut ended = shared.end(&token).await;
                ended.jwts.extend(jwt);
                exchange.end(ended, token).await;
            }
        };
        // Without a runtime, nobody is served either.
        let _ = self.shared.tasks.spawn(finish);
    }

    fn outcome(&self, seal: &Seal, answer: &Result<RefreshAnswer, AuthError>) -> Option<Outcome> {
        Some(match answer {
            Ok(answer) => Outcome::Done {
                answer: seal.seal_answer(answer)?,
                // The record of a token that is too short has a name that nobody looks up.
                next: self.shared.seals.seal_of(&answer.secret).map_or([u8::MAX; 32], |seal| seal.id),
                time_to_live: MAX_UNDELIVERED,
            },
            Err(error) if error.kind() == AuthErrorKind::Refused => {
                Outcome::Refused { refusal: seal.seal_note(Kind::Refusal, "")?, time_to_live: MIN_REFUSAL }
            }
            Err(error) => {
                let time_to_live = match error.kind() {
                    AuthErrorKind::RateLimited | AuthErrorKind::UnusableAnswer => error.retry_after(),
                    // Those who wait share the failure; whoever comes later tries again.
                    _ => FAILURE,
                };
                Outcome::Failed { failure: seal.seal_failure(error)?, time_to_live }
            }
        })
    }

    fn advance(&mut self, successor: Secret) {
        self.seal = self.shared.seals.seal_of(&successor);
        self.token = successor;
        self.claimed_until = Instant::now();
    }

    /// Decides what happens while the store cannot be used.
    fn without_store(&mut self, error: Unreachable) -> Result<Position, AuthError> {
        let error = self.shared.unreachable(error);
        if Instant::now() < self.claimed_until {
            return Ok(Position::Claimed);
        }
        match self.shared.when_unreachable {
            WhenUnreachable::Wait => Err(error),
            WhenUnreachable::GoOn => {
                self.is_alone = true;
                Ok(Position::Free)
            }
        }
    }

    fn check_deadline(&self) -> Result<(), AuthError> {
        let why = "another replica has not refreshed the session in time";
        if Instant::now() < self.deadline { Ok(()) } else { Err(AuthError::new(AuthErrorKind::Unavailable, why)) }
    }
}

fn unreadable() -> Unreachable {
    Unreachable("a record in the store cannot be read: another program, or another pepper, may have written it".into())
}

fn random() -> Result<Fence, AuthError> {
    let mut fence = Fence::default();
    rand::fill(&mut fence).map_err(|error| AuthError::new(AuthErrorKind::Unavailable, error))?;
    Ok(fence)
}

/// What a claim holds beyond the time limit of the call.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// A claim that took longer is given up: its lease started with the request for it.
const MAX_CLAIM_DELAY: Duration = Duration::from_secs(1);
/// For how long a failure is shared.
const FAILURE: Duration = Duration::from_secs(1);
/// The first and the longest pause between two looks, with and without pushes.
const PUSHED_POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(250));
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
const MAX_DENIALS: u32 = 16;
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How many successors a logout follows.
const MAX_CHAIN: usize = 1024;
