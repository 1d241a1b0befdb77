//! The key set, and which tokens it vouches for.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaSignatureEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tower_crossmint_auth::{
    AuthErrorKind, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::{
    direct::{app, at, auth, get, pass},
    support::{calls, expired},
};

#[tokio::test]
async fn a_token_passes_only_if_its_header_and_claims_are_sound() {
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
    for (name, token, good) in cases {
        let outcome = auth.verify_jwt(&token).await;
        let expected = if good { Ok("alice") } else { Err(AuthErrorKind::InvalidToken) };
        let seen = outcome.as_ref().map(|claims| claims["sub"].as_str().unwrap()).map_err(|error| error.kind());
        assert_eq!(seen, expected, "{name}");
    }
    assert_eq!(mock.calls(Endpoint::Keys), 1);
}

#[tokio::test]
async fn the_leeway_the_issuer_and_the_audience_are_as_configured() {
    let mock = MockCrossmint::start().await;
    let of = |config: tower_crossmint_auth::CrossmintAuthConfigBuilder| CrossmintAuth::new(config.build().unwrap());
    let strict = of(mock.config().leeway(Duration::ZERO).issuer(mock.issuer()));
    let lenient = of(mock.config().leeway(Duration::from_secs(300)).dangerous_accept_any_audience());
    let other = of(mock.config().audience("other-project"));
    let token = |name: &str, value: Value| mock.session("alice").claim(name, value).create().jwt().to_owned();
    let cases = [
        ("expired now, no leeway", &strict, token("exp", at(0).into()), false),
        ("not valid yet, no leeway", &strict, token("nbf", at(3).into()), false),
        ("expired, 300 s leeway", &lenient, token("exp", at(-290).into()), true),
        ("expired for longer than the leeway", &lenient, token("exp", at(-301).into()), false),
        ("not valid yet, 300 s leeway", &lenient, token("nbf", at(290).into()), true),
        ("the issuer", &strict, mock.sign_in("alice").jwt().to_owned(), true),
        ("another issuer", &strict, token("iss", "https://other.test".into()), false),
        ("the issuer and a slash", &strict, token("iss", format!("{}/", mock.issuer()).into()), false),
        ("the issuer among others", &strict, token("iss", json!([mock.issuer()])), false),
        ("no issuer", &strict, token("iss", Value::Null), false),
        ("no audience where any will do", &lenient, token("aud", Value::Null), true),
        ("another audience where any will do", &lenient, token("aud", "x".into()), true),
        ("the audience of choice", &other, token("aud", "other-project".into()), true),
        ("the project, which is not the audience of choice", &other, token("aud", "mock-project".into()), false),
    ];
    for (name, auth, token, good) in cases {
        assert_eq!(auth.verify_jwt(&token).await.is_ok(), good, "{name}");
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
async fn a_signature_that_is_off_by_a_bit_or_a_byte_is_refused() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    let (message, signature) = alice.jwt().rsplit_once('.').unwrap();
    let good = BASE64URL.decode(signature).unwrap();
    let modulus = BASE64URL.decode(mock.key_set()["keys"][0]["n"].as_str().unwrap()).unwrap();
    let flipped = |index: usize| {
        let mut signature = good.clone();
        signature[index] ^= 1;
        signature
    };
    let cases = [
        ("the first byte", flipped(0)),
        ("the last byte", flipped(good.len() - 1)),
        ("zero", vec![0; good.len()]),
        ("one", [vec![0; good.len() - 1], vec![1]].concat()),
        ("the modulus", modulus),
        ("a leading zero", [&[0], &*good].concat()),
        ("a trailing zero", [&*good, &[0]].concat()),
        ("one byte less", good[..good.len() - 1].to_vec()),
        ("one byte", vec![7]),
        ("twice", good.repeat(2)),
    ];
    for (name, signature) in cases {
        let token = format!("{message}.{}", BASE64URL.encode(signature));
        assert!(auth.verify_jwt(&token).await.is_err(), "{name}");
    }
    assert!(auth.verify_jwt(alice.jwt()).await.is_ok());
}

#[tokio::test]
async fn nothing_that_a_token_says_makes_the_layer_ask_elsewhere() {
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
async fn a_kid_picks_exactly_one_key() {
    let nameless = json!({"kty": "RSA", "n": SECOND.n(), "e": "AQAB"});
    let mocks = [
        publishing(&[FIRST.jwk()]).await,
        publishing(&[FIRST.jwk(), SECOND.jwk()]).await,
        publishing(&[FIRST.jwk(), nameless]).await,
    ];
    let [one, two, mixed] = mocks.each_ref().map(auth);
    let cases = [
        ("its own, of two", &two, FIRST.sign(Some("first")), true),
        ("the other's own", &two, SECOND.sign(Some("second")), true),
        ("the other's", &two, FIRST.sign(Some("second")), false),
        ("none, of one key", &one, FIRST.sign(None), true),
        ("none, of two keys", &two, FIRST.sign(None), false),
        ("unknown, of one key", &one, FIRST.sign(Some("third")), false),
        ("none, of which one has none", &mixed, SECOND.sign(None), false),
        ("empty, of one key", &one, FIRST.sign(Some("")), false),
    ];
    for (name, auth, token, good) in cases {
        assert_eq!(auth.verify_jwt(&token).await.is_ok(), good, "{name}");
    }
}

#[tokio::test]
async fn one_odd_key_does_not_lose_the_set() {
    let odd = [
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
    let all = odd.iter().map(|(_, key)| key.clone()).collect();
    let sets = odd.into_iter().map(|(name, key)| (name, vec![key])).chain([("all of them", all)]);
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
    for (name, members, good) in cases {
        let mock = MockCrossmint::start().await;
        let mut key = FIRST.jwk();
        key.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        mock.publish_jwk(key.clone());
        if name == "twice the same" {
            mock.publish_jwk(key);
        }
        assert_eq!(auth(&mock).verify_jwt(&FIRST.sign(Some("first"))).await.is_ok(), good, "{name}");
    }
}

#[tokio::test]
async fn a_new_key_is_found_by_one_reload_per_cooldown() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let old = mock.sign_in("alice");
    mock.rotate_keys();
    let new = mock.sign_in("bob");
    let unknown: Vec<String> =
        (0..20).map(|n| mock.sign(json!({"kid": n.to_string()}), json!({"sub": "x", "exp": at(60)}))).collect();
    let refuse_unknown = async || {
        let all = join_all(unknown.iter().map(|token| auth.verify_jwt(token))).await;
        assert!(all.iter().all(|outcome| outcome.as_ref().unwrap_err().kind() == AuthErrorKind::InvalidToken));
    };

    // The cooldown counts from the attempt of the warm-up.
    refuse_unknown().await;
    assert!(auth.verify_jwt(new.jwt()).await.is_err());
    pass(Duration::from_secs(28)).await;
    refuse_unknown().await;
    assert_eq!(mock.calls(Endpoint::Keys), 1);

    pass(Duration::from_secs(2)).await;
    assert!(auth.verify_jwt(new.jwt()).await.is_ok());
    refuse_unknown().await;
    assert!(auth.verify_jwt(old.jwt()).await.is_ok());
    assert_eq!(mock.calls(Endpoint::Keys), 2);
}

#[tokio::test]
async fn an_unknown_kid_keeps_nobody_with_a_known_one_waiting() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let alice = mock.sign_in("alice");
    let unknown = FIRST.sign(Some("first"));
    pass(Duration::from_secs(30)).await;
    let hold = mock.hold(Endpoint::Keys);
    let waiting = tokio::spawn({
        let auth = auth.clone();
        async move { auth.verify_jwt(&unknown).await.is_err() }
    });
    mock.called(Endpoint::Keys, 2).await;
    assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 200);
    assert!(!waiting.is_finished());
    hold.release();
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_token_fresh_from_crossmint_may_name_a_new_key_at_any_time() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let alice = mock.session("alice").jwt_lifetime(-60).create();
    mock.rotate_keys();
    let answer = get(&app(&auth), "/", &alice.cookie_header()).await;
    assert_eq!((answer.status, answer.user().as_deref()), (200, Some("alice")));
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (2, 1));
}

#[tokio::test]
async fn a_renewal_does_not_take_an_older_reload_for_its_own() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().max_concurrent_refreshes(1).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let [alice, carol] = ["alice", "carol"].map(|user| expired(&mock, user).cookie_header());
    let bob = mock.sign_in("bob").cookie_header();
    pass(Duration::from_secs(601)).await;
    // The set is due: bob's request starts a reload in the background, whose answer takes its time.
    let hold = mock.hold_answers(Endpoint::Keys);
    assert_eq!(get(&app, "/", &bob).await.status, 200);
    mock.called(Endpoint::Keys, 2).await;
    mock.rotate_keys();
    let (alice, carol, ()) = tokio::join!(get(&app, "/", &alice), get(&app, "/", &carol), async {
        // One refresh at a time: when the second arrives, the first has its answer and its renewal waits for the reload.
        mock.called(Endpoint::Refresh, 2).await;
        hold.release();
    });
    assert_eq!((alice.status, carol.status, mock.reuse_detections()), (200, 200, 0));
}

#[tokio::test]
async fn an_old_set_serves_while_one_reload_goes_on_behind_it() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.sign_in("alice").cookie_header();
    auth.warm_up().await.unwrap();
    pass(Duration::from_secs(10 * 60 - 2)).await;
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Keys), 1);

    let hold = mock.hold(Endpoint::Keys);
    pass(Duration::from_secs(2)).await;
    for n in 0..10 {
        assert_eq!(get(&app, "/", &alice).await.status, 200, "request {n}");
    }
    mock.called(Endpoint::Keys, 2).await;
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    hold.release();
    loaded(&auth).await;
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (2, 0));
}

#[tokio::test]
async fn a_day_without_requests_costs_one_reload_and_no_renewal() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.session("alice").jwt_lifetime(100_000).create().cookie_header();
    assert_eq!(get(&app, "/", &alice).await.status, 200);
    pass(Duration::from_secs(24 * 3600)).await;
    let answers = join_all((0..100).map(|_| get(&app, "/", &alice))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(calls(&mock), [2, 0, 0]);
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_after_the_next_reload() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.sign_in("alice");
    assert!(get(&app, "/", &alice.cookie_header()).await.set_cookie().is_empty());
    mock.rotate_keys();
    mock.withdraw_old_keys();
    assert!(get(&app, "/", &alice.cookie_header()).await.set_cookie().is_empty(), "nothing is known of it yet");
    pass(Duration::from_secs(10 * 60)).await;
    assert!(auth.verify_jwt(mock.sign_in("bob").jwt()).await.is_ok());

    assert_eq!(auth.verify_jwt(alice.jwt()).await.unwrap_err().kind(), AuthErrorKind::InvalidToken);
    let answer = get(&app, "/", &alice.cookie_header()).await;
    assert_eq!((answer.status, answer.set_cookie().len()), (200, 2), "not from the token cache either");
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (2, 1));
}

#[tokio::test]
async fn a_verified_token_vouches_for_no_other_with_its_signature() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let (alice, mallory) = (mock.sign_in("alice"), mock.sign_in("mallory"));
    assert_eq!(get(&app, "/", &alice.cookie_header()).await.user().as_deref(), Some("alice"));
    let claims = alice.jwt().split('.').nth(1).unwrap();
    let others = BASE64URL.encode(json!({"sub": "alice", "aud": "mock-project", "exp": at(9999)}).to_string());
    let forged = mallory.cookie_header().replace(mallory.jwt(), &alice.jwt().replace(claims, &others));
    let answer = get(&app, "/", &forged).await;
    assert_eq!((answer.user().as_deref(), mock.calls(Endpoint::Refresh)), (Some("mallory"), 1), "renewed instead");
}

#[tokio::test]
async fn a_failed_reload_keeps_the_good_set_for_an_hour() {
    for (name, fault) in faults("http://127.0.0.1:1/") {
        let mock = MockCrossmint::start().await;
        let auth = impatient(&mock);
        let app = app(&auth);
        let alice = mock.sign_in("alice").cookie_header();
        auth.warm_up().await.unwrap();
        mock.inject(Endpoint::Keys, fault);
        pass(Duration::from_secs(10 * 60)).await;
        assert_eq!(get(&app, "/", &alice).await.status, 200, "{name}");
        let unknown = auth.verify_jwt(&FIRST.sign(Some("first"))).await.unwrap_err().kind();
        assert!(matches!(unknown, AuthErrorKind::Unavailable | AuthErrorKind::UnusableAnswer), "{name}: {unknown:?}");
        assert_eq!(mock.calls(Endpoint::Keys), 2, "{name}");
        assert_eq!(get(&app, "/", &alice).await.status, 200, "{name}");

        pass(Duration::from_secs(50 * 60)).await;
        assert_eq!(get(&app, "/", &alice).await.status, 401, "{name}");
        assert_eq!(mock.calls(Endpoint::Refresh), 0, "{name}");
    }
}

#[tokio::test]
async fn a_cold_start_loads_the_keys_once_for_all_who_wait() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let sessions: Vec<MockSession> =
        (0..50).map(|n| mock.session("alice").jwt_lifetime(if n < 40 { 60 } else { -60 }).create()).collect();
    let hold = mock.hold(Endpoint::Keys);
    let cookies: Vec<String> = sessions.iter().map(MockSession::cookie_header).collect();
    let requests = join_all(cookies.iter().map(|cookie| get(&app, "/", cookie)));
    let (answers, ()) = tokio::join!(requests, async {
        mock.called(Endpoint::Keys, 1).await;
        assert_eq!(mock.calls(Endpoint::Refresh), 0, "nothing is renewed that could not be verified");
        hold.release();
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (1, 10));
}

#[tokio::test]
async fn who_hangs_up_does_not_stop_the_keys_from_loading() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let hold = mock.hold(Endpoint::Keys);
    let cookie = mock.sign_in("alice").cookie_header();
    let impatient = tokio::spawn({
        let (app, cookie) = (app(&auth), cookie.clone());
        async move { get(&app, "/", &cookie).await.status }
    });
    mock.called(Endpoint::Keys, 1).await;
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    hold.release();
    assert_eq!(get(&app(&auth), "/", &cookie).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Keys), 1);
}

#[tokio::test]
async fn a_failing_cold_start_backs_off_and_recovers() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let valid = mock.sign_in("alice").cookie_header();
    let expired = mock.session("bob").jwt_lifetime(-60).create().cookie_header();
    mock.inject(Endpoint::Keys, Fault::Status(500));
    // Seconds that pass, and the calls that have been made then.
    for (pause, calls) in [(0, 1), (0, 1), (1, 2), (1, 2), (1, 3), (3, 3), (1, 4)] {
        pass(Duration::from_secs(pause)).await;
        assert_eq!(get(&app, "/", &valid).await.status, 401);
        assert_eq!(get(&app, "/", &expired).await.status, 401);
        assert_eq!(mock.calls(Endpoint::Keys), calls, "after another {pause} s");
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 0);

    mock.clear_faults();
    pass(Duration::from_secs(30)).await;
    assert_eq!(get(&app, "/", &valid).await.status, 200);
    assert_eq!(get(&app, "/", &expired).await.status, 200);
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (5, 1));
}

#[tokio::test]
async fn no_fault_of_the_key_set_causes_a_refresh() {
    let elsewhere = MockCrossmint::start().await;
    for (name, fault) in faults(&format!("{}/.well-known/jwks.json", elsewhere.base_url())) {
        let mock = MockCrossmint::start().await;
        mock.inject(Endpoint::Keys, fault);
        let auth = impatient(&mock);
        for session in [mock.sign_in("alice"), mock.session("bob").jwt_lifetime(-60).create()] {
            assert_eq!(get(&app(&auth), "/", &session.cookie_header()).await.status, 401, "{name}");
            assert!(mock.is_live(session.refresh_token()), "{name}");
        }
        assert!(auth.refresh("a-one-time-secret").await.is_err(), "{name}");
        assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (1, 0), "{name}");
    }
    assert_eq!(elsewhere.connections(), 0, "redirects are not followed");
}

#[tokio::test]
async fn the_key_set_is_asked_for_without_any_secret() {
    let mock = MockCrossmint::start().await;
    auth(&mock).warm_up().await.unwrap();
    let request = &mock.requests(Endpoint::Keys)[0];
    assert_eq!((request.method().as_str(), request.path()), ("GET", "/.well-known/jwks.json"));
    assert!(["x-api-key", "cookie", "authorization"].iter().all(|name| request.header(name).is_none()));
}

/// Ways for the key set's endpoint to fail.
fn faults(redirect: &str) -> Vec<(&'static str, Fault)> {
    vec![
        ("500", Fault::Status(500)),
        ("404", Fault::Status(404)),
        ("a page", Fault::StatusHtml(200)),
        ("garbage", Fault::Garbage),
        ("empty", Fault::Empty),
        ("no keys", Fault::json(200, json!({"keys": []}))),
        ("no usable keys", Fault::json(200, json!({"keys": [{"kty": "oct", "k": "AA"}]}))),
        ("an error object", Fault::json(200, json!({"error": "x"}))),
        ("an array", Fault::json(200, json!([]))),
        ("huge", Fault::Huge(300 << 10)),
        ("endless", Fault::Endless),
        ("a redirect", Fault::Redirect(302, redirect.to_owned())),
        ("another redirect", Fault::Redirect(307, redirect.to_owned())),
        ("reset", Fault::Reset),
        ("reset in the body", Fault::ResetMidBody),
        ("cut off", Fault::EarlyEof),
        ("hang", Fault::Hang),
        ("a byte a second", Fault::SlowBody),
        ("a bomb", Fault::CompressedBomb),
    ]
}

/// A handle that waits for the keys no longer than a test may.
fn impatient(mock: &MockCrossmint) -> CrossmintAuth {
    CrossmintAuth::new(mock.config().keys_timeout(Duration::from_millis(250)).build().unwrap())
}

/// Waits until the reload that is under way has ended.
async fn loaded(auth: &CrossmintAuth) {
    // A token under an unknown key waits for it.
    assert!(auth.verify_jwt(&FIRST.sign(Some("first"))).await.is_err());
}

/// A mock that publishes these keys and no others.
async fn publishing(keys: &[Value]) -> MockCrossmint {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Keys, Fault::json(200, json!({ "keys": keys })));
    mock
}

/// A key of the test's own, for tokens that the mock would not sign.
struct Signer {
    kid: &'static str,
    pair: KeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        Self { kid, pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    fn n(&self) -> String {
        // RFC 8017 appendix A.1.1: the lengths are fixed for 2048 bits and the exponent 65537.
        BASE64URL.encode(&self.pair.public_key().as_ref()[9..265])
    }

    fn jwk(&self) -> Value {
        json!({"kty": "RSA", "kid": self.kid, "n": self.n(), "e": "AQAB"})
    }

    /// Signs good claims.
    fn sign(&self, kid: Option<&str>) -> String {
        self.sign_with("RS256", &kid.map_or_else(|| json!({"alg": "RS256"}), |kid| json!({"alg": "RS256", "kid": kid})))
    }

    /// Signs good claims truly by an algorithm, whatever the header says.
    fn sign_with(&self, alg: &str, header: &Value) -> String {
        let claims = json!({"sub": "alice", "aud": "mock-project", "exp": at(600)});
        let message = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
        let encoding: &'static RsaSignatureEncoding = match alg {
            "RS256" => &RSA_PKCS1_SHA256,
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            // The classic: the public key as a shared secret.
            "HS256" => {
                let der = AsDer::<PublicKeyX509Der<'_>>::as_der(self.pair.public_key()).unwrap();
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, der.as_ref()), message.as_bytes());
                return format!("{message}.{}", BASE64URL.encode(tag));
            }
            other => panic!("{other} is not implemented"),
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", BASE64URL.encode(signature))
    }
}

static FIRST: LazyLock<Signer> = LazyLock::new(|| Signer::new("first"));
static SECOND: LazyLock<Signer> = LazyLock::new(|| Signer::new("second"));
