//! A JWT's grammar (RFC 7515) and claims (RFC 7519), parsed strictly: malformed tokens are rejected before
//! any signature is checked.
//!
//! 1. Three parts of base64url without padding or stray bits, at most [`MAX_TOKEN`] bytes.
//! 2. Header and claims are JSON objects in UTF-8; a member that matters must not come twice or have another type.
//! 3. `alg` is `RS256`. Keys in the header (`jwk`, `jku`, `x5c`) are not looked at.
//! 4. `crit`, `b64`, `zip` and `cty` are refused: this reader understands none of them (RFC 7515 section 4.1.11).
//! 5. `exp` and `sub` are required; `nbf`, `aud` and `iss` are checked as configured.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::json;

/// What a token must say, beyond being signed.
#[derive(Debug)]
pub(crate) struct Expectations {
    pub(crate) audience: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) leeway: Duration,
}

/// A token whose claims hold, and whose signature is still to be verified.
pub(crate) struct Unverified<'t> {
    pub(crate) signed: Signed<'t>,
    pub(crate) user_id: Cow<'t, str>,
    pub(crate) expires_at: u64,
    /// When it was issued, as the token itself says; zero if it does not.
    pub(crate) issued_at: u64,
}

impl<'t> Unverified<'t> {
    /// Reads a token, which is decoded into `buffer`, and checks all that needs no key. `now` is in seconds since the
    /// epoch.
    ///
    /// # Errors
    ///
    /// Why the token is refused; without any part of it.
    pub(crate) fn read(
        token: &'t [u8],
        buffer: &'t mut Vec<u8>,
        expected: &Expectations,
        now: u64,
    ) -> Result<Self, &'static str> {
        let mut parts = Parts::split(token, buffer)?;
        // The claims come first: nearly all tokens that are refused have expired, many at once when a browser returns.
        let claims: Claims<'_> =
            json::object(parts.decode(parts.payload)?).ok_or("the claims are not acceptable JSON")?;
        claims.check(expected, now)?;
        let (expires_at, issued_at) = (claims.exp as u64, claims.iat.unwrap_or_default() as u64);
        Ok(Self { signed: Signed::read(&mut parts)?, user_id: claims.sub, expires_at, issued_at })
    }
}

/// What is signed, and the signature. The header holds.
pub(crate) struct Signed<'t> {
    /// The header and payload as they were signed.
    pub(crate) message: &'t [u8],
    pub(crate) key_id: Option<Cow<'t, str>>,
    pub(crate) signature: &'t [u8],
}

impl<'t> Signed<'t> {
    fn read(parts: &mut Parts<'t>) -> Result<Self, &'static str> {
        let header: Header<'_> =
            json::object(parts.decode(parts.header)?).ok_or("the header is not acceptable JSON")?;
        let key_id = header.check()?;
        Ok(Self { message: parts.message, key_id, signature: parts.decode(parts.signature)? })
    }
}

/// The parts of a token, which are decoded into one buffer.
struct Parts<'t> {
    message: &'t [u8],
    header: &'t [u8],
    payload: &'t [u8],
    signature: &'t [u8],
    /// What is left of the buffer.
    buffer: &'t mut [u8],
}

impl<'t> Parts<'t> {
    fn split(token: &'t [u8], buffer: &'t mut Vec<u8>) -> Result<Self, &'static str> {
        // Before any parsing: anonymous clients choose the length.
        require(token.len() <= MAX_TOKEN, "the token is too long")?;
        let mut dots = memchr::memchr_iter(b'.', token);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err("the token does not have three parts");
        };
        // More than is needed.
        buffer.resize(token.len(), 0);
        Ok(Self {
            message: &token[..second],
            header: &token[..first],
            payload: &token[first + 1..second],
            signature: &token[second + 1..],
            buffer,
        })
    }

    fn decode(&mut self, part: &[u8]) -> Result<&'t [u8], &'static str> {
        let buffer = std::mem::take(&mut self.buffer);
        let length = URL_SAFE_NO_PAD.decode_slice(part, buffer).map_err(|_| "a part of the token is not base64url")?;
        require(length > 0, "a part of the token is empty")?;
        let (decoded, left) = buffer.split_at_mut(length);
        self.buffer = left;
        Ok(decoded)
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    kid: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    typ: Option<Text<'a>>,
    #[serde(default, rename = "crit", alias = "b64", alias = "zip", alias = "cty", deserialize_with = "present")]
    extension: Option<IgnoredAny>,
}

impl<'a> Header<'a> {
    fn check(self) -> Result<Option<Cow<'a, str>>, &'static str> {
        let is_jwt = |typ: Text<'_>| JWT_TYPES.iter().any(|known| typ.0.eq_ignore_ascii_case(known));
        require(self.alg == "RS256", "the algorithm is not RS256")?;
        require(self.extension.is_none(), "the header asks for an extension")?;
        require(self.typ.is_none_or(is_jwt), "`typ` is not a JWT type")?;
        Ok(self.kid.map(|kid| kid.0))
    }
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    exp: f64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<f64>,
    #[serde(borrow, default)]
    aud: Option<&'a RawValue>,
    #[serde(borrow, default)]
    iss: Option<&'a RawValue>,
}

impl Claims<'_> {
    fn check(&self, expected: &Expectations, now: u64) -> Result<(), &'static str> {
        let is_date = |date: f64| date.abs() <= MAX_DATE;
        let (now, leeway) = (now as f64, expected.leeway.as_secs() as f64);
        // RFC 7519 section 4.1.2 allows an empty `sub`, but it identifies no user.
        require(!self.sub.is_empty(), "`sub` is empty")?;
        require(
            [Some(self.exp), self.nbf, self.iat].into_iter().flatten().all(is_date),
            "`exp`, `nbf` or `iat` is out of range",
        )?;
        // `exp` is exclusive and `nbf` inclusive (RFC 7519 sections 4.1.4 and 4.1.5).
        require(now < self.exp + leeway, "the token is expired")?;
        require(self.nbf.is_none_or(|not_before| now + leeway >= not_before), "the token is not valid yet")?;
        if let Some(audience) = &expected.audience {
            let is_ours = self.aud.and_then(|aud| names(aud, audience)) == Some(true);
            require(is_ours, "the token is for another audience")?;
        }
        if let Some(issuer) = &expected.issuer {
            require(self.iss.and_then(text).is_some_and(|iss| iss == *issuer), "the token is from another issuer")?;
        }
        Ok(())
    }
}

fn require(holds: bool, why: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(why) }
}

/// Returns whether a token names other audiences than `audience`. Neither its signature nor its expiry is checked.
pub(crate) fn is_for_another_audience(token: &[u8], audience: &str) -> bool {
    #[derive(Deserialize)]
    struct Audience<'a> {
        #[serde(borrow)]
        aud: &'a RawValue,
    }
    let mut buffer = Zeroizing::default();
    let Ok(mut parts) = Parts::split(token, &mut buffer) else { return false };
    let Some(claims) = parts.decode(parts.payload).ok().and_then(json::object::<Audience<'_>>) else { return false };
    names(claims.aud, audience) == Some(false) && Signed::read(&mut parts).is_ok()
}

/// Returns whether an `aud` claim names `audience`. `None` if it is neither a string nor an array of strings (RFC 7519
/// section 4.1.3).
fn names(aud: &RawValue, audience: &str) -> Option<bool> {
    if let Some(one) = text(aud) {
        return Some(one == audience);
    }
    let all: Vec<Cow<'_, str>> = serde_json::from_str(aud.get()).ok()?;
    Some(all.iter().any(|one| one == audience))
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// `Cow` borrows where it can only inside of a type that says so.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Keeps `null` from passing for an absent member.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Twice what fits into the largest cookie: the rest is for callers of `verify_jwt`.
pub(crate) const MAX_TOKEN: usize = 8190;

/// RFC 7515 section 4.1.9 and RFC 9068 section 2.1; without regard to case, as all media types.
const JWT_TYPES: [&str; 3] = ["JWT", "application/jwt", "at+jwt"];

/// The year 9999, in milliseconds to be lenient: beyond it, seconds are no date.
const MAX_DATE: f64 = 253_402_300_799_000.0;

#[cfg(test)]
mod tests;
