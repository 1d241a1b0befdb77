//! Requests without a valid session, policy by policy.

use tower_crossmint_auth::{
    Unauthenticated,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{Answer, ENDED, JWT, REFRESH, SIGN_IN, TRY_LATER},
    app::App,
    mock::{NO_CALLS, calls, expired},
};

#[tokio::test]
async fn every_policy_lets_valid_and_refreshed_sessions_pass() {
    let mock = MockCrossmint::start().await;
    for policy in [Unauthenticated::Reject, Unauthenticated::AllowMissing, Unauthenticated::Allow] {
        let app = app(&mock, policy.clone()).await;
        let case = format!("{policy:?}");
        app.get("/me", mock.sign_in("alice").cookie_header()).await.assert_passed("alice", &case);
        app.get("/me", expired(&mock, "bob").cookie_header()).await.assert_refreshed("bob", &case);
    }
}

#[tokio::test]
async fn reject_rejects_requests_without_a_session() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (case, cookie) in NONE {
        app.get("/me", cookie).await.assert_ended(SIGN_IN, case);
    }
    for (case, cookie, message) in broken(&mock) {
        app.get("/me", cookie).await.assert_ended(message, case);
    }
    assert_eq!(app.served(), 0);
}

#[tokio::test]
async fn allow_missing_passes_on_only_requests_without_any_credentials() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, Unauthenticated::AllowMissing).await;
    for (case, cookie) in NONE {
        let answer = app.get("/me", cookie).await;
        assert_anonymous(&answer, case);
        assert_eq!((answer.set_cookie_fields().count(), answer.header("cache-control")), (0, ""), "{case}");
    }
    assert_eq!((calls(&mock), app.served()), (NO_CALLS, NONE.len()));
    for (case, cookie, message) in broken(&mock) {
        app.get("/me", cookie).await.assert_ended(message, case);
    }
    assert_eq!(app.served(), NONE.len());
}

#[tokio::test]
async fn allow_passes_everything_on_and_clears_the_cookies_of_ended_sessions() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, Unauthenticated::Allow).await;
    for (case, cookie) in NONE {
        let answer = app.get("/me", cookie).await;
        assert_anonymous(&answer, case);
        assert_eq!((answer.set_cookie_fields().count(), answer.header("cache-control")), (0, ""), "{case}");
        assert!(answer.json()["error"].is_null(), "{case}");
    }
    for (case, cookie, _) in broken(&mock) {
        let answer = app.get("/me", cookie).await;
        assert_anonymous(&answer, case);
        assert!(answer.json()["error"].is_string(), "{case}");
        assert!(answer.clears(&[JWT, REFRESH]), "{case}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{case}");
    }
    assert_eq!(mock.calls(Endpoint::Logout), 0);
}

#[tokio::test]
async fn the_policy_does_not_apply_to_the_refresh_route() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, Unauthenticated::Allow).await;
    let answer = app.post("/api/auth/refresh", "", "{}").await;
    assert_eq!((answer.status, app.served()), (401, 0));
}

#[tokio::test]
async fn an_outage_is_not_treated_as_missing_credentials() {
    let mock = MockCrossmint::start().await;
    mock.inject(Endpoint::Refresh, Fault::Status(503));
    let missing = app(&mock, Unauthenticated::AllowMissing).await;
    missing.get("/me", expired(&mock, "alice").cookie_header()).await.assert_ended(TRY_LATER, "AllowMissing");
    let all = app(&mock, Unauthenticated::Allow).await;
    let answer = all.get("/me", expired(&mock, "alice").cookie_header()).await;
    assert_anonymous(&answer, "Allow");
    assert_eq!(answer.json()["error"], "Unavailable");
    assert!(answer.clears(&[JWT, REFRESH]), "Allow: {answer:?}");
}

async fn app(mock: &MockCrossmint, policy: Unauthenticated) -> App {
    App::configured(mock, |config| config.unauthenticated(policy.clone())).await
}

/// Asserts that a request was forwarded without a session.
#[track_caller]
fn assert_anonymous(answer: &Answer, case: &str) {
    assert_eq!((answer.status, answer.user()), (200, None), "{case}");
}

/// Returns invalid credentials, and the message for each.
fn broken(mock: &MockCrossmint) -> [(&'static str, String, &'static str); 5] {
    let (alice, revoked) = (mock.sign_in("alice"), expired(mock, "bob"));
    mock.revoke(revoked.refresh_token());
    [
        ("a valid JWT without a refresh token", format!("{JWT}={}", alice.jwt()), SIGN_IN),
        ("no JWT", format!("{JWT}=junk"), SIGN_IN),
        ("a revoked session", revoked.cookie_header(), ENDED),
        ("two refresh tokens", format!("{}; {REFRESH}=x", alice.cookie_header()), ENDED),
        ("an impossible refresh token", format!("{REFRESH}=a b"), ENDED),
    ]
}

/// `Cookie` headers without any credentials.
const NONE: [(&str, &str); 3] = [
    ("no cookie", ""),
    ("a foreign cookie", "theme=dark"),
    ("empty cookies", "crossmint-jwt=; crossmint-refresh-token="),
];
