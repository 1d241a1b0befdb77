//! The handle, without tower.

mod revoked;
mod runtimes;
mod sharing;
mod users;

use std::{error::Error as _, time::Duration};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, AuthMaterial, CookieOptions, Credentials, CrossmintAuth, RefreshToken,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{Answer, JWT, REFRESH},
    clock::{at, pass},
    direct::auth,
    mock::{Calls, NO_CALLS, calls, expired, material},
};

#[tokio::test]
async fn headers_a_pair_and_material_resolve_to_a_session() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    let (headers, material) = (headers(&alice.cookie_header()), material(&alice));
    let ways = [
        ("headers", Credentials::from(&headers)),
        ("a pair", Credentials::pair(alice.jwt(), alice.refresh_token())),
        ("material", Credentials::from(&material)),
    ];
    for (name, credentials) in ways {
        let session = auth.get_session(credentials).await.unwrap();
        assert_eq!(session.user_id(), "alice", "{name}");
        assert_eq!(
            (session.jwt(), session.refresh_token().unwrap().secret()),
            (alice.jwt(), alice.refresh_token()),
            "{name}"
        );
        assert_eq!(session.refresh_token().unwrap().expires_at(), None, "{name}");
        assert!(!session.is_refreshed(), "{name}");
        assert_eq!(session.claims()["iss"], mock.issuer(), "{name}");
        let expiry = session.expires_at().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(session.claims()["exp"], expiry, "{name}");
    }
    assert_eq!(calls(&mock), Calls { keys: 1, ..NO_CALLS });
}

#[tokio::test]
async fn credentials_without_a_refresh_token_are_rejected_without_a_call() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    let only_jwt = headers(&format!("{JWT}={}", alice.jwt()));
    let nothing = HeaderMap::new();
    let cases = [
        ("no cookie", Credentials::from(&nothing), AuthErrorKind::MissingCredentials),
        ("a JWT cookie", Credentials::from(&only_jwt), AuthErrorKind::MissingCredentials),
        ("a JWT", Credentials::pair(alice.jwt(), ""), AuthErrorKind::MissingCredentials),
        ("an unusable one", Credentials::pair(alice.jwt(), "a b"), AuthErrorKind::InvalidCredentials),
    ];
    for (name, credentials, kind) in cases {
        assert_eq!(auth.get_session(credentials).await.unwrap_err().kind(), kind, "{name}");
    }
    assert_eq!(mock.connections(), 0);
}

#[tokio::test]
async fn a_refreshed_session_returns_its_material_once() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.set_user(json!({"id": "alice", "email": "alice@example.com"}));
    let alice = expired(&mock, "alice");
    let session = auth.get_session(&headers(&alice.cookie_header())).await.unwrap();
    assert!(session.is_refreshed());
    let refreshed = session.material().unwrap();
    assert_eq!(refreshed.user().unwrap().email.as_deref(), Some("alice@example.com"));
    assert_eq!(
        (refreshed.jwt(), refreshed.refresh_token().secret()),
        (session.jwt(), session.refresh_token().unwrap().secret())
    );
    assert!(mock.is_live(refreshed.refresh_token().secret()));

    let mut response = HeaderMap::new();
    auth.store_auth_material(&mut response, refreshed).unwrap();
    let response = answer(response);
    let cookies = response.set_cookie();
    assert_eq!(cookies.iter().map(|cookie| cookie.name()).collect::<Vec<_>>(), [JWT, REFRESH]);
    assert_eq!([cookies[0].value(), cookies[1].value()], [session.jwt(), session.refresh_token().unwrap().secret()]);
    assert!(cookies[0].expires().is_none() && cookies[1].expires().is_some());
    assert_eq!(response.header("cache-control"), "no-store");

    let again = auth.get_session(&headers(&response.cookie_header())).await.unwrap();
    assert_eq!((again.user_id(), !again.is_refreshed()), ("alice", true));
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
}

#[tokio::test]
async fn material_is_stored_with_the_configured_attributes_or_not_at_all() {
    let mock = MockCrossmint::start().await;
    let cookies = CookieOptions::hardened().domain(".example.com");
    let auth = CrossmintAuth::new(mock.config().cookies(cookies).build().unwrap());
    let mut response = HeaderMap::new();
    auth.store_auth_material(&mut response, &material(&mock.sign_in("alice"))).unwrap();
    assert!(response.get_all("set-cookie").iter().all(HeaderValue::is_sensitive));
    for cookie in answer(response).set_cookie() {
        assert_eq!((cookie.domain(), cookie.path(), cookie.secure()), (Some("example.com"), Some("/"), Some(true)));
        assert_eq!(cookie.same_site(), Some(cookie::SameSite::Strict));
        assert_eq!(cookie.http_only().unwrap_or_default(), cookie.name() == REFRESH);
    }
    for (name, jwt, secret) in [
        ("an injection", "x; Domain=evil.test", "secret"),
        ("a line break", "jwt", "x\r\nset-cookie: y=z"),
        ("an empty JWT", "", "secret"),
        ("an empty secret", "jwt", ""),
        ("too long", "jwt", &"x".repeat(4096)),
    ] {
        let mut response = HeaderMap::new();
        let material = AuthMaterial::new(jwt, RefreshToken::new(secret));
        let error = auth.store_auth_material(&mut response, &material).unwrap_err();
        assert_eq!(error.kind(), AuthErrorKind::InvalidCredentials, "{name}");
        assert!(response.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn clearing_deletes_both_cookies() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().cookies(CookieOptions::hardened().domain("a.test")).build().unwrap());
    let mut response = HeaderMap::new();
    auth.clear_auth_material(&mut response);
    let response = answer(response);
    assert!(response.clears(&[JWT, REFRESH]));
    assert!(response.set_cookie().iter().all(|cookie| (cookie.domain(), cookie.path()) == (Some("a.test"), Some("/"))));
    assert_eq!(response.header("cache-control"), "no-store");
}

#[tokio::test]
async fn the_last_write_to_a_response_wins() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let material = auth.refresh(mock.sign_in("alice").refresh_token()).await.unwrap();
    let mut response = HeaderMap::from_iter([(http::header::SET_COOKIE, "other=1".parse().unwrap())]);
    let cleared = |response: &HeaderMap| {
        let fields: Vec<&str> = response.get_all("set-cookie").iter().map(|field| field.to_str().unwrap()).collect();
        assert!(fields.len() == 3 && fields[0] == "other=1", "{fields:?}");
        fields[1..].iter().all(|field| field.contains("1970"))
    };
    auth.store_auth_material(&mut response, &material).unwrap();
    auth.clear_auth_material(&mut response);
    assert!(cleared(&response));
    auth.store_auth_material(&mut response, &material).unwrap();
    assert!(!cleared(&response));
}

#[tokio::test]
async fn a_refresh_exchanges_a_one_time_secret_once() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let secret = mock.one_time_secret("alice");
    let (first, second) = tokio::join!(auth.refresh(&secret), auth.refresh(&secret));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.user().unwrap().id, "alice");
    assert!(first.refresh_token().expires_at().is_some());
    assert_eq!(first.refresh_token().secret(), second.refresh_token().secret());
    assert_eq!(mock.requests(Endpoint::Refresh)[0].json().unwrap(), json!({"refresh": secret}));
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
    assert_eq!(auth.get_session(&first).await.unwrap().user_id(), "alice");
    assert_eq!(auth.refresh("unknown").await.unwrap_err().kind(), AuthErrorKind::Refused);
    for invalid in ["", "a b", "a;b", &"x".repeat(5000)] {
        assert_eq!(auth.refresh(invalid).await.unwrap_err().kind(), AuthErrorKind::InvalidCredentials);
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 2);
}

#[tokio::test]
async fn a_logout_revokes_the_session_or_returns_the_cause() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().logout_timeout(Duration::from_millis(100)).build().unwrap());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| mock.sign_in(user));
    auth.logout(&headers(&alice.cookie_header())).await.unwrap();
    auth.logout(Credentials::pair("", bob.refresh_token())).await.unwrap();
    auth.logout(&material(&carol)).await.unwrap();
    assert_eq!((mock.live_sessions(), mock.calls(Endpoint::Logout)), (0, 3));
    assert_eq!(mock.requests(Endpoint::Logout)[0].json().unwrap(), json!({"refresh": alice.refresh_token()}));

    auth.logout(&HeaderMap::new()).await.unwrap();
    assert_eq!(mock.calls(Endpoint::Logout), 3, "there is nothing to revoke");
    for fault in [Fault::Status(500), Fault::Status(403), Fault::Reset, Fault::Hang] {
        mock.inject(Endpoint::Logout, fault.clone());
        let dave = mock.sign_in("dave");
        let error = auth.logout(&material(&dave)).await.unwrap_err();
        assert!(error.kind() == AuthErrorKind::Unavailable && error.source().is_some(), "{fault:?}");
        let refresh = auth.get_session(Credentials::pair("", dave.refresh_token())).await.unwrap_err();
        assert_eq!(refresh.kind(), AuthErrorKind::Refused, "{fault:?}: the session has ended in this process");
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 0);
}

#[tokio::test]
async fn verifying_a_jwt_returns_its_claims_or_the_reason() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let token = mock.sign(json!({}), json!({"sub": "alice", "aud": "mock-project", "exp": at(60), "x": {"y": [1]}}));
    assert_eq!(auth.verify_jwt(&token).await.unwrap()["x"], json!({"y": [1]}));
    for (token, reason) in [(expired(&mock, "bob").jwt(), "expired"), ("a.b.c", "base64url"), ("x", "three parts")] {
        let error = auth.verify_jwt(token).await.unwrap_err();
        assert_eq!(error.kind(), AuthErrorKind::InvalidToken);
        assert!(error.source().unwrap().to_string().contains(reason), "{:?}", error.source());
    }
}

#[tokio::test]
async fn warm_up_loads_the_key_set_or_returns_the_cause() {
    struct Row {
        name: &'static str,
        fault: Fault,
        kind: AuthErrorKind,
        cause: &'static str,
    }
    let mock = MockCrossmint::start().await;
    assert_eq!(auth(&mock).jwks_uri(), format!("{}/.well-known/jwks.json", mock.base_url()));
    let warm = auth(&mock);
    warm.warm_up().await.unwrap();
    warm.warm_up().await.unwrap();
    assert_eq!(mock.calls(Endpoint::Keys), 1);
    let headers = headers(&mock.sign_in("alice").cookie_header());
    assert!(warm.get_session(&headers).now_or_never().is_some(), "without a call");

    let cases = [
        Row { name: "an outage", fault: Fault::Status(503), kind: AuthErrorKind::Unavailable, cause: "503" },
        Row { name: "garbage", fault: Fault::Garbage, kind: AuthErrorKind::UnusableAnswer, cause: "not a JSON object" },
        Row {
            name: "no keys",
            fault: Fault::json(200, json!({"keys": []})),
            kind: AuthErrorKind::UnusableAnswer,
            cause: "no usable key",
        },
        Row { name: "huge", fault: Fault::Huge(1 << 20), kind: AuthErrorKind::UnusableAnswer, cause: "larger than" },
        Row { name: "a reset", fault: Fault::Reset, kind: AuthErrorKind::Unavailable, cause: "error sending request" },
    ];
    for Row { name, fault, kind, cause } in cases {
        mock.inject(Endpoint::Keys, fault);
        let cold = auth(&mock);
        let error = cold.warm_up().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}");
        assert!(error.source().unwrap().to_string().contains(cause), "{name}: {:?}", error.source());
        mock.clear_faults();
        pass(Duration::from_secs(1)).await;
        cold.warm_up().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn headers(cookie: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::COOKIE, cookie.parse().unwrap())])
}

/// Reads headers that the handle has written as a client does.
fn answer(headers: HeaderMap) -> Answer {
    Answer { status: 200, headers, body: String::new() }
}

#[tokio::test]
async fn the_grace_period_of_a_session_from_the_handle_starts_at_once() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = expired(&mock, "alice");
    let pair = || Credentials::pair(alice.jwt(), alice.refresh_token());
    let successor = auth.get_session(pair()).await.unwrap();
    assert_eq!(auth.get_session(pair()).await.unwrap().jwt(), successor.jwt(), "within the grace period");
    pass(Duration::from_secs(30)).await;
    assert_eq!(auth.get_session(pair()).await.unwrap_err().kind(), AuthErrorKind::Refused);
    assert_eq!(mock.reuse_detections(), 1, "the rotated token was not remembered any longer");
}
