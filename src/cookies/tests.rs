use base64::{Engine as _, engine::general_purpose::STANDARD};
use cookie::Cookie;
use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde_json::json;

use super::*;
use crate::{
    config::{CookieNames, CookieOptions},
    session::{AuthMaterial, RefreshToken},
    test_support::corpus::{cases, text},
    upstream::RefreshAnswer,
    verify::claims::MAX_TOKEN,
};

fn cookies(names: &CookieNames, options: CookieOptions) -> Cookies {
    Cookies::new(names.resolve("project", &options).unwrap(), options)
}

#[test]
fn cookies_are_read_as_they_are() {
    // HTTP cannot carry these: a header value has no vertical tab and no form feed.
    let not_a_header = ["unicode-ws-name-vt", "unicode-ws-shadow-vt", "unicode-ws-name-ff", "unicode-ws-shadow-ff"];
    for case in cases("cookie_headers.json", 51, &[]) {
        let id = text(&case, "id");
        let flag = case["flag"].as_str();
        let names = match flag {
            Some("config:host_prefix") => {
                CookieNames::Custom { jwt: "__Host-crossmint-jwt".into(), refresh_token: "__Host-refresh".into() }
            }
            _ => CookieNames::Unscoped,
        };
        let fields = case["cookie_headers_b64"].as_array().unwrap().iter().map(|field| {
            let field = STANDARD.decode(field.as_str().unwrap()).unwrap();
            HeaderValue::from_bytes(&field).map(|value| (COOKIE, value))
        });
        let headers: Result<HeaderMap, _> = fields.collect();
        assert_eq!(headers.is_err(), not_a_header.contains(&id), "{id}");
        let Ok(headers) = headers else { continue };
        let credentials = cookies(&names, CookieOptions::hardened()).read(&headers);
        let usable = |slot: Slot<&[u8]>, limit: usize| match slot {
            Slot::One(value) if value.len() <= limit && is_cookie_value(value) => {
                Some(String::from_utf8(value.to_vec()).unwrap())
            }
            _ => None,
        };
        let (jwt, refresh_token) = (usable(credentials.jwt, MAX_TOKEN), usable(credentials.refresh_token, MAX_COOKIE));
        assert_eq!(
            (jwt.as_deref(), refresh_token.as_deref()),
            (case["jwt"].as_str(), case["refresh"].as_str()),
            "{id}"
        );
        match flag {
            None | Some("config:host_prefix") => {}
            Some("ambiguous_jwt") => assert!(credentials.jwt == Slot::Ambiguous, "{id}"),
            Some("ambiguous_refresh") => assert!(credentials.refresh_token == Slot::Ambiguous, "{id}"),
            Some("invalid_jwt") => assert!(matches!(credentials.jwt, Slot::One(_)) && jwt.is_none(), "{id}"),
            Some("invalid_refresh") => {
                assert!(matches!(credentials.refresh_token, Slot::One(_)) && refresh_token.is_none(), "{id}");
            }
            Some(unknown) => panic!("{id}: the flag {unknown} is not known"),
        }
    }
}

#[test]
fn only_cookie_values_are_written() {
    let cookies = cookies(&CookieNames::Unscoped, CookieOptions::default());
    for case in cases("set_cookie_values.json", 18, &[]) {
        let (id, value) = (text(&case, "id"), text(&case, "value"));
        let writable = case["writable"].as_bool().unwrap();
        let as_secret = cookies.store(&AuthMaterial::new("a.b.c", RefreshToken::new(value)));
        let as_jwt = cookies.store(&AuthMaterial::new(value, RefreshToken::new("r")));
        assert_eq!([as_secret.is_ok(), as_jwt.is_ok()], [writable; 2], "{id}");
    }
}

#[test]
fn dates_become_expiries_or_nothing() {
    let cookies = cookies(&CookieNames::Unscoped, CookieOptions::default());
    for case in cases("expires_at.json", 19, &[]) {
        let id = text(&case, "id");
        let body = json!({ "jwt": "a.b.c", "refresh": { "secret": "r", "expiresAt": case["expires_at"] } });
        let answer = RefreshAnswer::parse(body.to_string().into_bytes()).unwrap();
        let token = RefreshToken::from_parts(answer.secret, answer.expires_at);
        // Whatever the date is, the token is stored.
        let stored = cookies.store(&AuthMaterial::new("a.b.c", token)).unwrap();
        let stored = stored[1].to_str().unwrap();
        let expires = stored.split("; ").find_map(|part| part.strip_prefix("Expires="));
        let is_date = Cookie::parse(stored).unwrap().expires_datetime().is_some();
        assert_eq!(expires.is_some(), is_date, "{id}: {stored}");
        match text(&case, "expect") {
            "session_cookie" | "session_or_refuse" | "session_cookie_or_refuse" | "no_injection" | "no_panic" => {
                assert_eq!(expires, None, "{id}");
            }
            "capped_or_as_is" => assert!(is_date, "{id}"),
            // A date, or none.
            "either" => {}
            date => assert_eq!(expires, Some(date), "{id}"),
        }
    }
}
