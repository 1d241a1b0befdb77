//! A JWT's grammar (RFC 7515) and claims (RFC 7519), read strictly: what is odd is refused before any key is touched.
//!
//! 1. Three parts of base64url without padding or stray bits, at most [`MAX_TOKEN`] bytes.
//! 2. Header and claims are JSON objects in UTF-8; a member that matters must not come twice or have another type.
//! 3. `alg` is `RS256`. Keys in the header (`jwk`, `jku`, `x5c`) are not looked at.
//! 4. `crit`, `b64`, `zip` and `cty` are refused: this reader understands none of them (RFC 7515 section 4.1.11).
//! 5. `exp` and `sub` are required; `nbf`, `aud` and `iss` are checked as configured.

use std::{borrow::Cow, ops::Range, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

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
    pub(crate) user_id: Box<str>,
    pub(crate) expires_at: u64,
    /// When it was issued, as the token itself says; zero if it does not.
    pub(crate) issued_at: u64,
}

impl<'t> Unverified<'t> {
    /// Reads a token and checks all that needs no key. `now` is in seconds since the epoch.
    ///
    /// # Errors
    ///
    /// Why the token is refused; without any part of it.
    pub(crate) fn read(token: &'t [u8], expected: &Expectations, now: u64) -> Result<Self, &'static str> {
        let signed = Signed::read(token)?;
        let claims: Claims<'_> = parse(signed.payload()).ok_or("the claims are not acceptable JSON")?;
        claims.check(expected, now)?;
        let (user_id, expires_at) = (claims.sub.into(), claims.exp as u64);
        Ok(Self { user_id, expires_at, issued_at: claims.iat.unwrap_or_default() as u64, signed })
    }
}

/// The parts of a token whose header holds.
pub(crate) struct Signed<'t> {
    /// The header and payload as they were signed.
    pub(crate) message: &'t [u8],
    pub(crate) key_id: Option<Box<str>>,
    /// All three parts, decoded into one allocation.
    decoded: Vec<u8>,
    payload: Range<usize>,
}

impl<'t> Signed<'t> {
    pub(crate) fn read(token: &'t [u8]) -> Result<Self, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("the token is too long");
        }
        let mut dots = memchr::memchr_iter(b'.', token);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err("the token does not have three parts");
        };
        let mut decoded = Vec::with_capacity(token.len());
        let mut decode = |part: &[u8]| match URL_SAFE_NO_PAD.decode_vec(part, &mut decoded) {
            Ok(()) => Ok(decoded.len()),
            Err(_) => Err("a part of the token is not base64url"),
        };
        let payload = decode(&token[..first])?..decode(&token[first + 1..second])?;
        let end = decode(&token[second + 1..])?;
        if payload.is_empty() || payload.end == end {
            return Err("a part of the token is empty");
        }
        let header: Header<'_> = parse(&decoded[..payload.start]).ok_or("the header is not acceptable JSON")?;
        Ok(Self { message: &token[..second], key_id: header.check()?, decoded, payload })
    }

    fn payload(&self) -> &[u8] {
        &self.decoded[self.payload.clone()]
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.decoded[self.payload.end..]
    }
}

/// Parses a JSON object. Serde would take an array for a struct as well, and skip over bad UTF-8 in what it ignores.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let text = std::str::from_utf8(json).ok()?;
    let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
    if is_object { serde_json::from_str(text).ok() } else { None }
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    typ: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    b64: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    zip: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    cty: Option<IgnoredAny>,
}

impl Header<'_> {
    fn check(self) -> Result<Option<Box<str>>, &'static str> {
        if self.alg != "RS256" {
            return Err("the algorithm is not RS256");
        }
        if self.crit.is_some() || self.b64.is_some() || self.zip.is_some() || self.cty.is_some() {
            return Err("the header asks for an extension");
        }
        let is_jwt = |typ: &str| JWT_TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known));
        if self.typ.is_some_and(|typ| !is_jwt(&typ)) {
            return Err("the token is of another type");
        }
        Ok(self.kid.map(Into::into))
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
        if self.sub.is_empty() {
            return Err("`sub` is empty");
        }
        if [Some(self.exp), self.nbf, self.iat].into_iter().flatten().any(|date| date.abs() > MAX_DATE) {
            return Err("a date is not one");
        }
        let (now, leeway) = (now as f64, expected.leeway.as_secs() as f64);
        if now >= self.exp + leeway {
            return Err("the token is expired");
        }
        if self.nbf.is_some_and(|not_before| now + leeway < not_before) {
            return Err("the token is not valid yet");
        }
        if let Some(audience) = &expected.audience
            && !self.aud.is_some_and(|aud| names(aud, audience))
        {
            return Err("the token is for another audience");
        }
        if let Some(issuer) = &expected.issuer
            && self.iss.and_then(text).is_none_or(|iss| iss != issuer.as_str())
        {
            return Err("the token is from another issuer");
        }
        Ok(())
    }
}

/// Tells whether an `aud` claim, a string or an array of strings (RFC 7519 section 4.1.3), names `audience`.
fn names(aud: &RawValue, audience: &str) -> bool {
    match text(aud) {
        Some(one) => one == audience,
        None => {
            serde_json::from_str::<Vec<Cow<'_, str>>>(aud.get()).is_ok_and(|all| all.iter().any(|one| one == audience))
        }
    }
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
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const HEADER: &str = r#"{"alg":"RS256","kid":"k1"}"#;
    const CLAIMS: &str = r#"{"sub":"alice","exp":1800000060,"aud":"project","iss":"crossmint"}"#;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    fn read(token: &str) -> Result<Unverified<'_>, &'static str> {
        let expected = Expectations {
            audience: Some("project".into()),
            issuer: Some("crossmint".into()),
            leeway: Duration::from_secs(5),
        };
        Unverified::read(token.as_bytes(), &expected, NOW)
    }

    #[test]
    fn a_good_token_is_read() {
        let text = token(HEADER, CLAIMS);
        let token = read(&text).unwrap();
        assert_eq!(
            (&*token.user_id, token.signed.key_id.as_deref(), token.expires_at),
            ("alice", Some("k1"), NOW + 60)
        );
        assert_eq!(
            (token.signed.message, token.signed.signature()),
            (&text.as_bytes()[..text.len() - 5], b"sig".as_slice())
        );
    }

    #[test]
    fn headers_are_held_to_their_rules() {
        let cases = [
            ("a type", r#"{"alg":"RS256","typ":"jwt"}"#, true),
            ("a media type", r#"{"alg":"RS256","typ":"application/JWT"}"#, true),
            ("an access token", r#"{"alg":"RS256","typ":"at+jwt"}"#, true),
            ("unknown members", r#"{"alg":"RS256","v":1,"jku":"https://x","jwk":{}}"#, true),
            ("an escaped name", r#"{"\u0061lg":"RS256"}"#, true),
            ("none", r#"{"alg":"none"}"#, false),
            ("hmac", r#"{"alg":"HS256"}"#, false),
            ("lower case", r#"{"alg":"rs256"}"#, false),
            ("a longer hash", r#"{"alg":"RS512"}"#, false),
            ("no algorithm", r#"{"kid":"k1"}"#, false),
            ("two algorithms", r#"{"alg":"none","alg":"RS256"}"#, false),
            ("two keys", r#"{"alg":"RS256","kid":"a","kid":"a"}"#, false),
            ("a numeric key", r#"{"alg":"RS256","kid":1}"#, false),
            ("a null key", r#"{"alg":"RS256","kid":null}"#, false),
            ("an extension", r#"{"alg":"RS256","crit":["exp"]}"#, false),
            ("a null extension", r#"{"alg":"RS256","crit":null}"#, false),
            ("an unencoded payload", r#"{"alg":"RS256","b64":false}"#, false),
            ("compression", r#"{"alg":"RS256","zip":"DEF"}"#, false),
            ("nesting", r#"{"alg":"RS256","cty":"JWT"}"#, false),
            ("another type", r#"{"alg":"RS256","typ":"logout+jwt"}"#, false),
            ("an array", r#"["RS256","k1"]"#, false),
            ("a byte order mark", "\u{feff}{\"alg\":\"RS256\"}", false),
        ];
        for (name, header, good) in cases {
            assert_eq!(read(&token(header, CLAIMS)).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn claims_are_held_to_their_rules() {
        let cases = [
            ("several audiences", r#"{"sub":"a","exp":1800000060,"aud":["x","project"],"iss":"crossmint"}"#, true),
            ("a fraction", r#"{"sub":"a","exp":1800000060.5,"aud":"project","iss":"crossmint"}"#, true),
            ("within the leeway", r#"{"sub":"a","exp":1799999996,"aud":"project","iss":"crossmint"}"#, true),
            (
                "early within the leeway",
                r#"{"sub":"a","exp":1800000060,"nbf":1800000005,"aud":"project","iss":"crossmint"}"#,
                true,
            ),
            ("expired at the leeway's end", r#"{"sub":"a","exp":1799999995,"aud":"project","iss":"crossmint"}"#, false),
            ("too early", r#"{"sub":"a","exp":1800000060,"nbf":1800000006,"aud":"project","iss":"crossmint"}"#, false),
            ("no expiry", r#"{"sub":"a","aud":"project","iss":"crossmint"}"#, false),
            ("a text for a date", r#"{"sub":"a","exp":"1800000060","aud":"project","iss":"crossmint"}"#, false),
            ("no date in sight", r#"{"sub":"a","exp":1e300,"aud":"project","iss":"crossmint"}"#, false),
            ("a null date", r#"{"sub":"a","exp":1800000060,"nbf":null,"aud":"project","iss":"crossmint"}"#, false),
            ("no user", r#"{"exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
            ("an empty user", r#"{"sub":"","exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
            ("a numeric user", r#"{"sub":5,"exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
            ("two users", r#"{"sub":"a","sub":"b","exp":1800000060,"aud":"project","iss":"crossmint"}"#, false),
            ("no audience", r#"{"sub":"a","exp":1800000060,"iss":"crossmint"}"#, false),
            ("another audience", r#"{"sub":"a","exp":1800000060,"aud":"project2","iss":"crossmint"}"#, false),
            (
                "an object for an audience",
                r#"{"sub":"a","exp":1800000060,"aud":{"project":1},"iss":"crossmint"}"#,
                false,
            ),
            ("another issuer", r#"{"sub":"a","exp":1800000060,"aud":"project","iss":"crossmint/"}"#, false),
            ("several issuers", r#"{"sub":"a","exp":1800000060,"aud":"project","iss":["crossmint"]}"#, false),
            ("an array", r#"["a",1800000060]"#, false),
            ("two objects", r#"{"sub":"a","exp":1800000060,"aud":"project","iss":"crossmint"}{}"#, false),
        ];
        for (name, claims, good) in cases {
            assert_eq!(read(&token(HEADER, claims)).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn only_the_compact_form_is_a_token() {
        let good = token(HEADER, CLAIMS);
        let unsigned = good.rsplit_once('.').unwrap().0;
        let cases = [
            ("nothing", String::new()),
            ("dots", "..".into()),
            ("two parts", unsigned.into()),
            ("four parts", format!("{good}.c2ln")),
            ("a scheme", format!("Bearer {good}")),
            ("padding", format!("{good}=")),
            ("stray bits", format!("{unsigned}.c2l")),
            ("a space", format!("{good} ")),
            ("the standard alphabet", format!("{unsigned}.+/+/")),
            ("too long", format!("{unsigned}.{}", "A".repeat(MAX_TOKEN))),
        ];
        for (name, text) in cases {
            assert!(read(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn no_clock_makes_it_panic() {
        let expected = Expectations { audience: None, issuer: None, leeway: Duration::from_secs(300) };
        for now in [0, 30, NOW, u64::MAX] {
            let _ = Unverified::read(token(HEADER, CLAIMS).as_bytes(), &expected, now);
        }
    }
}
