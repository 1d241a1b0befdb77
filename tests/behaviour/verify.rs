//! The grammar and the claims of JWTs, and the cache of verified ones.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth, CrossmintAuthConfigBuilder,
    testing::{Endpoint, MockCrossmint},
};

use crate::support::{
    clock::{at, pass},
    direct::{app, auth, get},
    signer::{FIRST, publishing},
};

#[tokio::test]
async fn a_token_verifies_only_if_its_header_and_claims_are_valid() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let claims = |changes: Value| {
        let mut claims = json!({"sub": "alice", "aud": "mock-project", "exp": at(600), "iat": at(0)});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims.as_object_mut().unwrap().retain(|_, value| *value != "absent");
        claims
    };
    let with_claims = |changes| mock.sign(json!({}), claims(changes));
    let with_header = |header| mock.sign(header, claims(json!({})));
    let whole = with_claims(json!({}));
    let cases = [
        ("plain", whole.clone(), true),
        ("typ JWT", with_header(json!({"typ": "JWT"})), true),
        ("typ in small letters", with_header(json!({"typ": "jwt"})), true),
        ("typ of an access token", with_header(json!({"typ": "at+jwt"})), true),
        ("typ with the media type in full", with_header(json!({"typ": "application/jwt"})), true),
        ("typ of a logout token", with_header(json!({"typ": "logout+jwt"})), false),
        ("typ of a proof of possession", with_header(json!({"typ": "dpop+jwt"})), false),
        ("typ null", with_header(json!({"typ": null})), false),
        ("an unknown header member", with_header(json!({"v": 1, "x": {"y": []}})), true),
        ("crit", with_header(json!({"crit": ["exp"]})), false),
        ("crit, empty", with_header(json!({"crit": []})), false),
        ("crit, null", with_header(json!({"crit": null})), false),
        ("alg none", with_header(json!({"alg": "none"})), false),
        ("alg in small letters", with_header(json!({"alg": "rs256"})), false),
        ("kid null", with_header(json!({"kid": null})), false),
        ("kid of no key", with_header(json!({"kid": "other"})), false),
        ("no sub", with_claims(json!({"sub": "absent"})), false),
        ("empty sub", with_claims(json!({"sub": ""})), false),
        ("sub is a number", with_claims(json!({"sub": 5})), false),
        ("no exp", with_claims(json!({"exp": "absent"})), false),
        ("exp is a string", with_claims(json!({"exp": at(600).to_string()})), false),
        ("expired", with_claims(json!({"exp": at(-60)})), false),
        ("expired, within the leeway of 5 s", with_claims(json!({"exp": at(-2)})), true),
        ("not valid yet", with_claims(json!({"nbf": at(60)})), false),
        ("not valid yet, within the leeway of 5 s", with_claims(json!({"nbf": at(3)})), true),
        ("nbf is a string", with_claims(json!({"nbf": "0"})), false),
        ("no aud", with_claims(json!({"aud": "absent"})), false),
        ("aud of another project", with_claims(json!({"aud": "other-project"})), false),
        ("several aud", with_claims(json!({"aud": ["other-project", "mock-project"]})), true),
        ("several aud of other projects", with_claims(json!({"aud": ["a", "b"]})), false),
        ("aud is an object", with_claims(json!({"aud": {"mock-project": 1}})), false),
        ("any issuer", with_claims(json!({"iss": "https://other.test"})), true),
        ("claims are an array", mock.sign(json!({}), json!([at(600), "alice"])), false),
        ("four parts", format!("{whole}.x"), false),
        ("two parts", whole.rsplit_once('.').unwrap().0.to_owned(), false),
        ("no signature", format!("{}.", whole.rsplit_once('.').unwrap().0), false),
        ("padding", format!("{whole}="), false),
        ("nothing", String::new(), false),
    ];
    for (name, token, is_valid) in cases {
        let outcome = auth.verify_jwt(&token).await;
        let expected = if is_valid { Ok("alice") } else { Err(AuthErrorKind::InvalidToken) };
        let seen = outcome.as_ref().map(|claims| claims["sub"].as_str().unwrap()).map_err(|error| error.kind());
        assert_eq!(seen, expected, "{name}");
    }
    assert_eq!(mock.calls(Endpoint::Keys), 1);
}

#[tokio::test]
async fn the_leeway_the_issuer_and_the_audience_are_as_configured() {
    struct Row<'a> {
        name: &'static str,
        auth: &'a CrossmintAuth,
        token: String,
        is_valid: bool,
    }
    let mock = MockCrossmint::start().await;
    let of = |config: CrossmintAuthConfigBuilder| CrossmintAuth::new(config.build().unwrap());
    let strict = of(mock.config().leeway(Duration::ZERO).issuer(mock.issuer()));
    let lenient = of(mock.config().leeway(Duration::from_secs(300)).dangerous_accept_any_audience());
    let other = of(mock.config().audience("other-project"));
    let token = |name: &str, value: Value| mock.session("alice").claim(name, value).create().jwt().to_owned();
    let cases = [
        Row { name: "expired now, no leeway", auth: &strict, token: token("exp", at(0).into()), is_valid: false },
        Row { name: "not valid yet, no leeway", auth: &strict, token: token("nbf", at(3).into()), is_valid: false },
        Row { name: "expired, 300 s leeway", auth: &lenient, token: token("exp", at(-290).into()), is_valid: true },
        Row {
            name: "expired for longer than the leeway",
            auth: &lenient,
            token: token("exp", at(-301).into()),
            is_valid: false,
        },
        Row {
            name: "not valid yet, 300 s leeway",
            auth: &lenient,
            token: token("nbf", at(290).into()),
            is_valid: true,
        },
        Row { name: "the issuer", auth: &strict, token: mock.sign_in("alice").jwt().to_owned(), is_valid: true },
        Row {
            name: "another issuer",
            auth: &strict,
            token: token("iss", "https://other.test".into()),
            is_valid: false,
        },
        Row {
            name: "the issuer and a slash",
            auth: &strict,
            token: token("iss", format!("{}/", mock.issuer()).into()),
            is_valid: false,
        },
        Row {
            name: "the issuer among others",
            auth: &strict,
            token: token("iss", json!([mock.issuer()])),
            is_valid: false,
        },
        Row { name: "no issuer", auth: &strict, token: token("iss", Value::Null), is_valid: false },
        Row { name: "no audience where any will do", auth: &lenient, token: token("aud", Value::Null), is_valid: true },
        Row {
            name: "another audience where any will do",
            auth: &lenient,
            token: token("aud", "x".into()),
            is_valid: true,
        },
        Row {
            name: "the audience of choice",
            auth: &other,
            token: token("aud", "other-project".into()),
            is_valid: true,
        },
        Row {
            name: "the project, which is not the audience of choice",
            auth: &other,
            token: token("aud", "mock-project".into()),
            is_valid: false,
        },
    ];
    for Row { name, auth, token, is_valid } in cases {
        assert_eq!(auth.verify_jwt(&token).await.is_ok(), is_valid, "{name}");
    }
}

#[tokio::test]
async fn only_rs256_is_accepted() {
    let mock = publishing(&[FIRST.jwk()]).await;
    let auth = auth(&mock);
    let algorithms = ["RS256", "RS384", "RS512", "PS256", "HS256"];
    for (alg, claimed) in algorithms.iter().flat_map(|alg| algorithms.iter().map(move |claimed| (*alg, *claimed))) {
        let token = FIRST.sign_with(alg, &json!({"alg": claimed, "kid": "first"}));
        assert_eq!(
            auth.verify_jwt(&token).await.is_ok(),
            [alg, claimed] == ["RS256"; 2],
            "{alg}, said to be {claimed}"
        );
    }
}

#[tokio::test]
async fn a_signature_that_is_off_by_a_bit_or_a_byte_is_rejected() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    let (message, signature) = alice.jwt().rsplit_once('.').unwrap();
    let valid = BASE64URL.decode(signature).unwrap();
    let modulus = BASE64URL.decode(mock.key_set()["keys"][0]["n"].as_str().unwrap()).unwrap();
    let flipped = |index: usize| {
        let mut signature = valid.clone();
        signature[index] ^= 1;
        signature
    };
    let cases = [
        ("the first byte", flipped(0)),
        ("the last byte", flipped(valid.len() - 1)),
        ("zero", vec![0; valid.len()]),
        ("one", [vec![0; valid.len() - 1], vec![1]].concat()),
        ("the modulus", modulus),
        ("a leading zero", [&[0], &*valid].concat()),
        ("a trailing zero", [&*valid, &[0]].concat()),
        ("one byte less", valid[..valid.len() - 1].to_vec()),
        ("one byte", vec![7]),
        ("twice", valid.repeat(2)),
    ];
    for (name, signature) in cases {
        let token = format!("{message}.{}", BASE64URL.encode(signature));
        assert!(auth.verify_jwt(&token).await.is_err(), "{name}");
    }
    assert!(auth.verify_jwt(alice.jwt()).await.is_ok());
}

#[tokio::test]
async fn no_header_of_a_token_causes_a_call_elsewhere() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    pass(Duration::from_secs(30)).await;
    let elsewhere = format!("{}/elsewhere", mock.base_url());
    let claims = json!({"sub": "alice", "aud": "mock-project", "exp": at(600)});
    let key = mock.key_set()["keys"][0].clone();
    let headers = [
        json!({"kid": "x", "jku": elsewhere}),
        json!({"kid": "x", "x5u": elsewhere, "url": elsewhere, "iss": elsewhere}),
        json!({"kid": "x", "jwk": key}),
        json!({"kid": "x", "jwks": {"keys": [key]}, "x5c": ["AAAA"]}),
        json!({"kid": elsewhere}),
        json!({"kid": "../../../etc/passwd?x=1#y\r\nX-Y: z\0"}),
        json!({"kid": "' OR 1=1 --; $(id)"}),
        json!({"kid": "k".repeat(4000)}),
    ];
    for header in headers {
        let token = mock.sign(header.clone(), claims.clone());
        let error = auth.verify_jwt(&token).await.expect_err("signed by a key that is not in the set");
        assert_eq!(error.kind(), AuthErrorKind::InvalidToken, "{header}");
    }
    assert_eq!((mock.calls(Endpoint::Elsewhere), mock.calls(Endpoint::Keys)), (0, 2), "one reload for all");
    assert!(
        mock.requests(Endpoint::Keys)
            .iter()
            .all(|call| call.path() == "/.well-known/jwks.json" && call.body().is_empty())
    );
}

#[tokio::test]
async fn a_cached_token_does_not_verify_another_one_with_its_signature() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let (alice, mallory) = (mock.sign_in("alice"), mock.sign_in("mallory"));
    assert_eq!(get(&app, "/", &alice.cookie_header()).await.user().as_deref(), Some("alice"));
    let claims = alice.jwt().split('.').nth(1).unwrap();
    let others = BASE64URL.encode(json!({"sub": "alice", "aud": "mock-project", "exp": at(9999)}).to_string());
    let forged = mallory.cookie_header().replace(mallory.jwt(), &alice.jwt().replace(claims, &others));
    let answer = get(&app, "/", &forged).await;
    assert_eq!(
        (answer.user().as_deref(), mock.calls(Endpoint::Refresh)),
        (Some("mallory"), 1),
        "refreshed, and not taken from the cache"
    );
}

#[tokio::test]
async fn the_token_cache_is_bounded_as_configured() {
    let mock = MockCrossmint::start().await;
    let sessions: Vec<_> = (0..100).map(|n| mock.sign_in(&n.to_string())).collect();
    for (bytes, expected) in [(None, 100..=100), (Some(64 << 10), 0..=60), (Some(0), 0..=0)] {
        let config = mock.config();
        let config = if let Some(bytes) = bytes { config.token_cache_bytes(bytes) } else { config };
        let auth = CrossmintAuth::new(config.build().unwrap());
        let all = async || {
            join_all(sessions.iter().map(|session| {
                let (auth, credentials) = (&auth, Credentials::pair(session.jwt(), session.refresh_token()));
                async move { auth.get_session(credentials).await.unwrap() }
            }))
            .await
        };
        // Sessions from the cache share one allocation of the JWT.
        let (first, second) = (all().await, all().await);
        let cached = first.iter().zip(&second).filter(|(a, b)| a.jwt().as_ptr() == b.jwt().as_ptr()).count();
        assert!(expected.contains(&cached), "{bytes:?}: {cached}");
    }
}
