//! A parsed key set.

use std::{ops::RangeInclusive, sync::Arc};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;

/// The usable keys of one answer.
#[derive(Debug, PartialEq)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Parses a JWK Set (RFC 7517 section 5), key by key: an unusable key must not invalidate the others.
    ///
    /// # Errors
    ///
    /// When the document is no key set, or has no usable key.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let document: Document<'_> = json::object(document).ok_or("the key set is not a JSON object with `keys`")?;
        if document.keys.len() > MAX_KEYS {
            return Err("the key set has too many keys");
        }
        let mut keys: Vec<Key> = document.keys.into_iter().filter_map(usable_key).collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        keys.dedup();
        // Two different keys under one ID: neither is used.
        let by_id = keys.chunk_by(|a, b| a.id == b.id);
        let keys: Vec<Key> = by_id.filter(|keys| keys.len() == 1).flatten().cloned().collect();
        if keys.is_empty() { Err("the key set has no usable key") } else { Ok(Self { keys }) }
    }

    /// Finds the one key that a token may have been signed with.
    ///
    /// A token without `kid` is accepted only if the set has a single key.
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
fn usable_key(json: &RawValue) -> Option<Key> {
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
    Some(Key { id: common.key_id, public: Arc::new(public) })
}

/// Decodes a Base64urlUInt (RFC 7518 section 2), without leading zeros.
fn integer(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[start..].to_vec())
}

const MAX_KEYS: usize = 64;

/// RFC 7518 section 3.3 sets the lower bound; above the upper one, a verification takes a millisecond.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=8192;

#[cfg(test)]
pub(super) mod tests;
