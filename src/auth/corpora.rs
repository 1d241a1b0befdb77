//! The case data in `../shared/corpora`, where it is present: a user's clone does not have it.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde_json::{Value, json};

use super::{
    cookies::{Cookies, MAX_COOKIE, Slot, is_cookie_value},
    jwt::{Expectations, MAX_TOKEN, Signed, Unverified},
    keys::KeySet,
};
use crate::{
    cookie_options::{CookieNames, CookieOptions},
    refresh_body,
    session::{AuthMaterial, RefreshToken},
};

/// Returns the document, or says that it is not there.
fn document(file: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora").join(file);
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: {file} is not beside the project");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn cases(file: &str) -> Vec<Value> {
    document(file).map_or_else(Vec::new, |document| document["cases"].as_array().unwrap().clone())
}

fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_default()
}

fn bytes(case: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(text(case, member)).unwrap()
}

/// Collects the cases that do not come out as they should, to show them all at once.
fn check(file: &str, is_right: impl Fn(&Value) -> bool) {
    let wrong: Vec<String> =
        cases(file).iter().filter(|case| !is_right(case)).map(|case| text(case, "id").to_owned()).collect();
    assert!(wrong.is_empty(), "{file}: {wrong:#?}");
}

#[test]
fn hostile_tokens_are_refused() {
    let sets = document("jwks_sets.json").unwrap_or_default();
    check("hostile_jwt.json", |case| {
        let config = &case["config"];
        let set = config["jwks"].as_str().unwrap_or("good");
        let keys = KeySet::parse(sets[set].to_string().as_bytes());
        let expected = Expectations {
            audience: config["aud"].as_str().map(Into::into),
            issuer: config["iss"].as_str().map(Into::into),
            leeway: Duration::ZERO,
        };
        let accepted = Unverified::read(text(case, "token").as_bytes(), &expected, 1_800_000_000).is_ok_and(|token| {
            keys.as_ref()
                .ok()
                .and_then(|keys| keys.find(token.signed.key_id.as_deref()))
                .is_some_and(|key| key.verifies(token.signed.message, token.signed.signature()))
        });
        match text(case, "expect") {
            "accept" => accepted,
            "reject" => !accepted,
            _ => true,
        }
    });
}

#[test]
fn odd_key_sets_keep_their_good_keys() {
    check("hostile_jwks.json", |case| {
        let parsed = KeySet::parse(&bytes(case, "body_b64"));
        let usable: Option<BTreeSet<Option<String>>> =
            parsed.as_ref().ok().map(|set| set.ids().map(|id| id.map(Into::into)).collect());
        let fits = |expected: &Value| match expected {
            Value::Array(kids) => {
                let kids: BTreeSet<_> = kids.iter().map(|kid| kid.as_str().map(Into::into)).collect();
                usable.clone().unwrap_or_default() == kids
            }
            failed => failed == "fetch_failed" && parsed.is_err(),
        };
        match &case["usable_kids"]["either"] {
            Value::Array(any) => any.iter().any(fits),
            _ => fits(&case["usable_kids"]),
        }
    });
}

#[test]
fn cookies_are_read_as_they_are() {
    check("cookie_headers.json", |case| {
        let names = match text(case, "flag") {
            "config:host_prefix" => {
                CookieNames::Custom { jwt: "__Host-crossmint-jwt".into(), refresh_token: "__Host-refresh".into() }
            }
            _ => CookieNames::Unscoped,
        };
        let options = CookieOptions::hardened();
        let cookies = Cookies::new(names.resolve("project", &options).unwrap(), options);
        let mut headers = HeaderMap::new();
        for field in case["cookie_headers_b64"].as_array().unwrap() {
            let field = STANDARD.decode(field.as_str().unwrap()).unwrap();
            // The transport refuses what is no header value.
            let Ok(value) = HeaderValue::from_bytes(&field) else { return true };
            headers.append(COOKIE, value);
        }
        let presented = cookies.read(&headers);
        let value = |slot: Slot<'_>, limit: usize| match slot {
            Slot::One(value) if value.len() <= limit && is_cookie_value(value) => {
                Some(String::from_utf8(value.to_vec()).unwrap())
            }
            _ => None,
        };
        let flag_fits = match text(case, "flag") {
            "ambiguous_jwt" => presented.jwt == Slot::Ambiguous,
            "ambiguous_refresh" => presented.refresh_token == Slot::Ambiguous,
            _ => true,
        };
        flag_fits
            && (value(presented.jwt, MAX_TOKEN).as_deref() == case["jwt"].as_str())
            && value(presented.refresh_token, MAX_COOKIE).as_deref() == case["refresh"].as_str()
    });
}

#[test]
fn only_cookie_values_are_written() {
    let options = CookieOptions::default();
    let cookies = Cookies::new(CookieNames::Unscoped.resolve("project", &options).unwrap(), options);
    check("set_cookie_values.json", |case| {
        let value = text(case, "value");
        let as_secret = cookies.store(&AuthMaterial::new("a.b.c", RefreshToken::new(value)));
        let as_jwt = cookies.store(&AuthMaterial::new(value, RefreshToken::new("r")));
        as_secret.is_ok() == case["writable"] && as_jwt.is_ok() == case["writable"]
    });
}

#[test]
fn dates_become_expiries_or_nothing() {
    let options = CookieOptions::default();
    let cookies = Cookies::new(CookieNames::Unscoped.resolve("project", &options).unwrap(), options);
    check("expires_at.json", |case| {
        let token = RefreshToken::from_parts("r".into(), case["expires_at"].as_str().map(Into::into));
        let stored = cookies.store(&AuthMaterial::new("a.b.c", token)).unwrap();
        let expires = stored[1].to_str().unwrap().split("; ").find_map(|part| part.strip_prefix("Expires="));
        match text(case, "expect") {
            "session_cookie" | "session_or_refuse" | "session_cookie_or_refuse" | "no_injection" => expires.is_none(),
            "no_panic" | "either" | "capped_or_as_is" => true,
            date => expires == Some(date),
        }
    });
}

#[test]
fn refresh_bodies_are_tokens_or_refused() {
    check("refresh_bodies.json", |case| {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = case["content_type"].as_str() {
            headers.insert("content-type", content_type.parse().unwrap());
        }
        let token = refresh_body::refresh_token(&headers, &bytes(case, "body_b64")).and_then(|token| match token {
            Some(token) if super::sessions::usable_secret(token.as_bytes()).is_err() => {
                Err(crate::AuthErrorKind::InvalidBody)
            }
            token => Ok(token),
        });
        let fits = |expected: &Value| match expected["upstream"].as_str() {
            Some(upstream) => {
                token.as_ref().is_ok_and(|token| token.as_deref().or(case["cookie_refresh"].as_str()) == Some(upstream))
            }
            None => token.is_err() || (token == Ok(None) && case["cookie_refresh"].is_null()),
        };
        match &case["expect"]["either"] {
            Value::Array(any) => any.iter().any(fits),
            _ => fits(&case["expect"]),
        }
    });
}

#[test]
fn clocks_are_read_with_the_leeway() {
    const NOW: i64 = 1_800_000_000;
    check("relative_time.json", |case| {
        let Some(offsets) = case["claims_offset_s"].as_object() else { return true };
        let mut claims = json!({ "sub": "alice" });
        for (name, offset) in offsets {
            claims[name] = (NOW + offset.as_i64().unwrap()).into();
        }
        let [header, claims] = [json!({ "alg": "RS256" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let leeway = Duration::from_secs(case["leeway_s"].as_u64().unwrap());
        let expected = Expectations { audience: None, issuer: None, leeway };
        let token = format!("{header}.{claims}.c2ln");
        let outcome = Unverified::read(token.as_bytes(), &expected, NOW.cast_unsigned());
        outcome.is_ok() == (case["expect"] == "accept")
    });
}

/// Runs the tests of a Wycheproof file, and shows the numbers of those that do not come out right.
fn wycheproof(file: &str, is_right: impl Fn(&Value, &Value) -> bool) {
    let Some(document) = document(&format!("wycheproof/{file}")) else { return };
    let groups = document["testGroups"].as_array().unwrap();
    let wrong: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test)))
        .filter(|(group, test)| !is_right(group, test))
        .map(|(_, test)| &test["tcId"])
        .collect();
    assert!(wrong.is_empty(), "{file}: {wrong:?}");
}

fn key_set(jwk: &Value) -> Result<KeySet, &'static str> {
    KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes())
}

#[test]
fn rsa_signatures_verify_as_wycheproof_says() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    for size in [2048, 3072, 4096, 8192] {
        wycheproof(&format!("rsa_signature_{size}_sha256_test.json"), |group, test| {
            let mut jwk = group["keyJwk"].clone();
            if jwk.is_null() {
                // Wycheproof has no JWK for keys that are not to be used.
                return test["result"] != "valid";
            }
            jwk["kid"] = "k".into();
            let verifies = key_set(&jwk).is_ok_and(|set| {
                let key = set.find(Some("k")).unwrap();
                key.verifies(&hex(text(test, "msg")), &hex(text(test, "sig")))
            });
            test["result"] == "acceptable" || verifies == (test["result"] == "valid")
        });
    }
}

#[test]
fn signed_tokens_verify_as_wycheproof_and_the_policy_say() {
    let overlay = document("wycheproof/OVERLAY_rs256_policy.json").unwrap_or_default();
    let expected = Expectations { audience: None, issuer: None, leeway: Duration::ZERO };
    wycheproof("json_web_signature_test.json", |group, test| {
        let token = text(test, "jws").as_bytes();
        let jwk = if group["public"].is_null() { &group["private"] } else { &group["public"] };
        let verifies = Signed::read(token).is_ok_and(|signed| {
            key_set(jwk)
                .ok()
                .and_then(|set| {
                    set.find(signed.key_id.as_deref()).map(|key| key.verifies(signed.message, signed.signature()))
                })
                .unwrap_or_default()
        });
        let policy = &overlay["json_web_signature_test"][test["tcId"].to_string()]["expect"];
        let should = if policy.is_null() { &test["result"] } else { policy };
        // None of them carries claims: the layer as a whole takes none.
        Unverified::read(token, &expected, 0).is_err() && (should == "either" || verifies == (should == "valid"))
    });
}
