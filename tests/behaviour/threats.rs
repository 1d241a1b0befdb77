//! The threats that no other module is about, and the table of all of them in `SECURITY.md`.

use std::{collections::BTreeSet, error::Error, fs, iter::successors, path::Path, time::Duration};

use axum::{Router, body::Body, routing::any};
use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuthLayer,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::{
    direct::{app, at, auth, get, pass, post, request, send},
    support::{LOGOUT_ROUTE, REFRESH_ROUTE, calls, expired},
};

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
async fn a_signature_that_is_off_by_a_bit_or_a_byte_is_refused() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    let (message, signature) = alice.jwt().rsplit_once('.').unwrap();
    let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(mock.key_set()["keys"][0]["n"].as_str().unwrap()).unwrap();
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
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert!(auth.verify_jwt(&token).await.is_err(), "{name}");
    }
    assert!(auth.verify_jwt(alice.jwt()).await.is_ok());
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
async fn the_session_is_found_among_twenty_thousand_cookies() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let junk = "a=b; ".repeat(20_000);
    let alice = mock.sign_in("alice").cookie_header();
    for cookie in [format!("{junk}{alice}"), format!("{alice}; {junk}"), format!("x={}; {alice}", "y".repeat(300_000))]
    {
        assert_eq!(get(&app, "/", &cookie).await.user().as_deref(), Some("alice"));
    }
}

#[tokio::test]
async fn a_head_request_is_treated_as_a_get() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    for (cookie, status, cookies) in [
        (mock.sign_in("alice").cookie_header(), 200, 0),
        (expired(&mock, "bob").cookie_header(), 200, 2),
        (String::new(), 401, 2),
    ] {
        let answer = send(&app, request(Method::HEAD, "/", &cookie)).await;
        assert_eq!((answer.status, answer.set_cookie_fields().count()), (status, cookies), "{cookie}");
    }
}

#[tokio::test]
async fn a_handshake_with_an_expired_session_renews_it_and_the_window_covers_a_cookie_that_is_ignored() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let switch = any(|| async { StatusCode::SWITCHING_PROTOCOLS });
    let app = Router::new().fallback(switch).layer(CrossmintAuthLayer::from(auth));
    let bob = expired(&mock, "bob").cookie_header();
    for _ in 0..2 {
        let handshake = Request::get("/ws").header("cookie", &bob).header("upgrade", "websocket");
        let answer = send(&app, handshake.header("connection", "upgrade").body(Body::empty()).unwrap()).await;
        assert!(answer.status == 101 && answer.stores_a_session(), "{answer:?}");
    }
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn only_the_path_and_the_method_of_the_request_itself_count() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = mock.sign_in("alice").cookie_header();
    for (name, value) in [
        ("x-original-url", LOGOUT_ROUTE),
        ("x-rewrite-url", LOGOUT_ROUTE),
        ("x-forwarded-uri", LOGOUT_ROUTE),
        ("x-forwarded-prefix", "/api"),
        ("x-http-method-override", "GET"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "host=evil.test;proto=http"),
        ("host", "evil.test"),
    ] {
        let mut plain = request::<Body>(Method::POST, "/", &alice);
        plain.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(send(&app, plain).await.json()["path"], "/", "{name}");

        let mut refresh = request::<Body>(Method::POST, REFRESH_ROUTE, &expired(&mock, "bob").cookie_header());
        refresh.headers_mut().insert(name, value.parse().unwrap());
        let answer = send(&app, refresh).await;
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.set_cookie_fields().all(|field| !field.contains("evil.test")), "{name}");
    }
    assert_eq!(mock.calls(Endpoint::Logout), 0);
}

#[tokio::test]
async fn the_layer_adds_no_cors_headers_of_its_own_or_of_crossmints() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = mock.sign_in("alice").cookie_header();
    let mut answers = vec![
        post(&app, REFRESH_ROUTE, &alice).await,
        get(&app, "/", "").await,
        get(&app, REFRESH_ROUTE, &alice).await,
        get(&app, "/", &expired(&mock, "bob").cookie_header()).await,
    ];
    let allow = [("content-type", "application/json"), ("access-control-allow-origin", "*")];
    for endpoint in [Endpoint::Refresh, Endpoint::Logout] {
        mock.inject(endpoint, Fault::response(401, &allow, "{}"));
        answers.push(post(&app, REFRESH_ROUTE, &expired(&mock, "bob").cookie_header()).await);
        answers.push(post(&app, LOGOUT_ROUTE, &expired(&mock, "bob").cookie_header()).await);
    }
    for answer in answers {
        let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors, None, "{answer:?}");
    }
}

#[tokio::test]
async fn no_word_of_crossmints_gets_into_an_error() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let words = json!({"message": "evil\nwords", "error": {"code": "evil words"}});
    for (status, body) in [(200, words.to_string()), (401, words.to_string()), (500, words.to_string())] {
        for body in [body, "evil\r\nwords".to_owned()] {
            let fault = Fault::response(status, &[("content-type", "application/json"), ("x-evil", "words")], body);
            for endpoint in [Endpoint::Refresh, Endpoint::Logout, Endpoint::User] {
                mock.inject(endpoint, fault.clone());
            }
            let alice = expired(&mock, "alice");
            let pair = Credentials::pair(alice.jwt(), alice.refresh_token());
            let errors =
                [auth.get_session(pair).await.err(), auth.logout(pair).await.err(), auth.get_user("alice").await.err()];
            for error in errors.iter().flatten() {
                for error in successors(Some(error as &dyn Error), |&error| error.source()) {
                    let text = format!("{error} {error:?}");
                    assert!(!text.contains("evil") && !text.contains("words"), "{status}: {text}");
                }
            }
        }
    }
}

#[test]
fn every_threat_has_its_evidence_or_a_reason() {
    let security = include_str!("../../SECURITY.md");
    let rows = security.lines().filter_map(|line| {
        let [_, id, _threat, evidence, _] = line.split('|').map(str::trim).collect::<Vec<_>>().try_into().ok()?;
        Some((id.get(..1)?, id.get(1..)?.parse::<usize>().ok()?, evidence))
    });
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut found = BTreeSet::new();
    for (letter, number, evidence) in rows {
        assert!(found.insert((letter, number)), "{letter}{number} comes twice");
        let mut names = evidence.split('`').skip(1).step_by(2).peekable();
        assert!(names.peek().is_some() || evidence.len() > 40, "{letter}{number}: neither a test nor a reason");
        for name in names.filter(|name| name.contains('_') && !name.contains(['(', ' ', '/', '.'])) {
            assert!(sources.contains(&format!("fn {name}(")), "{letter}{number}: there is no test {name}");
        }
    }
    let threats = [("A", 34), ("B", 12), ("C", 9), ("D", 16), ("E", 20), ("F", 16), ("G", 10), ("H", 6)];
    let expected = threats.into_iter().flat_map(|(letter, count)| (1..=count).map(move |number| (letter, number)));
    assert_eq!(found, expected.collect());
}

/// Reads all of the project's own Rust files.
fn sources(root: &Path) -> String {
    let mut folders = vec![root.join("src"), root.join("tests"), root.join("examples"), root.join("fuzz")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            } else if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            }
        }
    }
    text
}
