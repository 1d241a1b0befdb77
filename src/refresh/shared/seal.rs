//! What the store may see of a token: the name of its record, and encrypted values.
//!
//! Both are derived from the token itself, with HKDF (RFC 5869), so that only those who have the token can find, read or
//! make up its record.

use std::time::Duration;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    hkdf::{HKDF_SHA256, Prk, Salt},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    clock,
    config::Settings,
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    store::{Id, Sealed},
    upstream::RefreshAnswer,
};

/// Derives the keys of one project's tokens.
pub(crate) struct Seals {
    salt: Salt,
    pepper: Option<Secret>,
    max_note_age: Duration,
}

impl Seals {
    /// Returns the seals of a project, and its name in the store. `lease` is how long a claim holds.
    pub(crate) fn new(settings: &Settings, pepper: Option<Secret>, lease: Duration) -> (Self, String) {
        let key = &settings.api_key;
        let context = [FORMAT, &settings.base_url, key.environment().name(), key.project_id()].join("\n");
        let context = digest(&SHA256, context.as_bytes());
        let name = URL_SAFE_NO_PAD.encode(&context.as_ref()[..12]);
        (Self { salt: Salt::new(HKDF_SHA256, context.as_ref()), pepper, max_note_age: lease + MAX_CLOCK_SKEW }, name)
    }

    /// Returns the seal of a token.
    ///
    /// `None` if the token is so short that its record's name would reveal it to somebody who tries all of its like.
    pub(crate) fn seal_of(&self, token: &Secret) -> Option<Seal> {
        if token.len() < MIN_TOKEN {
            return None;
        }
        let pepper = self.pepper.as_deref().unwrap_or_default();
        let mut secret = Zeroizing::new(Vec::with_capacity(8 + token.len() + pepper.len()));
        // Its length first, so that no token and pepper look like another pair.
        secret.extend_from_slice(&(token.len() as u64).to_be_bytes());
        secret.extend_from_slice(token.as_bytes());
        secret.extend_from_slice(pepper.as_bytes());
        let root = self.salt.extract(&secret);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*expand(&root, b"seal")?).ok()?;
        Some(Seal { id: *expand(&root, b"id")?, key, max_note_age: self.max_note_age })
    }
}

fn expand(root: &Prk, label: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    root.expand(&[label], HKDF_SHA256).and_then(|key_of_label| key_of_label.fill(&mut *key)).ok()?;
    Some(key)
}

/// Encrypts and decrypts the values in a token's record.
pub(crate) struct Seal {
    pub(crate) id: Id,
    key: RandomizedNonceKey,
    max_note_age: Duration,
}

/// What a value means. A value of one kind cannot pass for another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer = b'a' as isize,
    Claim = b'c' as isize,
    Failure = b'f' as isize,
    Refusal = b'r' as isize,
    Tombstone = b't' as isize,
}

impl Seal {
    /// Seals Crossmint's answer, padded so that its size says little.
    pub(crate) fn seal_answer(&self, answer: &RefreshAnswer) -> Option<Sealed> {
        let mut padded = Vec::with_capacity(answer.body.len().next_multiple_of(PADDING) + OVERHEAD);
        padded.extend_from_slice(&answer.body);
        // White space after a JSON text is no part of it.
        padded.resize(answer.body.len().next_multiple_of(PADDING), b' ');
        self.seal(Kind::Answer, padded)
    }

    pub(crate) fn open_answer(&self, sealed: &[u8]) -> Option<RefreshAnswer> {
        RefreshAnswer::parse(self.open(Kind::Answer, sealed)?).ok()
    }

    /// Seals a statement about the token, and when it was made.
    pub(crate) fn seal_note(&self, kind: Kind, text: &str) -> Option<Sealed> {
        self.seal(kind, format!("{} {text}", clock::unix_seconds()).into_bytes())
    }

    /// Returns the text of a statement, if it was made for this token.
    pub(crate) fn open_note(&self, kind: Kind, sealed: &[u8]) -> Option<String> {
        let note = String::from_utf8(self.open(kind, sealed)?.to_vec()).ok()?;
        let (made_at, text) = note.split_once(' ')?;
        // What the store keeps or puts back for longer than it should must not hold up a refresh. A logout is for good.
        let age = Duration::from_secs(clock::unix_seconds().abs_diff(made_at.parse().ok()?));
        (kind == Kind::Tombstone || age <= self.max_note_age).then(|| text.to_owned())
    }

    /// Seals a failure other than a refusal.
    pub(crate) fn seal_failure(&self, error: &AuthError) -> Option<Sealed> {
        self.seal_note(Kind::Failure, error.kind().as_str())
    }

    pub(crate) fn open_failure(&self, sealed: &[u8], retry_after: Duration) -> Option<AuthError> {
        let name = self.open_note(Kind::Failure, sealed)?;
        let kinds = [AuthErrorKind::Unavailable, AuthErrorKind::RateLimited, AuthErrorKind::UnusableAnswer];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == name)?;
        Some(AuthError::new(kind, "another replica's refresh failed").with_retry_after(Some(retry_after)))
    }

    fn seal(&self, kind: Kind, mut text: Vec<u8>) -> Option<Sealed> {
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.context(kind)), &mut text).ok()?;
        text.splice(..0, nonce.as_ref().iter().copied());
        Some(text)
    }

    fn open(&self, kind: Kind, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let (nonce, mut text) = (Nonce::assume_unique_for_key(*nonce), Zeroizing::new(text.to_vec()));
        let length = self.key.open_in_place(nonce, Aad::from(self.context(kind)), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn context(&self, kind: Kind) -> [u8; 34] {
        let mut context = [0; 34];
        context[0] = FORMAT_NUMBER;
        context[1] = kind as u8;
        context[2..].copy_from_slice(&self.id);
        context
    }
}

/// Changes with everything that is derived and sealed: other versions must not misread it.
const FORMAT: &str = "tower-crossmint-auth shared renewals 1";
const FORMAT_NUMBER: u8 = 1;

/// A one-time secret of six digits could be found by trying all.
const MIN_TOKEN: usize = 32;

const PADDING: usize = 512;
/// A nonce and a tag.
const OVERHEAD: usize = 28;

/// The difference of two replicas' clocks. With a larger one, their JWTs would fail as well.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(120);

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
