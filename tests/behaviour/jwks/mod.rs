//! The key set: which keys are used, and for which tokens.

mod reload;
mod warm_up;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::json;
use tower_crossmint_auth::{CrossmintAuth, testing::MockCrossmint};

use crate::support::{
    direct::auth,
    signer::{FIRST, SECOND, publishing},
};

#[tokio::test]
async fn a_kid_picks_exactly_one_key() {
    struct Row<'a> {
        name: &'static str,
        auth: &'a CrossmintAuth,
        token: String,
        is_valid: bool,
    }
    let nameless = json!({"kty": "RSA", "n": SECOND.n(), "e": "AQAB"});
    let mocks = [
        publishing(&[FIRST.jwk()]).await,
        publishing(&[FIRST.jwk(), SECOND.jwk()]).await,
        publishing(&[FIRST.jwk(), nameless]).await,
    ];
    let [one, two, mixed] = mocks.each_ref().map(auth);
    let cases = [
        Row { name: "its own, of two", auth: &two, token: FIRST.sign(Some("first")), is_valid: true },
        Row { name: "the other's own", auth: &two, token: SECOND.sign(Some("second")), is_valid: true },
        Row { name: "the other's", auth: &two, token: FIRST.sign(Some("second")), is_valid: false },
        Row { name: "none, of one key", auth: &one, token: FIRST.sign(None), is_valid: true },
        Row { name: "none, of two keys", auth: &two, token: FIRST.sign(None), is_valid: false },
        Row { name: "unknown, of one key", auth: &one, token: FIRST.sign(Some("third")), is_valid: false },
        Row { name: "none, of which one has none", auth: &mixed, token: SECOND.sign(None), is_valid: false },
        Row { name: "empty, of one key", auth: &one, token: FIRST.sign(Some("")), is_valid: false },
    ];
    for Row { name, auth, token, is_valid } in cases {
        assert_eq!(auth.verify_jwt(&token).await.is_ok(), is_valid, "{name}");
    }
}

#[tokio::test]
async fn one_bad_key_does_not_spoil_the_set() {
    let bad = [
        ("no object", json!(null)),
        ("a number", json!(7)),
        ("empty", json!({})),
        ("unknown type", json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "pq"})),
        ("elliptic curve", json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "ec"})),
        ("X25519", json!({"kty": "OKP", "crv": "X25519", "x": "AA", "kid": "x"})),
        ("shared secret", json!({"kty": "oct", "k": "AAAA", "kid": "oct"})),
        ("without modulus", json!({"kty": "RSA", "e": "AQAB", "kid": "n"})),
        ("short modulus", json!({"kty": "RSA", "n": BASE64URL.encode([0xff; 128]), "e": "AQAB", "kid": "short"})),
        ("huge modulus", json!({"kty": "RSA", "n": BASE64URL.encode([0xff; 2049]), "e": "AQAB", "kid": "long"})),
        ("exponent 1", json!({"kty": "RSA", "n": SECOND.n(), "e": "AQ", "kid": "e"})),
        ("kid is a number", json!({"kty": "RSA", "n": SECOND.n(), "e": "AQAB", "kid": 5})),
        ("one kid for two keys", json!({"kty": "RSA", "n": FIRST.n(), "e": "AQAB", "kid": "second"})),
    ];
    let all = bad.iter().map(|(_, key)| key.clone()).collect();
    let sets = bad.into_iter().map(|(name, key)| (name, vec![key])).chain([("all of them", all)]);
    for (name, set) in sets {
        let mock = MockCrossmint::start().await;
        set.into_iter().for_each(|key| mock.publish_jwk(key));
        mock.publish_jwk(SECOND.jwk());
        let auth = auth(&mock);
        assert!(auth.verify_jwt(mock.sign_in("alice").jwt()).await.is_ok(), "{name}");
        let is_ambiguous = matches!(name, "one kid for two keys" | "all of them");
        let second = auth.verify_jwt(&SECOND.sign(Some("second"))).await;
        assert_eq!(second.is_ok(), !is_ambiguous, "{name}");
    }
}

#[tokio::test]
async fn a_key_serves_only_the_purpose_it_was_published_for() {
    let cases = [
        ("no purpose", json!({}), true),
        ("signatures", json!({"use": "sig", "key_ops": ["verify"], "alg": "RS256"}), true),
        ("twice the same", json!({"alg": "RS256"}), true),
        ("encryption", json!({"use": "enc"}), false),
        ("signing only", json!({"key_ops": ["sign"]}), false),
        ("another algorithm", json!({"alg": "PS256"}), false),
    ];
    for (name, members, is_valid) in cases {
        let mock = MockCrossmint::start().await;
        let mut key = FIRST.jwk();
        key.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        mock.publish_jwk(key.clone());
        if name == "twice the same" {
            mock.publish_jwk(key);
        }
        assert_eq!(auth(&mock).verify_jwt(&FIRST.sign(Some("first"))).await.is_ok(), is_valid, "{name}");
    }
}
