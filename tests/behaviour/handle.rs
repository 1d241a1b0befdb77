//! The handle, without tower.

use std::{convert::Infallible, error::Error, iter::successors, time::Duration};

use axum::body::Body;
use futures_util::{FutureExt as _, future::join_all};
use http::{HeaderMap, HeaderValue, Method, Response};
use serde_json::json;
use tower::{Layer as _, Service as _, ServiceExt as _};
use tower_crossmint_auth::{
    ApiKey, AuthErrorKind, AuthMaterial, CookieOptions, Credentials, CrossmintAuth, CrossmintAuthConfig,
    CrossmintAuthConfigBuilder, CrossmintAuthLayer, Environment, OutagePolicy, RefreshToken,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};
use tracing::Level;

use crate::{
    direct::{app, at, auth, get, post, request, send},
    events::Events,
    support::{Answer, App, JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, TRY_LATER, calls, expired},
};

#[tokio::test]
async fn a_session_is_found_by_headers_by_a_pair_and_by_material() {
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
        assert_eq!((session.jwt(), session.refresh_token().secret()), (alice.jwt(), alice.refresh_token()), "{name}");
        assert_eq!(session.refresh_token().expires_at(), None, "{name}");
        assert!(!session.is_refreshed(), "{name}");
        assert_eq!(session.claims()["iss"], mock.issuer(), "{name}");
        let expiry = session.expires_at().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(session.claims()["exp"], expiry, "{name}");
    }
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (1, 0));
}

#[tokio::test]
async fn credentials_without_a_refresh_token_are_none() {
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
async fn a_renewed_session_says_so_once_and_can_be_stored() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.set_user(json!({"id": "alice", "email": "alice@example.com"}));
    let alice = expired(&mock, "alice");
    let session = auth.get_session(&headers(&alice.cookie_header())).await.unwrap();
    assert!(session.is_refreshed());
    let renewed = session.material();
    assert_eq!(renewed.user().unwrap().email.as_deref(), Some("alice@example.com"));
    assert_eq!((renewed.jwt(), renewed.refresh_token().secret()), (session.jwt(), session.refresh_token().secret()));
    assert!(mock.is_live(renewed.refresh_token().secret()));

    let mut response = HeaderMap::new();
    auth.store_auth_material(&mut response, renewed).unwrap();
    let response = answer(response);
    let cookies = response.set_cookie();
    assert_eq!(cookies.iter().map(|cookie| cookie.name()).collect::<Vec<_>>(), [JWT, REFRESH]);
    assert_eq!([cookies[0].value(), cookies[1].value()], [session.jwt(), session.refresh_token().secret()]);
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
async fn the_last_word_on_a_response_counts() {
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
    for junk in ["", "a b", "a;b", &"x".repeat(5000)] {
        assert_eq!(auth.refresh(junk).await.unwrap_err().kind(), AuthErrorKind::InvalidCredentials);
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 2);
}

#[tokio::test]
async fn a_logout_ends_the_session_upstream_or_says_why_not() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().logout_timeout(Duration::from_millis(100)).build().unwrap());
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| mock.sign_in(user));
    auth.logout(&headers(&alice.cookie_header())).await.unwrap();
    auth.logout(Credentials::pair("", bob.refresh_token())).await.unwrap();
    auth.logout(&material(&carol)).await.unwrap();
    assert_eq!((mock.live_sessions(), mock.calls(Endpoint::Logout)), (0, 3));
    assert_eq!(mock.requests(Endpoint::Logout)[0].json().unwrap(), json!({"refresh": alice.refresh_token()}));

    auth.logout(&HeaderMap::new()).await.unwrap();
    assert_eq!(mock.calls(Endpoint::Logout), 3, "there is nothing to end");
    for fault in [Fault::Status(500), Fault::Status(403), Fault::Reset, Fault::Hang] {
        mock.inject(Endpoint::Logout, fault.clone());
        let dave = mock.sign_in("dave");
        let error = auth.logout(&material(&dave)).await.unwrap_err();
        assert!(error.kind() == AuthErrorKind::Unavailable && error.source().is_some(), "{fault:?}");
        let renewal = auth.get_session(Credentials::pair("", dave.refresh_token())).await.unwrap_err();
        assert_eq!(renewal.kind(), AuthErrorKind::Refused, "{fault:?}: the session has ended here");
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 0);
}

#[tokio::test]
async fn a_logout_drops_the_verified_token() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    let verifications = async |secret: &str| {
        let session = auth.get_session(Credentials::pair(alice.jwt(), secret)).await.unwrap();
        assert_eq!(session.refresh_token().secret(), secret);
        auth.stats().verifications
    };
    assert_eq!(verifications(alice.refresh_token()).await, 1);
    assert_eq!(verifications("another").await, 1);
    auth.logout(&material(&alice)).await.unwrap();
    assert_eq!(verifications("another").await, 2);
}

#[tokio::test]
async fn every_call_names_the_key_and_the_client() {
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
async fn a_user_is_found_whatever_the_id() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let cases = [
        ("email:a@b.test", "email:a@b.test"),
        ("ü", "%C3%BC"),
        ("a/b", "a%2Fb"),
        ("/", "%2F"),
        ("../logout", "..%2Flogout"),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("100%", "100%25"),
        ("%2e%2e", "%252e%252e"),
        ("...", "..."),
    ];
    for (id, segment) in cases {
        mock.set_user(json!({"id": id, "phoneNumber": "+1", "twitter": {"id": "1", "username": "t"}, "new": true}));
        let user = auth.get_user(id).await.unwrap_or_else(|error| panic!("{id}: {error}, {:?}", error.source()));
        assert_eq!((user.id.as_str(), user.phone_number.as_deref(), user.email), (id, Some("+1"), None), "{id}");
        assert_eq!((user.twitter.unwrap().username.as_str(), &user.other["new"]), ("t", &json!(true)), "{id}");
        let path = mock.requests(Endpoint::User).pop().unwrap().path().to_owned();
        assert_eq!(path, format!("/api/2024-09-26/sdk/auth/user/{segment}"), "{id}");
    }
    for id in ["", ".", ".."] {
        assert_eq!(auth.get_user(id).await.unwrap_err().kind(), AuthErrorKind::UserUnavailable, "{id:?}");
    }
    assert_eq!((mock.calls(Endpoint::User), mock.calls(Endpoint::Elsewhere)), (cases.len(), 0));
}

#[tokio::test]
async fn a_user_id_names_this_user_or_nobody() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let _ = mock.sign_in("alice");
    for id in ["al\nice", ".\t.", ".\n", "\n", "alice\u{7f}"] {
        assert!(auth.get_user(id).await.is_err(), "{id:?}");
    }
    assert_eq!((mock.calls(Endpoint::User), mock.calls(Endpoint::Elsewhere)), (0, 0));
}

#[tokio::test]
async fn a_user_that_is_not_given_out_is_an_error_with_a_reason() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().refresh_timeout(Duration::from_secs(1)).build().unwrap());
    let cases = [
        ("unknown", None, AuthErrorKind::UserUnavailable, "404"),
        ("no scope", Some(Fault::Status(403)), AuthErrorKind::UserUnavailable, "users.read"),
        ("a geo block", Some(Fault::StatusHtml(403)), AuthErrorKind::Unavailable, "403"),
        ("an outage", Some(Fault::Status(500)), AuthErrorKind::Unavailable, "500"),
        ("garbage", Some(Fault::Garbage), AuthErrorKind::UnusableAnswer, "members"),
        ("no id", Some(Fault::json(200, json!({"email": "x"}))), AuthErrorKind::UnusableAnswer, "members"),
        ("a redirect", Some(Fault::Redirect(302, "/x".into())), AuthErrorKind::Unavailable, "302"),
        ("a hang", Some(Fault::Hang), AuthErrorKind::Unavailable, "error sending request"),
    ];
    for (name, fault, kind, reason) in cases {
        mock.clear_faults();
        fault.into_iter().for_each(|fault| mock.inject(Endpoint::User, fault));
        let error = auth.get_user("nobody").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}");
        assert!(error.source().unwrap().to_string().contains(reason), "{name}: {:?}", error.source());
    }
    assert_eq!(mock.calls(Endpoint::Elsewhere), 0);
}

#[tokio::test]
async fn a_user_that_is_not_given_out_ends_no_session() {
    let mock = MockCrossmint::start().await;
    let error = auth(&mock).get_user("nobody").await.unwrap_err();
    assert_eq!(error.kind(), AuthErrorKind::UserUnavailable);
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
async fn warming_up_loads_the_keys_or_says_why_not() {
    let mock = MockCrossmint::start().await;
    assert_eq!(auth(&mock).jwks_uri(), format!("{}/.well-known/jwks.json", mock.base_url()));
    let warm = auth(&mock);
    warm.warm_up().await.unwrap();
    warm.warm_up().await.unwrap();
    assert_eq!(mock.calls(Endpoint::Keys), 1);
    let headers = headers(&mock.sign_in("alice").cookie_header());
    assert!(warm.get_session(&headers).now_or_never().is_some(), "nobody has to be asked");

    let cases = [
        ("an outage", Fault::Status(503), AuthErrorKind::Unavailable, "503"),
        ("garbage", Fault::Garbage, AuthErrorKind::UnusableAnswer, "not a JSON object"),
        ("no keys", Fault::json(200, json!({"keys": []})), AuthErrorKind::UnusableAnswer, "no usable key"),
        ("huge", Fault::Huge(1 << 20), AuthErrorKind::UnusableAnswer, "larger than"),
        ("a reset", Fault::Reset, AuthErrorKind::Unavailable, "error sending request"),
    ];
    for (name, fault, kind, reason) in cases {
        mock.inject(Endpoint::Keys, fault);
        let cold = auth(&mock);
        let error = cold.warm_up().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}");
        assert!(error.source().unwrap().to_string().contains(reason), "{name}: {:?}", error.source());
        mock.clear_faults();
        crate::direct::pass(Duration::from_secs(1)).await;
        cold.warm_up().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn clones_and_layers_share_the_keys_the_tokens_and_the_renewals() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let layer = CrossmintAuthLayer::from(auth.clone());
    let (app, same) = (app(&auth), layer.auth().clone());
    let alice = expired(&mock, "alice");
    let renewed = auth.get_session(&material(&alice)).await.unwrap();
    assert_eq!(same.get_session(&material(&alice)).await.unwrap().jwt(), renewed.jwt());
    let answer = get(&app, "/", &alice.cookie_header()).await;
    assert_eq!(answer.set_cookie()[0].value(), renewed.jwt());
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (1, 1));

    // One allocation of the JWT, in the cache that all look into.
    let bob = material(&mock.sign_in("bob"));
    let sessions = [auth.get_session(&bob).await.unwrap(), same.get_session(&bob).await.unwrap()];
    assert_eq!(sessions[0].jwt().as_ptr(), sessions[1].jwt().as_ptr());

    post(&app, "/api/auth/logout", &answer.cookie_header()).await;
    let late = auth.get_session(&material(&alice)).await.unwrap_err();
    assert_eq!((late.kind(), mock.calls(Endpoint::Refresh)), (AuthErrorKind::Refused, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_made_from_clones_of_one_configuration_renew_a_session_once() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().build().unwrap();
    let of = |config| App::with(CrossmintAuthLayer::new(config).auth().clone());
    let apps = [of(config.clone()).await, of(config).await];
    let alice = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let requests = join_all((0..20).map(|number| apps[number % 2].get("/", &alice)));
    let release = async {
        mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(requests, release);
    for (number, answer) in answers.iter().enumerate() {
        answer.assert_renewed("alice", &format!("request {number}"));
        assert_eq!(answer.cookie_header(), answers[0].cookie_header(), "request {number}");
    }
    for app in &apps {
        app.get("/", &alice).await.assert_renewed("alice", "a latecomer");
        app.get("/", answers[0].cookie_header()).await.assert_passed("alice", "the browser's next request");
    }
    assert_eq!((calls(&mock), mock.reuse_detections(), mock.live_sessions()), ([1, 1, 0], 0, 1));
}

#[tokio::test]
async fn a_configuration_keeps_no_handle_alive() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().build().unwrap();
    for handles in 1..=2 {
        let auth = CrossmintAuth::new(config.clone());
        auth.warm_up().await.unwrap();
        CrossmintAuth::new(config.clone()).warm_up().await.unwrap();
        assert_eq!(mock.calls(Endpoint::Keys), handles, "the key set went with the last handle");
        auth.wait_idle().await;
    }
}

#[tokio::test]
async fn a_configuration_finds_its_handle_while_a_task_of_it_goes_on() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().build().unwrap();
    let alice = expired(&mock, "alice").cookie_header();
    let hold = mock.hold_answers(Endpoint::Refresh);
    let gone = app(&CrossmintAuth::new(config.clone())).oneshot(request::<Body>(Method::GET, "/", &alice));
    tokio::select! {
        _ = gone => panic!("the answer is held"),
        () = mock.called(Endpoint::Refresh, 1) => {}
    }
    let auth = CrossmintAuth::new(config);
    let app = app(&auth);
    let (answer, ()) = tokio::join!(get(&app, "/", &alice), async { hold.release() });
    answer.assert_renewed("alice", "the client of before has hung up, and all its handles are dropped");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_second_handle_for_a_project_is_warned_of_once() {
    let events = Events::capture(Level::WARN);
    let (mock, elsewhere) = (MockCrossmint::start().await, MockCrossmint::start().await);
    let other = || CrossmintAuthConfig::builder(ApiKey::unverified("other", Environment::Development));
    let rows: [(&str, [CrossmintAuthConfig; 2], usize); 3] = [
        ("another base URL", [mock.config(), elsewhere.config()].map(built), 0),
        ("another project", [mock.config(), other().base_url(mock.base_url())].map(built), 0),
        ("the same project", [mock.config(), mock.config().refresh_route("/renew")].map(built), 1),
    ];
    for (name, configs, expected) in rows {
        let before = events.texts().len();
        let handles = configs.clone().map(CrossmintAuth::new);
        let _layers = configs.map(CrossmintAuthLayer::new);
        let _others = handles.map(CrossmintAuthLayer::from);
        let lines = events.texts().split_off(before);
        assert_eq!(lines.len(), expected, "{name}: {lines:?}");
        let advice = "use `CrossmintAuthLayer::from(auth.clone())`";
        assert!(lines.iter().all(|line| line.starts_with("WARN") && line.contains(advice)), "{name}: {lines:?}");
    }
    let before = events.texts().len();
    for _ in 0..3 {
        let _alone = auth(&mock);
    }
    assert_eq!(events.texts().len(), before, "one after the other");
    let _three = [auth(&mock), auth(&mock), auth(&mock)];
    assert_eq!(events.texts().len(), before + 1, "three at once");
}

#[test]
fn the_handle_works_on_one_thread_and_errs_outside_of_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mock, auth) = runtime.block_on(async {
        let mock = MockCrossmint::start().await;
        let auth = auth(&mock);
        (mock, auth)
    });
    let alice = mock.sign_in("alice");
    let (material, spent) = (material(&alice), material(&expired(&mock, "bob")));

    let outside = |name: &str, error: tower_crossmint_auth::AuthError| {
        assert_eq!(error.kind(), AuthErrorKind::Unavailable, "{name}");
    };
    outside("warm_up", auth.warm_up().now_or_never().unwrap().unwrap_err());
    outside("get_session", auth.get_session(&material).now_or_never().unwrap().unwrap_err());
    outside("verify_jwt", auth.verify_jwt(alice.jwt()).now_or_never().unwrap().unwrap_err());
    outside("refresh", auth.refresh(alice.refresh_token()).now_or_never().unwrap().unwrap_err());
    outside("get_user", auth.get_user("alice").now_or_never().unwrap().unwrap_err());
    outside("logout", auth.logout(&material).now_or_never().unwrap().unwrap_err());

    // None of it is held against Crossmint.
    let carol = self::material(&mock.sign_in("carol"));
    runtime.block_on(async {
        auth.warm_up().await.unwrap();
        assert_eq!(auth.get_user("alice").await.unwrap().id, "alice");
    });
    assert_eq!(auth.get_session(&carol).now_or_never().unwrap().unwrap().user_id(), "carol", "nobody has to be asked");
    outside("a renewal", auth.get_session(&spent).now_or_never().unwrap().unwrap_err());
    runtime.block_on(async {
        assert_eq!(auth.get_session(&spent).await.unwrap().user_id(), "bob");
        auth.logout(&carol).await.unwrap();
    });
    assert_eq!((mock.calls(Endpoint::Refresh), mock.calls(Endpoint::Logout)), (1, 1));
}

#[test]
fn the_layer_answers_as_in_an_outage_outside_of_a_runtime() {
    let runtime = runtime();
    let mock = runtime.block_on(MockCrossmint::start());
    let cookie = expired(&mock, "alice").cookie_header();
    for (policy, status) in [(OutagePolicy::EndSession, 401), (OutagePolicy::KeepSession, 503)] {
        let app = app(&CrossmintAuth::new(mock.config().on_outage(policy).build().unwrap()));
        for (method, path) in [(Method::POST, REFRESH_ROUTE), (Method::GET, "/")] {
            let answer = send(&app, request(method, path, &cookie)).now_or_never().unwrap();
            assert_eq!((answer.status, answer.json()["message"].as_str()), (status, Some(TRY_LATER)), "{path}");
            assert_eq!(answer.clears(&[JWT, REFRESH]), policy == OutagePolicy::EndSession, "{path}, {policy:?}");
        }
        let answer = post(&app, LOGOUT_ROUTE, &cookie).now_or_never().unwrap();
        assert!(answer.status == 200 && answer.clears(&[JWT, REFRESH]), "{policy:?}: {answer:?}");
    }
    assert_eq!((calls(&mock), mock.live_sessions()), ([0, 0, 0], 1));

    // What counts is where the future is polled.
    let inner = tower::service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut service = CrossmintAuthLayer::from(auth(&mock)).layer(inner);
    let response = service.call(request::<Body>(Method::POST, REFRESH_ROUTE, &cookie));
    assert_eq!(runtime.block_on(response).unwrap().status(), 200);
}

#[test]
fn who_waits_for_a_renewal_whose_runtime_ends_is_told() {
    let (lost, alive) = (runtime(), runtime());
    let mock = alive.block_on(MockCrossmint::start());
    let auth = auth(&mock);
    alive.block_on(auth.warm_up()).unwrap();
    let alice = expired(&mock, "alice");
    let _hold = mock.hold(Endpoint::Refresh);
    let credentials = material(&alice);
    let renewal = lost.spawn({
        let (auth, credentials) = (auth.clone(), credentials.clone());
        async move { auth.get_session(&credentials).await }
    });
    alive.block_on(mock.called(Endpoint::Refresh, 1));
    let mut waiting = Box::pin(auth.get_session(&credentials));
    assert!((&mut waiting).now_or_never().is_none());
    let outside = auth.logout(&credentials).now_or_never().unwrap();
    assert_eq!(outside.unwrap_err().kind(), AuthErrorKind::Unavailable);
    drop(lost);
    assert!(alive.block_on(renewal).is_err());
    assert_eq!(alive.block_on(waiting).unwrap_err().kind(), AuthErrorKind::Unavailable);
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
    assert_eq!(alive.block_on(auth.get_session(&material(&mock.sign_in("bob")))).unwrap().user_id(), "bob");
}

fn built(config: CrossmintAuthConfigBuilder) -> CrossmintAuthConfig {
    config.build().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn material(session: &MockSession) -> AuthMaterial {
    AuthMaterial::new(session.jwt(), RefreshToken::new(session.refresh_token()))
}

fn headers(cookie: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::COOKIE, cookie.parse().unwrap())])
}

/// Reads the headers that the handle wrote as a client would.
fn answer(headers: HeaderMap) -> Answer {
    Answer { status: 200, headers, body: String::new() }
}
