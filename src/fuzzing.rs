//! The parsers, for the targets in `fuzz/`. Not part of the API.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderMap, HeaderValue};

use crate::{
    config::{CookieNames, CookieOptions, check_route},
    cookies::{Cookies, Slot},
    error::AuthErrorKind,
    jwks::KeySet,
    layer,
    session::{AuthMaterial, RefreshToken},
    upstream::{self, RefreshAnswer},
    verify::claims::{Expectations, Unverified},
};

/// Reads the JWT and the refresh token from a request's cookies. Two values of one name are an error.
pub fn read_cookies<'a>(headers: &'a HeaderMap, names: &CookieNames) -> [Result<Option<&'a [u8]>, Ambiguous>; 2] {
    let credentials = cookies(names, CookieOptions::hardened()).read(headers);
    [credentials.jwt, credentials.refresh_token].map(|slot| match slot {
        Slot::Absent => Ok(None),
        Slot::One(value) => Ok(Some(value)),
        Slot::Ambiguous => Err(Ambiguous),
    })
}

#[derive(Debug, PartialEq)]
pub struct Ambiguous;

/// Builds the two `Set-Cookie` fields, if cookies can contain the tokens.
pub fn set_cookie(
    options: CookieOptions,
    jwt: &str,
    secret: &str,
    expires_at: Option<&str>,
) -> Option<[HeaderValue; 2]> {
    let token = RefreshToken::from_parts(secret.into(), expires_at.map(Into::into));
    cookies(&CookieNames::Scoped, options).store(&AuthMaterial::new(jwt, token)).ok()
}

fn cookies(names: &CookieNames, options: CookieOptions) -> Cookies {
    Cookies::new(names.resolve(PROJECT, &options).expect("the names fit the options"), options)
}

/// The content of a JWT for [`PROJECT`] by [`ISSUER`], whose signature is not verified.
#[derive(Debug, PartialEq)]
pub struct Jwt {
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
    pub key_id: Option<String>,
    pub user_id: String,
    pub expires_at: u64,
    pub issued_at: u64,
}

pub fn read_jwt(token: &[u8], leeway: u64, now: u64) -> Option<Jwt> {
    let leeway = Duration::from_secs(leeway);
    let expected = Expectations { audience: Some(PROJECT.into()), issuer: Some(ISSUER.into()), leeway };
    let mut buffer = Vec::new();
    let Unverified { signed, user_id, expires_at, issued_at } =
        Unverified::read(token, &mut buffer, &expected, now).ok()?;
    let (message, signature) = (signed.message.to_vec(), signed.signature.to_vec());
    let (key_id, user_id) = (signed.key_id.map(Into::into), user_id.into());
    Some(Jwt { message, signature, key_id, user_id, expires_at, issued_at })
}

/// Returns the IDs of the usable keys of a key set, which has at least one.
pub fn key_ids(document: &[u8]) -> Option<BTreeSet<Option<String>>> {
    let set = KeySet::parse(document).ok()?;
    Some(set.ids().map(|id| id.map(Into::into)).collect())
}

pub fn refresh_token(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, AuthErrorKind> {
    layer::refresh_token(headers, body)
}

/// The content of Crossmint's answer to a refresh.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub jwt: Option<String>,
    pub secret: String,
    pub expires_at: Option<String>,
    pub user_id: Option<String>,
}

pub fn read_answer(body: &[u8]) -> Option<Answer> {
    let RefreshAnswer { jwt, secret, expires_at, user, body: _ } = RefreshAnswer::parse(body.to_vec()).ok()?;
    let jwt = jwt.map(|jwt| (*jwt).into());
    Some(Answer { jwt, secret: (*secret).into(), expires_at, user_id: user.map(|user| user.id) })
}

pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    upstream::retry_after(headers)
}

pub fn is_route(path: &str) -> bool {
    check_route("refresh_route", path).is_ok()
}

pub const PROJECT: &str = "project";
pub const ISSUER: &str = "crossmint";
