//! The calls to Crossmint.

mod outage;

use std::{error::Error, iter::successors, time::Duration};

use http::HeaderMap;
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{app::App, clock::pass, direct::auth, mock::expired};

#[tokio::test]
async fn calls_carry_the_documented_headers_and_the_one_for_the_key_set_none() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let alice = expired(&mock, "alice");
    let cookie = app.get("/me", alice.cookie_header()).await.cookie_header();
    app.auth.get_user("alice").await.unwrap();
    app.post("/api/auth/logout", &cookie, "").await;

    for endpoint in [Endpoint::Refresh, Endpoint::Logout, Endpoint::User] {
        let request = &mock.requests(endpoint)[0];
        for (name, value) in [
            ("x-api-key", mock.api_key()),
            ("x-client-name", "tower-crossmint-auth"),
            ("x-client-version", env!("CARGO_PKG_VERSION")),
            ("content-type", "application/json"),
        ] {
            assert_eq!(request.header(name), Some(value), "{name} to {endpoint:?}");
        }
        assert_eq!(request.header("cookie"), None, "{endpoint:?}");
    }
    assert_eq!(mock.requests(Endpoint::Refresh)[0].json(), Some(json!({ "refresh": alice.refresh_token() })));

    let request = &mock.requests(Endpoint::Keys)[0];
    for name in ["x-api-key", "x-client-name", "x-client-version", "content-type", "cookie", "authorization"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn every_call_carries_the_api_key_and_the_clients_name() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = expired(&mock, "alice");
    let material = auth.refresh(alice.refresh_token()).await.unwrap();
    auth.get_user("alice").await.unwrap();
    auth.logout(&material).await.unwrap();
    for endpoint in [Endpoint::Refresh, Endpoint::User, Endpoint::Logout] {
        let request = &mock.requests(endpoint)[0];
        assert_eq!(request.header("x-api-key"), Some(mock.api_key()), "{endpoint:?}");
        assert_eq!(request.header("x-client-name"), Some("tower-crossmint-auth"), "{endpoint:?}");
        assert_eq!(request.header("x-client-version"), Some(env!("CARGO_PKG_VERSION")), "{endpoint:?}");
        assert_eq!(request.header("content-type"), Some("application/json"), "{endpoint:?}");
    }
}

#[tokio::test]
async fn errors_contain_no_text_of_crossmints() {
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

#[tokio::test]
async fn the_request_for_the_key_set_carries_no_secret() {
    let mock = MockCrossmint::start().await;
    auth(&mock).warm_up().await.unwrap();
    let request = &mock.requests(Endpoint::Keys)[0];
    assert_eq!((request.method().as_str(), request.path()), ("GET", "/.well-known/jwks.json"));
    assert!(["x-api-key", "cookie", "authorization"].iter().all(|name| request.header(name).is_none()));
}

#[tokio::test]
async fn a_base_url_with_a_path_is_the_prefix_of_every_call() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().base_url(format!("{}/proxy/", mock.base_url())).build().unwrap());
    assert!(auth.warm_up().await.is_err());
    assert!(auth.get_user("alice").await.is_err());
    auth.logout(Credentials::pair("", "x")).await.unwrap();
    let paths: Vec<String> = mock.requests(Endpoint::Elsewhere).iter().map(|call| call.path().to_owned()).collect();
    assert_eq!(
        paths,
        [
            "/proxy/.well-known/jwks.json",
            "/proxy/api/2024-09-26/sdk/auth/user/alice",
            "/proxy/api/2024-09-26/session/sdk/auth/logout"
        ]
    );
}

#[tokio::test]
async fn a_custom_http_client_makes_the_calls() {
    let mock = MockCrossmint::start().await;
    let headers = HeaderMap::from_iter([("x-proxy".parse().unwrap(), "1".parse().unwrap())]);
    let client = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
    let auth = CrossmintAuth::new(mock.config().http_client(client).build().unwrap());
    auth.warm_up().await.unwrap();
    auth.refresh(&mock.one_time_secret("alice")).await.unwrap();
    for endpoint in [Endpoint::Keys, Endpoint::Refresh] {
        assert_eq!(mock.requests(endpoint)[0].header("x-proxy"), Some("1"));
    }
}

#[tokio::test]
async fn the_built_in_client_follows_no_redirect_and_inflates_nothing() {
    let (mock, elsewhere) = (MockCrossmint::start().await, MockCrossmint::start().await);
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    for fault in [Fault::Redirect(307, elsewhere.base_url().to_owned()), Fault::CompressedBomb] {
        mock.inject(Endpoint::Refresh, fault.clone());
        let bob = expired(&mock, "bob");
        let error = auth.refresh(bob.refresh_token()).await.unwrap_err().kind();
        assert!(matches!(error, AuthErrorKind::Unavailable | AuthErrorKind::UnusableAnswer), "{fault:?}");
    }
    assert_eq!(elsewhere.connections(), 0);
    let names = ["accept-encoding", "referer"];
    assert!(names.iter().all(|name| mock.requests(Endpoint::Refresh).iter().all(|call| call.header(name).is_none())));
}

#[tokio::test]
async fn the_built_in_client_uses_no_connection_that_has_been_idle_for_15_s() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let refresh = async || auth.refresh(mock.sign_in("alice").refresh_token()).await.unwrap();
    refresh().await;
    for (idle, connections) in [(14, 1), (16, 2), (16, 3)] {
        pass(Duration::from_secs(idle)).await;
        refresh().await;
        assert_eq!(mock.connections(), connections, "after {idle} s");
    }
}

#[tokio::test]
async fn a_refusal_whose_content_type_is_repeated_is_a_refusal() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().build().unwrap());
    let fields = [("content-type", "application/json"), ("content-type", "application/json")];
    mock.inject(Endpoint::Refresh, Fault::response(401, &fields, "{}"));
    for _ in 0..2 {
        assert_eq!(auth.refresh("token").await.unwrap_err().kind(), AuthErrorKind::Refused);
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 1, "it is remembered");
}
