//! JWTs in the `Authorization` header.

use axum::{Router, body::Body, routing::any};
use http::{HeaderMap, Method, Request};
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, Bearer, CrossmintAuth, CrossmintAuthLayer, LoginPage, OutagePolicy, Session, Unauthenticated,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{Answer, JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, SIGN_IN, TRY_LATER, unauthorized},
    app::who,
    direct::{auth, post, request, send},
    mock::{NO_CALLS, calls, expired},
};

fn accepting(mock: &MockCrossmint) -> Router {
    layered(CrossmintAuthLayer::from(auth(mock)).bearer(Bearer::Accept))
}

fn layered(layer: CrossmintAuthLayer) -> Router {
    Router::new().fallback(any(who)).layer(layer)
}

async fn call(app: &Router, cookie: &str, authorization: &[&str]) -> Answer {
    send(app, with(request(Method::GET, "/", cookie), authorization)).await
}

fn with(mut request: Request<Body>, authorization: &[&str]) -> Request<Body> {
    for value in authorization {
        request.headers_mut().append("authorization", value.parse().unwrap());
    }
    request
}

/// Asserts that a bearer token was refused with this challenge, and that no cookie was touched.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, case: &str) {
    answer.assert_status(status, case);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    let challenge = format!(r#"Bearer error="{code}", error_description="{message}""#);
    assert_eq!((answer.header("www-authenticate"), answer.set_cookie_fields().count()), (&*challenge, 0), "{case}");
    assert_eq!(answer.header("cache-control"), "no-store", "{case}");
}

#[tokio::test]
async fn a_jwt_in_the_header_is_a_session_without_a_refresh_token() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = layered(CrossmintAuthLayer::from(auth.clone()).bearer(Bearer::Accept));
    let alice = mock.sign_in("alice");
    for case in ["verified", "cached"] {
        for scheme in ["Bearer", "bearer"] {
            let answer = call(&app, "", &[&format!("{scheme} {}", alice.jwt())]).await;
            answer.assert_passed("alice", case);
            assert_eq!(answer.json()["refreshToken"], json!(null), "{case}");
        }
    }
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (1, 0));
    call(&app, &alice.cookie_header(), &[]).await.assert_passed("alice", "by cookies");
    assert_eq!(auth.stats().verifications, 1, "the header and the cookies share the cache");
}

#[tokio::test]
async fn the_header_is_ignored_unless_it_is_accepted() {
    let mock = MockCrossmint::start().await;
    let app = layered(CrossmintAuthLayer::from(auth(&mock)));
    let bearer = format!("Bearer {}", mock.sign_in("alice").jwt());
    let answer = call(&app, "", &[&bearer]).await;
    answer.assert_ended(SIGN_IN, "no cookies");
    assert!(!answer.header("www-authenticate").contains("Bearer"), "it promises nothing: {answer:?}");
    call(&app, &mock.sign_in("bob").cookie_header(), &[&bearer]).await.assert_passed("bob", "cookies");
    call(&app, &mock.sign_in("bob").cookie_header(), &["Bearer"]).await.assert_passed("bob", "a malformed header");
}

#[tokio::test]
async fn the_header_wins_over_the_cookies_even_if_it_is_invalid() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let (alice, bob) = (mock.sign_in("alice"), mock.sign_in("bob").cookie_header());
    call(&app, &bob, &[&format!("Bearer {}", alice.jwt())]).await.assert_passed("alice", "both are valid");
    assert_refused(&call(&app, &bob, &["Bearer a.b.c"]).await, 401, "invalid_token", "an invalid token");
    call(&app, &bob, &["Basic YWxpY2U6"]).await.assert_passed("bob", "another scheme");
    call(&app, &bob, &[]).await.assert_passed("bob", "no header");
}

#[tokio::test]
async fn one_jwt_is_a_session_with_or_without_its_refresh_token() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let alice = mock.sign_in("alice");
    let bearer = format!("Bearer {}", alice.jwt());
    for round in 0..3 {
        let answer = call(&app, &alice.cookie_header(), &[]).await;
        assert_eq!(answer.json()["refreshToken"], alice.refresh_token(), "{round}: by cookies");
        let answer = call(&app, "", &[&bearer]).await;
        assert_eq!(answer.json()["refreshToken"], json!(null), "{round}: by header");
    }
}

#[tokio::test]
async fn an_expired_token_is_neither_refreshed_nor_cleared() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let alice = expired(&mock, "alice");
    let bearer = format!("Bearer {}", alice.jwt());
    assert_refused(&call(&app, "", &[&bearer]).await, 401, "invalid_token", "alone");
    assert_refused(&call(&app, &alice.cookie_header(), &[&bearer]).await, 401, "invalid_token", "beside its cookies");
    assert_eq!(mock.calls(Endpoint::Refresh), 0);
    assert!(mock.is_live(alice.refresh_token()));
}

#[tokio::test]
async fn a_malformed_header_is_a_bad_request() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let bearer = &*format!("Bearer {}", mock.sign_in("alice").jwt());
    for (case, fields) in [
        ("no token", &["Bearer"][..]),
        ("two tokens", &["Bearer a b"]),
        ("two fields", &[bearer, bearer]),
        ("two schemes", &["Basic YWxpY2U6", bearer]),
        ("not a token", &["Bearer {}"]),
    ] {
        assert_refused(&call(&app, "", fields).await, 400, "invalid_request", case);
    }
    assert_eq!(calls(&mock), NO_CALLS);
}

#[tokio::test]
async fn a_request_without_credentials_is_told_the_scheme_and_nothing_else() {
    let mock = MockCrossmint::start().await;
    let answer = call(&accepting(&mock), "", &[]).await;
    assert_eq!((answer.status, &*answer.body), (401, &*unauthorized(SIGN_IN)));
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

#[tokio::test]
async fn policies_for_requests_without_a_session_apply_to_bearer_tokens() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock)).bearer(Bearer::Accept);
    let allow = layered(layer.clone().unauthenticated(Unauthenticated::Allow));
    let answer = call(&allow, "", &["Bearer a.b.c"]).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (200, Some("InvalidToken")));
    assert_eq!(answer.set_cookie_fields().count(), 0);
    let missing = layered(layer.clone().unauthenticated(Unauthenticated::AllowMissing));
    assert_eq!(call(&missing, "", &[]).await.status, 200);
    assert_refused(&call(&missing, "", &["Bearer a.b.c"]).await, 401, "invalid_token", "AllowMissing");
    let redirect = layered(layer.unauthenticated(Unauthenticated::Redirect(LoginPage::new("/login").unwrap())));
    let mut navigation = with(request(Method::GET, "/", ""), &["Bearer a.b.c"]);
    navigation.headers_mut().insert("sec-fetch-mode", "navigate".parse().unwrap());
    assert_refused(&send(&redirect, navigation).await, 401, "invalid_token", "Redirect");
}

#[tokio::test]
async fn the_extractor_challenges_as_the_layer_does() {
    let mock = MockCrossmint::start().await;
    for (policy, challenge) in [(Bearer::Accept, "Bearer"), (Bearer::Ignore, "Cookie")] {
        let layer = CrossmintAuthLayer::from(auth(&mock)).unauthenticated(Unauthenticated::Allow).bearer(policy);
        let app = Router::new().fallback(any(async |_: Session| "in")).layer(layer);
        let answer = call(&app, "", &[]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, challenge), "{policy:?}");
    }
}

#[tokio::test]
async fn without_a_key_set_the_answer_is_503_under_either_outage_policy() {
    let mock = MockCrossmint::start().await;
    let alice = mock.sign_in("alice");
    for policy in [OutagePolicy::EndSession, OutagePolicy::KeepSession] {
        mock.inject(Endpoint::Keys, Fault::json(500, json!({})));
        let app = layered(CrossmintAuthLayer::from(auth(&mock)).bearer(Bearer::Accept).on_outage(policy));
        let answer = call(&app, "", &[&format!("Bearer {}", alice.jwt())]).await;
        answer.assert_rejected(503, TRY_LATER, &format!("{policy:?}"));
        assert_ne!(answer.header("retry-after"), "", "{policy:?}");
    }
}

#[tokio::test]
async fn a_token_of_an_unknown_key_waits_for_a_reload() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let bearer = format!("Bearer {}", mock.sign_in("alice").jwt());
    call(&app, "", &[&bearer]).await.assert_passed("alice", "at first, there are no keys at all");
}

#[tokio::test]
async fn the_handle_resolves_a_jwt_alone() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = mock.sign_in("alice");
    for case in ["verified", "cached"] {
        let session = auth.session_from_jwt(alice.jwt()).await.unwrap();
        assert_eq!((session.user_id(), session.jwt()), ("alice", alice.jwt()), "{case}");
        assert!(session.refresh_token().is_none() && session.material().is_none() && !session.is_refreshed(), "{case}");
    }
    for (case, jwt) in [("expired", expired(&mock, "bob").jwt()), ("nothing", ""), ("junk", "a.b.c")] {
        let error = auth.session_from_jwt(jwt).await.unwrap_err();
        assert_eq!(error.kind(), AuthErrorKind::InvalidToken, "{case}");
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 0);
}

#[tokio::test]
async fn a_caller_without_cookies_signs_out_with_the_token_in_the_body() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let body = |content_type: &str, body: String| {
        let mut request = request(Method::POST, LOGOUT_ROUTE, "");
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        *request.body_mut() = body.into();
        request
    };
    let alice = mock.sign_in("alice");
    let token = json!({ "refresh": alice.refresh_token() }).to_string();
    assert_eq!(send(&app, body("text/plain", token.clone())).await.status, 200);
    assert!(mock.is_live(alice.refresh_token()), "another site's form can send any text");
    let answer = send(&app, body("application/json", token.clone())).await;
    assert_eq!((answer.status, mock.is_live(alice.refresh_token())), (200, false), "{answer:?}");
    for (case, body) in [
        ("not JSON", body("application/json", "{".into())),
        ("no token", body("application/json", r#"{"refresh":"a b"}"#.into())),
    ] {
        assert_eq!(send(&app, body).await.status, 400, "{case}");
    }
    let bob = mock.sign_in("bob");
    let mut both = body("application/json", json!({ "refresh": mock.sign_in("carol").refresh_token() }).to_string());
    both.headers_mut().insert("cookie", bob.cookie_header().parse().unwrap());
    let answer = send(&app, both).await;
    assert!(answer.clears(&[JWT, REFRESH]) && !mock.is_live(bob.refresh_token()), "the cookie's session ends");
    assert_eq!(mock.live_sessions(), 1, "carol's does not");
}

#[tokio::test]
async fn the_response_to_a_bearer_callers_logout_touches_no_cookie() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let alice = mock.sign_in("alice");
    let mut logout = with(request(Method::POST, LOGOUT_ROUTE, ""), &[&format!("Bearer {}", alice.jwt())]);
    logout.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *logout.body_mut() = json!({ "refresh": alice.refresh_token() }).to_string().into();
    let answer = send(&app, logout).await;
    assert_eq!((answer.status, answer.set_cookie_fields().count()), (200, 0));
    assert!(!mock.is_live(alice.refresh_token()));
}

#[tokio::test]
async fn the_refresh_route_does_not_look_at_the_header() {
    let mock = MockCrossmint::start().await;
    let app = accepting(&mock);
    let alice = mock.sign_in("alice");
    let request = with(request(Method::POST, REFRESH_ROUTE, &alice.cookie_header()), &["Bearer a.b.c"]);
    let answer = send(&app, request).await;
    assert_eq!((answer.status, answer.stores_a_session()), (200, true));
    assert_eq!(post(&app, REFRESH_ROUTE, "").await.status, 401);
}

#[tokio::test]
async fn headers_without_cookies_are_no_credentials_for_the_handle() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().bearer(Bearer::Accept).build().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {}", mock.sign_in("alice").jwt()).parse().unwrap());
    let error = CrossmintAuth::new(config).get_session(&headers).await.unwrap_err();
    assert_eq!(error.kind(), AuthErrorKind::MissingCredentials);
}

#[tokio::test]
async fn a_logout_ends_all_that_the_request_presents() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = |layer| Router::new().route("/", any(who)).layer(layer);
    for policy in [Bearer::Accept, Bearer::Ignore] {
        let app = app(CrossmintAuthLayer::from(auth.clone()).bearer(policy)).merge(auth.routes());
        let (alice, bob) = (mock.sign_in("alice"), mock.sign_in("bob"));
        let bearer = format!("Bearer {}", alice.jwt());
        let both = with(request(Method::POST, LOGOUT_ROUTE, &bob.cookie_header()), &[&bearer]);
        let answer = send(&app, both).await;
        assert!(answer.status == 200 && answer.clears(&[JWT, REFRESH]), "{policy:?}: {answer:?}");
        assert!(!mock.is_live(bob.refresh_token()), "{policy:?}");
        for session in [alice, bob] {
            let kind = auth.session_from_jwt(session.jwt()).await.unwrap_err().kind();
            assert_eq!(kind, AuthErrorKind::InvalidToken, "{policy:?}");
        }
        let carol = mock.sign_in("carol");
        let alone = with(request(Method::POST, LOGOUT_ROUTE, ""), &[&format!("Bearer {}", carol.jwt())]);
        let answer = send(&app, alone).await;
        assert_eq!((answer.status, answer.set_cookie_fields().count()), (200, 0), "{policy:?}");
        assert!(auth.session_from_jwt(carol.jwt()).await.is_err(), "{policy:?}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_used_keeps_nobody_signed_in() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = layered(CrossmintAuthLayer::from(auth.clone()));
    for body in ["null", "[]", "{"] {
        let alice = mock.sign_in("alice");
        let mut logout = request(Method::POST, LOGOUT_ROUTE, &format!("{JWT}={}", alice.jwt()));
        logout.headers_mut().insert("content-type", "application/json".parse().unwrap());
        *logout.body_mut() = body.into();
        let answer = send(&app, logout).await;
        assert!(answer.status == 200 && answer.clears(&[JWT, REFRESH]), "{body}: {answer:?}");
        assert!(auth.session_from_jwt(alice.jwt()).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn the_login_page_is_shown_to_a_caller_with_an_invalid_token() {
    let mock = MockCrossmint::start().await;
    let page = Unauthenticated::Redirect(LoginPage::new("/login").unwrap());
    let app = layered(CrossmintAuthLayer::from(auth(&mock)).bearer(Bearer::Accept).unauthenticated(page));
    for token in ["Bearer a.b.c", "Bearer a b"] {
        let answer = send(&app, with(request(Method::GET, "/login", ""), &[token])).await;
        assert_eq!((answer.status, answer.user()), (200, None), "{token}");
    }
}

#[tokio::test]
async fn a_malformed_header_is_unauthenticated_for_grpc() {
    let mock = MockCrossmint::start().await;
    let mut call = with(request(Method::POST, "/", ""), &["Bearer a b"]);
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = send(&accepting(&mock), call).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (401, "16"));
}
