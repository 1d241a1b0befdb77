//! Crossmint's key set: parsed once, used synchronously, reloaded by a policy that nobody can abuse.
//!
//! 1. A set serves for [`SOFT_TTL`]; then one reload starts in the background, and the set goes on serving.
//! 2. A failed reload keeps the last good set, until it is [`HARD_TTL`] old.
//! 3. A token that names an unknown key causes at most one reload per [`COOLDOWN`], counted from the last attempt.
//! 4. A token that Crossmint has just handed out may cause one at any time.
//! 5. Without a set, attempts back off from one second to [`MAX_BACKOFF`], or for as long as Crossmint asks for.
//! 6. One reload at a time; all who need it wait for the same one.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::watch, time::Instant};

use crate::{
    clock,
    error::{AuthError, AuthErrorKind},
};

/// The current key set and the state of its reloads.
#[derive(Debug)]
pub(crate) struct Keys {
    current: RwLock<Option<Arc<KeySet>>>,
    /// Changes whenever the set does: what was verified with an older one must be verified again.
    generation: AtomicU64,
    /// When the set was loaded, in milliseconds since `epoch`; `u64::MAX` without a set.
    loaded_at: AtomicU64,
    /// The same in seconds of the clock that tokens are issued by.
    loaded_at_unix: AtomicU64,
    epoch: Instant,
    reload: Mutex<Reload>,
    /// When a stale set may be reloaded, in milliseconds since `epoch`: most requests need not take the lock to learn
    /// that it is too soon.
    stale_until: AtomicU64,
}

#[derive(Debug, Default)]
struct Reload {
    last_attempt: Option<Instant>,
    failures: u32,
    last_failure: Option<AuthError>,
    under_way: Option<watch::Receiver<()>>,
}

impl Reload {
    /// Returns how long to leave Crossmint alone after the last attempt.
    fn pause(&self, reason: Reason) -> Duration {
        let asked_for = self.last_failure.as_ref().and_then(AuthError::requested_delay).unwrap_or_default();
        match reason {
            Reason::Vouched => Duration::ZERO,
            Reason::UnknownKey => COOLDOWN.max(asked_for),
            Reason::Stale if self.failures == 0 => Duration::ZERO,
            Reason::Missing | Reason::Stale => backoff(self.failures).max(asked_for),
        }
    }

    fn fail(&mut self, error: AuthError) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(error);
        self.under_way = None;
    }
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            current: RwLock::default(),
            generation: AtomicU64::new(0),
            loaded_at: AtomicU64::new(u64::MAX),
            loaded_at_unix: AtomicU64::new(0),
            epoch: Instant::now(),
            reload: Mutex::default(),
            stale_until: AtomicU64::new(0),
        }
    }

    /// Returns the set and its generation, unless there is none or it is too old.
    pub(crate) fn current(&self) -> Option<(Arc<KeySet>, u64)> {
        if self.freshness() == Freshness::Unusable {
            return None;
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some((current.clone()?, self.generation.load(Ordering::Acquire)))
    }

    /// Tells whether a stale set is due for a reload. Does not lock.
    pub(crate) fn is_due(&self) -> bool {
        self.millis() >= self.stale_until.load(Ordering::Acquire)
    }

    /// Returns which set is in use. Does not lock.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns how far the set can be trusted. Does not lock.
    pub(crate) fn freshness(&self) -> Freshness {
        let loaded_at = self.loaded_at.load(Ordering::Acquire);
        let age = Duration::from_millis(self.millis().saturating_sub(loaded_at));
        match age {
            _ if loaded_at == u64::MAX => Freshness::Unusable,
            age if age >= HARD_TTL => Freshness::Unusable,
            age if age >= SOFT_TTL => Freshness::Stale,
            _ => Freshness::Fresh,
        }
    }

    /// Tells whether a token was issued after the set had been loaded, so that its key may be a new one. Tokens that are
    /// not verified say what they like.
    pub(crate) fn may_be_news(&self, issued_at: u64) -> bool {
        issued_at > self.loaded_at_unix.load(Ordering::Acquire)
    }

    /// Returns why the last reload failed, unless it succeeded.
    pub(crate) fn last_failure(&self) -> Option<AuthError> {
        self.reload().last_failure.clone()
    }

    /// Asks whether a reload may start now.
    pub(crate) fn request_reload(self: &Arc<Self>, reason: Reason) -> Permission {
        let mut reload = self.reload();
        // Somebody else may have been faster.
        match (reason, self.freshness()) {
            (Reason::Stale, Freshness::Fresh) | (Reason::Missing, Freshness::Fresh | Freshness::Stale) => {
                return Permission::NotBefore(Duration::ZERO);
            }
            _ => {}
        }
        if let Some(under_way) = &reload.under_way {
            return Permission::Join(under_way.clone());
        }
        let now = Instant::now();
        if let Some(last) = reload.last_attempt
            && let remaining = reload.pause(reason).saturating_sub(now.saturating_duration_since(last))
            && !remaining.is_zero()
        {
            return Permission::NotBefore(remaining);
        }
        // One second for the attempt itself, or as long as the next failure will ask for.
        self.rest(backoff(reload.failures.saturating_add(1)));
        let (done, under_way) = watch::channel(());
        reload.last_attempt = Some(now);
        reload.under_way = Some(under_way.clone());
        Permission::Start(Attempt { keys: Arc::clone(self), is_open: true, _done: done }, under_way)
    }

    fn install(&self, set: KeySet) {
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.as_deref() != Some(&set) {
                *current = Some(Arc::new(set));
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
        }
        let unix = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.loaded_at_unix.store(unix.as_secs(), Ordering::Release);
        self.loaded_at.store(self.millis(), Ordering::Release);
    }

    /// Leaves a stale set alone for so long.
    fn rest(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX >> 1);
        self.stale_until.store(self.millis() + pause, Ordering::Release);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn reload(&self) -> MutexGuard<'_, Reload> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    /// Good enough, and due for a reload.
    Stale,
    /// Never loaded, or not for [`HARD_TTL`].
    Unusable,
}

/// Why a reload is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no usable set.
    Missing,
    /// The set is due.
    Stale,
    /// A request's token names a key that is not in the set.
    UnknownKey,
    /// So does a token that Crossmint itself has just handed out.
    Vouched,
}

/// The answer to [`Keys::request_reload`].
#[derive(Debug)]
pub(crate) enum Permission {
    /// The caller starts the reload. The receiver closes when it has ended.
    Start(Attempt, watch::Receiver<()>),
    /// One is under way. The receiver closes when it has ended.
    Join(watch::Receiver<()>),
    /// Not before this much time has passed.
    NotBefore(Duration),
}

/// One reload under way. Dropped unfinished (a panic, a runtime that shuts down), it has failed.
#[derive(Debug)]
pub(crate) struct Attempt {
    keys: Arc<Keys>,
    is_open: bool,
    _done: watch::Sender<()>,
}

impl Attempt {
    /// Ends the reload with a good set.
    pub(crate) fn succeed(mut self, set: KeySet) {
        self.is_open = false;
        let mut reload = self.keys.reload();
        self.keys.install(set);
        reload.failures = 0;
        reload.last_failure = None;
        reload.under_way = None;
    }

    /// Ends the reload without a set.
    pub(crate) fn fail(mut self, error: AuthError) {
        self.is_open = false;
        let mut reload = self.keys.reload();
        reload.fail(error);
        self.keys.rest(reload.pause(Reason::Stale));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_open {
            self.keys.reload().fail(AuthError::of(AuthErrorKind::Unavailable));
        }
    }
}

/// The usable keys of one answer.
#[derive(Debug, PartialEq)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Parses a JWK Set (RFC 7517 section 5), key by key: one odd key must not lose the others.
    ///
    /// # Errors
    ///
    /// When the document is no key set, or has no usable key.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(document).map_err(|_| "the key set is not UTF-8")?;
        if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
            return Err("the key set is not a JSON object");
        }
        let document: Document<'_> = serde_json::from_str(text).map_err(|_| "the key set is not JSON with `keys`")?;
        if document.keys.len() > MAX_KEYS {
            return Err("the key set has too many keys");
        }
        let mut by_id: HashMap<Option<String>, Option<Key>> = HashMap::new();
        // Two different keys under one ID: neither is used.
        for (id, key) in document.keys.into_iter().filter_map(usable_key) {
            by_id
                .entry(id)
                .and_modify(|known| *known = known.take().filter(|known| *known == key))
                .or_insert(Some(key.clone()));
        }
        let mut keys: Vec<Key> = by_id.into_values().flatten().collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        if keys.is_empty() { Err("the key set has no usable key") } else { Ok(Self { keys }) }
    }

    /// Finds the one key that a token may have been signed with.
    ///
    /// A token without `kid` is accepted only where there is nothing to choose.
    pub(crate) fn find(&self, key_id: Option<&str>) -> Option<&Key> {
        match (key_id, self.keys.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(_), keys) => keys.iter().find(|key| key.id.as_deref() == key_id),
        }
    }

    /// Returns how many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the IDs of the keys.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn ids(&self) -> impl Iterator<Item = Option<&str>> {
        self.keys.iter().map(|key| key.id.as_deref())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    id: Option<String>,
    public: Arc<ParsedPublicKey>,
}

impl Key {
    /// Verifies an RSASSA-PKCS1-v1_5 SHA-256 signature.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.public.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && (*self.public).as_ref() == (*other.public).as_ref()
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Parses one JWK, unless it is not meant for RS256 signatures, too weak, or too large to be verified in good time.
fn usable_key(json: &RawValue) -> Option<(Option<String>, Key)> {
    let jwk: Jwk = serde_json::from_str(json.get()).ok()?;
    let common = jwk.common;
    let signs = common.public_key_use.is_none_or(|intent| intent == PublicKeyUse::Signature)
        && common.key_operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
        && common.key_algorithm.is_none_or(|algorithm| algorithm == KeyAlgorithm::RS256);
    let AlgorithmParameters::RSA(rsa) = jwk.algorithm else { return None };
    if !signs {
        return None;
    }
    let n = integer(&rsa.n)?;
    let e = integer(&rsa.e)?;
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    if !MODULUS_BITS.contains(&bits) || !is_odd(&n) || e.len() > 4 || !is_odd(&e) || e == [1] {
        return None;
    }
    let public = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
    let key = Key { id: common.key_id.clone(), public: Arc::new(public) };
    Some((common.key_id, key))
}

/// Decodes a Base64urlUInt (RFC 7518 section 2), without leading zeros.
fn integer(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[start..].to_vec())
}

fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => Duration::from_secs(1 << (failures - 1).min(5)).min(MAX_BACKOFF),
    }
}

const SOFT_TTL: Duration = Duration::from_secs(10 * 60);
const HARD_TTL: Duration = Duration::from_secs(60 * 60);
const COOLDOWN: Duration = Duration::from_secs(30);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
const MAX_KEYS: usize = 64;

/// RFC 7518 section 3.3 sets the lower bound; above the upper one, a verification takes a millisecond.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=8192;

#[cfg(test)]
mod tests;
