//! What the layer accepts, said once more as plainly as possible: the targets compare.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use tower_crossmint_auth::{
    AuthErrorKind, CookieOptions, SameSite,
    fuzzing::{Ambiguous, Answer, ISSUER, Jwt, PROJECT, set_cookie},
};

#[derive(Debug)]
pub struct Refused;

fn ensure(holds: bool) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused) }
}

/// Makes headers of fields, unless HTTP forbids one.
pub fn fields<'a>(name: &'static str, values: impl IntoIterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let name = HeaderName::from_static(name);
    values.into_iter().map(|value| Some((name.clone(), HeaderValue::from_bytes(value).ok()?))).collect()
}

/// Splits at the first line break.
pub fn lines(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    (&input[..end], input.get(end + 1..).unwrap_or_default())
}

pub const PAIR: [&str; 2] = ["crossmint-jwt-project", "crossmint-refresh-token-project"];
pub const UNSCOPED: [&str; 2] = ["crossmint-jwt", "crossmint-refresh-token"];

type Slot<'a> = Result<Option<&'a [u8]>, Ambiguous>;

/// Cookies end at `;` and are named up to the first `=`; equal ones are one, different ones ambiguous. A fallback stands
/// in for what is absent, but does not pair its JWT with a refresh token of the first pair.
pub fn cookies<'a>(headers: &'a HeaderMap, names: [&str; 2], fallback: Option<[&str; 2]>) -> [Slot<'a>; 2] {
    let trim = |text: &'a [u8]| -> &'a [u8] {
        let is_inner = |byte: &u8| *byte != b' ' && *byte != b'\t';
        let Some(start) = text.iter().position(is_inner) else { return &[] };
        &text[start..=text.iter().rposition(is_inner).unwrap()]
    };
    let find = |name: &str| -> Slot<'a> {
        let mut values = BTreeSet::new();
        for cookie in headers.get_all("cookie").iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';')) {
            if let Some(equals) = cookie.iter().position(|byte| *byte == b'=')
                && trim(&cookie[..equals]) == name.as_bytes()
                && !trim(&cookie[equals + 1..]).is_empty()
            {
                values.insert(trim(&cookie[equals + 1..]));
            }
        }
        if values.len() > 1 { Err(Ambiguous) } else { Ok(values.first().copied()) }
    };
    match (names.map(find), fallback.map(|names| names.map(find))) {
        ([Ok(None), Ok(None)], Some(fallback)) => fallback,
        ([jwt, Ok(None)], Some([_, refresh_token])) => [jwt, refresh_token],
        (pair, _) => pair,
    }
}

/// The members of a JSON object, twins included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn parse(json: &'a [u8]) -> Result<Self, Refused> {
        std::str::from_utf8(json).ok().and_then(|text| serde_json::from_str(text).ok()).ok_or(Refused)
    }

    fn raw(&self, name: &str) -> Result<Option<&'a RawValue>, Refused> {
        let mut found = self.0.iter().filter(|(other, _)| other == name).map(|(_, value)| *value);
        let first = found.next();
        ensure(found.next().is_none()).map(|()| first)
    }

    fn value(&self, name: &str) -> Result<Option<Value>, Refused> {
        self.raw(name)?.map(|raw| serde_json::from_str(raw.get()).map_err(|_| Refused)).transpose()
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refused> {
        self.value(name)?.map(|value| value.as_str().map(Into::into).ok_or(Refused)).transpose()
    }

    /// A text. `jsonwebtoken` takes `{"RSA": null}` for `"RSA"` as well.
    fn variant(&self, name: &str) -> Result<Option<String>, Refused> {
        match self.value(name)? {
            Some(Value::Object(object)) if object.len() == 1 && object.values().all(Value::is_null) => {
                Ok(object.into_iter().next().map(|(name, _)| name))
            }
            _ => self.text_or_null(name),
        }
    }

    /// A text, or `null` for none.
    fn text_or_null(&self, name: &str) -> Result<Option<String>, Refused> {
        if self.value(name)? == Some(Value::Null) { Ok(None) } else { self.text(name) }
    }

    /// Seconds, or milliseconds, since 1970; before the year 10000.
    fn date(&self, name: &str) -> Result<Option<f64>, Refused> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        value.as_f64().filter(|date| date.abs() <= 253_402_300_799_000.0).map(Some).ok_or(Refused)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// Makes a token of a header and claims in two lines. One line is a token already.
pub fn token(input: &[u8]) -> Vec<u8> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return input.to_vec() };
    [to_base64url(&input[..end]), b".".to_vec(), to_base64url(&input[end + 1..]), b".c2ln".to_vec()].concat()
}

/// RFC 7515, 7519 and the policy of this crate: RS256, nothing critical, one of each, of the right type.
pub fn jwt(token: &[u8], leeway: u64, now: u64) -> Result<Jwt, Refused> {
    ensure(token.len() <= 8190)?;
    let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
    let [header, payload, signature] = parts[..] else { return Err(Refused) };
    let message = token[..token.len() - signature.len() - 1].to_vec();
    let (header, payload, signature) = (base64url(header)?, base64url(payload)?, base64url(signature)?);
    ensure(!signature.is_empty())?;

    let header = Members::parse(&header)?;
    ensure(header.text("alg")?.as_deref() == Some("RS256"))?;
    for extension in ["crit", "b64", "zip", "cty"] {
        ensure(header.raw(extension)?.is_none())?;
    }
    let typ = header.text("typ")?.unwrap_or("JWT".into()).to_ascii_lowercase();
    ensure(["jwt", "application/jwt", "at+jwt"].contains(&&*typ))?;
    let key_id = header.text("kid")?;

    let claims = Members::parse(&payload)?;
    let user_id = claims.text("sub")?.filter(|sub| !sub.is_empty()).ok_or(Refused)?;
    let (exp, nbf, iat) = (claims.date("exp")?.ok_or(Refused)?, claims.date("nbf")?, claims.date("iat")?);
    let (now, leeway) = (now as f64, leeway as f64);
    ensure(now < exp + leeway && nbf.is_none_or(|nbf| nbf <= now + leeway))?;
    ensure(match claims.value("aud")? {
        Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.contains(&PROJECT.into()),
        one => one == Some(PROJECT.into()),
    })?;
    ensure(claims.value("iss")? == Some(ISSUER.into()))?;
    let (expires_at, issued_at) = (exp as u64, iat.unwrap_or_default() as u64);
    Ok(Jwt { message, signature, key_id, user_id, expires_at, issued_at })
}

/// RFC 7517: the IDs under which there is one RSA key for RS256 signatures, of at most 64 keys.
pub fn key_ids(document: &[u8]) -> Result<BTreeSet<Option<String>>, Refused> {
    let keys = Members::parse(document)?.raw("keys")?.ok_or(Refused)?.get();
    let keys: Vec<&RawValue> = serde_json::from_str(keys).map_err(|_| Refused)?;
    ensure(keys.len() <= 64)?;
    let mut by_id = BTreeMap::<_, BTreeSet<_>>::new();
    for (id, key) in keys.into_iter().filter_map(|key| rsa_key(key).ok()) {
        by_id.entry(id).or_default().insert(key);
    }
    let ids: BTreeSet<_> = by_id.into_iter().filter(|(_, keys)| keys.len() == 1).map(|(id, _)| id).collect();
    ensure(!ids.is_empty()).map(|()| ids)
}

type RsaKey = (Vec<u8>, Vec<u8>);

fn rsa_key(jwk: &RawValue) -> Result<(Option<String>, RsaKey), Refused> {
    serde_json::from_str::<Value>(jwk.get()).map_err(|_| Refused)?;
    let jwk = Members::parse(jwk.get().as_bytes())?;
    ensure(jwk.text_or_null("use")?.is_none_or(|intent| intent == "sig"))?;
    ensure(jwk.variant("alg")?.is_none_or(|alg| alg == "RS256"))?;
    for (name, demands) in [("key_ops", Some("verify")), ("x5c", None)] {
        match jwk.value(name)? {
            None | Some(Value::Null) => {}
            Some(Value::Array(all)) => {
                ensure(all.iter().all(Value::is_string))?;
                ensure(demands.is_none_or(|value| all.contains(&value.into())))?;
            }
            Some(_) => return Err(Refused),
        }
    }
    for text in ["x5u", "x5t", "x5t#S256"] {
        jwk.text_or_null(text)?;
    }
    ensure(jwk.variant("kty")?.as_deref() == Some("RSA"))?;
    let number = |name| -> Result<Vec<u8>, Refused> {
        let digits = base64url(jwk.text(name)?.ok_or(Refused)?.as_bytes())?;
        Ok(digits.into_iter().skip_while(|digit| *digit == 0).collect())
    };
    let (n, e) = (number("n")?, number("e")?);
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    ensure((256..=1024).contains(&n.len()) && (n.len() > 256 || n[0] >= 0x80) && is_odd(&n))?;
    ensure(e.len() <= 4 && is_odd(&e) && e != [1])?;
    Ok((jwk.text_or_null("kid")?, (n, e)))
}

/// Puts moduli in the place of `<1>`, `<2>` and `<4>`: no mutation would find one.
pub fn with_moduli(input: &[u8]) -> Vec<u8> {
    let mut document = Vec::new();
    let mut rest = input;
    while let [first, ..] = rest {
        let (digits, used): (&[u8], usize) = match rest {
            [b'<', b'1', b'>', ..] => (&[0xFF; 256], 3),
            [b'<', b'2', b'>', ..] => (&[0xAB; 256], 3),
            [b'<', b'4', b'>', ..] => (&[0xFD; 512], 3),
            _ => (&[], 1),
        };
        document.extend(if used == 1 { vec![*first] } else { to_base64url(digits) });
        rest = &rest[used..];
    }
    document
}

/// Nothing, or an object whose `refresh` is absent, `null`, or a text; a text only as `application/json`.
pub fn refresh_token(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, AuthErrorKind> {
    if body.iter().all(|byte| b" \t\r\n".contains(byte)) {
        return Ok(None);
    }
    let is_json = headers.get("content-type").is_some_and(|value| {
        let value = String::from_utf8_lossy(value.as_bytes());
        value.split(';').next().unwrap_or_default().trim_matches([' ', '\t']).eq_ignore_ascii_case("application/json")
    });
    let is_sound = serde_json::from_slice::<Value>(body).is_ok();
    let token = Members::parse(body).and_then(|members| members.text_or_null("refresh"));
    match token {
        Ok(None) if is_sound => Ok(None),
        _ if !is_json => Err(AuthErrorKind::UnsupportedMediaType),
        Ok(token) if is_sound => Ok(token),
        _ => Err(AuthErrorKind::InvalidBody),
    }
}

/// `{"jwt", "refresh": {"secret", "expiresAt"}, "user": {"id"}}`, of which only the secret must be there. What is odd
/// otherwise is absent.
pub fn answer(body: &[u8]) -> Result<Answer, Refused> {
    let answer = Members::parse(body)?;
    let lenient = |members: &Members<'_>, name| -> Result<Option<Value>, Refused> {
        Ok(members.raw(name)?.and_then(|value| serde_json::from_str(value.get()).ok()))
    };
    let jwt = lenient(&answer, "jwt")?.as_ref().and_then(Value::as_str).map(Into::into);
    let refresh = Members::parse(answer.raw("refresh")?.ok_or(Refused)?.get().as_bytes())?;
    let secret = refresh.text("secret")?.filter(|secret| !secret.is_empty()).ok_or(Refused)?;
    let date = lenient(&refresh, "expiresAt")?;
    let expires_at = date.as_ref().and_then(Value::as_str).filter(|date| date.len() <= 64).map(Into::into);
    let user_id = lenient(&answer, "user")?.and_then(|user| user["id"].as_str().map(Into::into));
    Ok(Answer { jwt, secret, expires_at, user_id })
}

/// Asserts that the two cookies, read as a browser does, are the two tokens with the configured attributes.
#[track_caller]
pub fn assert_stored(jwt: &str, secret: &str, expires_at: Option<&str>) {
    let embedded = CookieOptions::hardened().same_site(SameSite::None).domain("a.test");
    let configurations = [
        (CookieOptions::default(), vec![("path", "/"), ("samesite", "Lax")], false),
        (CookieOptions::hardened(), vec![("path", "/"), ("samesite", "Strict"), ("secure", "")], true),
        (embedded, vec![("domain", "a.test"), ("path", "/"), ("samesite", "None"), ("secure", "")], true),
    ];
    let is_writable = |name: &str, value: &str| {
        let is_legal = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        !value.is_empty() && value.bytes().all(is_legal) && name.len() + value.len() <= 4096
    };
    let date = expires_at.and_then(rfc3339).filter(|date| *date > now()).map(|date| date.min(MAX_DATE));
    for (options, common, http_only) in configurations {
        let Some(written) = set_cookie(options, jwt, secret, expires_at) else {
            assert!(!is_writable(PAIR[0], jwt) || !is_writable(PAIR[1], secret));
            continue;
        };
        let [first, second] = written.each_ref().map(|field| browser(field.to_str().unwrap()));
        assert_eq!(first, (PAIR[0], jwt, common.iter().map(|(name, value)| (name.to_string(), *value)).collect()));

        let (name, value, mut attributes) = second;
        let expires = attributes.remove("expires").map(|expires| imf_fixdate(expires).unwrap());
        assert_eq!((name, value, expires), (PAIR[1], secret, date));
        assert_eq!(attributes.remove("httponly").is_some(), http_only);
        assert_eq!(attributes, first.2);
    }
}

/// The storage of a `Set-Cookie` field, RFC 6265bis section 5.7. Nothing is to be cut off, empty or there twice.
fn browser(field: &str) -> (&str, &str, BTreeMap<String, &str>) {
    fn trim(text: &str) -> &str {
        text.trim_matches([' ', '\t'])
    }
    assert!(!field.contains(|c: char| c.is_control()));
    let mut parts = field.split(';');
    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
    assert!(name.len() + value.len() <= 4096);
    let mut attributes = BTreeMap::new();
    for attribute in parts {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        assert!(value.len() <= 1024);
        assert_eq!(attributes.insert(trim(name).to_ascii_lowercase(), trim(value)), None);
    }
    (trim(name), trim(value), attributes)
}

/// Seconds since 1970 of `2099-01-02T03:04:05.6+07:00`. Any byte may stand for `T`.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = (text.get(..10)?, text.get(11..19)?);
    let number = |text: &str, at: usize, length: usize| digits(text.get(at..at + length)?);
    let (year, month, day) = (number(date, 0, 4)?, number(date, 5, 2)?, number(date, 8, 2)?);
    let (hour, minute, second) = (number(time, 0, 2)?, number(time, 3, 2)?, number(time, 6, 2)?);
    let mut offset = &text[19..];
    if let Some(fraction) = offset.strip_prefix('.') {
        offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        ensure(offset.len() < fraction.len()).ok()?;
    }
    let east = match (offset.get(..1)?, offset.get(1..)?) {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), zone) if zone.len() == 5 && &zone.get(2..3)? == &":" => {
            let (hours, minutes) = (number(zone, 0, 2)?, number(zone, 3, 2)?);
            ensure(hours <= 23 && minutes <= 59).ok()?;
            (hours * 60 + minutes) * if sign == "+" { 60 } else { -60 }
        }
        _ => return None,
    };
    ensure([&date[4..5], &date[7..8], &time[2..3], &time[5..6]] == ["-", "-", ":", ":"]).ok()?;
    let seconds = unix(year, month, day, hour, minute, second.min(59))? - east;
    // A leap second ends a month, and is taken for the one before it.
    let mut months = [year, year + 1].into_iter().flat_map(|year| (1..=12).map(move |month| (year, month)));
    let mut ends_month = || months.any(|(year, month)| unix(year, month, 1, 0, 0, 0) == Some(seconds + 1));
    (second < 60 || second == 60 && ends_month()).then_some(seconds)
}

/// Seconds since 1970 of `Fri, 02 Jan 2099 03:04:05 GMT`.
fn imf_fixdate(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as i64 + 1;
    unix(digits(year)?, month, digits(day)?, digits(hour)?, digits(minute)?, digits(second)?)
}

fn unix(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Option<i64> {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month - 1).ok()?)?;
    ensure((1..=length).contains(&day) && hour < 24 && minute < 60 && second < 60).ok()?;
    let years: i64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: i64 = lengths[..month as usize - 1].iter().sum();
    (year >= 1970).then_some((((years + months + day - 1) * 24 + hour) * 60 + minute) * 60 + second)
}

/// RFC 9110 section 10.2.3: seconds. Dates are not read.
pub fn retry_after(text: &str) -> Option<Duration> {
    digits::<u64>(text).map(Duration::from_secs)
}

/// A path that a request's target can be for the `http` crate, without a query and without a router's placeholders.
pub fn is_route(text: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_graphic() && !"?#<>`{}".contains(c);
    text.starts_with('/') && text.chars().all(is_legal) && !text.contains("/:") && !text.contains("/*")
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648 section 5, without padding and stray bits.
fn base64url(text: &[u8]) -> Result<Vec<u8>, Refused> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text {
        let value = BASE64URL.iter().position(|other| other == digit).ok_or(Refused)?;
        (bits, held) = (bits << 6 | value as u32, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    ensure(held < 6 && bits == 0).map(|()| bytes)
}

fn to_base64url(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*chunk.get(at).unwrap_or(&0)));
        (0..=chunk.len()).map(move |at| BASE64URL[bits >> (18 - 6 * at) & 63])
    });
    digits.collect()
}

/// The last second of the year 9999: `Set-Cookie` has no later one.
const MAX_DATE: i64 = 253_402_300_799;
