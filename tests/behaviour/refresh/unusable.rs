//! Answers that hand out a refresh token and cannot be used otherwise.

use std::time::Duration;

use serde_json::{Value, json};
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint, MockSession},
};

use crate::support::{
    answer::{JWT, REFRESH},
    clock::pass,
    direct::{app, auth, get, post},
    mock::expired,
};

#[tokio::test]
async fn an_answer_is_not_trusted_before_it_is_checked() {
    type Edit = fn(&MockCrossmint);
    let cases: [(&str, Edit); 11] = [
        ("another audience", |mock| mock.set_renewed_claim("aud", "other-project")),
        ("no audience", |mock| mock.set_renewed_claim("aud", Value::Null)),
        ("no exp", |mock| mock.set_renewed_claim("exp", Value::Null)),
        ("another user", |mock| mock.set_renewed_claim("sub", "mallory")),
        ("expired", |mock| mock.set_renewed_jwt_lifetime(-60)),
        ("forged", |mock| {
            mock.edit_refresh_answers(|answer| {
                let jwt = answer["jwt"].as_str().unwrap();
                answer["jwt"] = format!("{}.{}", jwt.rsplit_once('.').unwrap().0, "A".repeat(342)).into();
            });
        }),
        ("no JWT", |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = json!("x"))),
        ("JWT null", |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = Value::Null)),
        ("no secret", |mock| mock.edit_refresh_answers(|answer| answer["refresh"] = json!({}))),
        ("an empty secret", |mock| mock.edit_refresh_answers(|answer| answer["refresh"]["secret"] = json!(""))),
        ("an injection", |mock| {
            mock.edit_refresh_answers(|answer| answer["refresh"]["secret"] = json!("x; Domain=evil.test"));
        }),
    ];
    for (name, edit) in cases {
        let mock = MockCrossmint::start().await;
        edit(&mock);
        let auth = auth(&mock);
        let alice = expired(&mock, "alice");
        for request in 0..3 {
            let error = auth.get_session(Credentials::pair("", alice.refresh_token())).await.unwrap_err();
            assert_eq!(error.kind(), AuthErrorKind::UnusableAnswer, "{name}, request {request}");
        }
        let answer = get(&app(&auth), "/", &alice.cookie_header()).await;
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (401, true), "{name}");
        assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0), "{name}");
    }
}

#[tokio::test]
async fn an_unusable_successor_is_sent_once_the_cause_is_gone() {
    let mock = MockCrossmint::start().await;
    for ((_, cause, mend), policy, way, case) in causes() {
        let auth = with_issuer(&mock, policy).await;
        let alice = expired(&mock, "alice");
        let before = mock.calls(Endpoint::Refresh);
        cause(&mock);
        let unavailable = if policy == OutagePolicy::KeepSession || matches!(way, Way::Handle) { 503 } else { 401 };
        for attempt in 1..=3 {
            assert_eq!(way.refresh(&auth, &alice).await, (unavailable, None), "{case}");
            assert_eq!(way.refresh(&auth, &alice).await, (unavailable, None), "{case}, in the pause");
            assert_eq!(mock.calls(Endpoint::Refresh), before + attempt, "{case}");
            pass(Duration::from_secs(1 << (attempt - 1))).await;
        }
        mend(&mock);
        let (status, token) = way.refresh(&auth, &alice).await;
        assert_eq!((status, mock.reuse_detections()), (200, 0), "{case}");
        assert!(mock.is_live(&token.unwrap()), "{case}");
        assert_eq!(mock.calls(Endpoint::Refresh), before + 4, "{case}");
    }
}

#[tokio::test]
async fn a_logout_after_an_unusable_answer_revokes_the_successor() {
    let mock = MockCrossmint::start().await;
    for ((_, cause, mend), policy, way, case) in causes() {
        let auth = with_issuer(&mock, policy).await;
        let alice = expired(&mock, "alice");
        let before = mock.live_sessions();
        cause(&mock);
        way.refresh(&auth, &alice).await;
        mend(&mock);
        assert_eq!(post(&app(&auth), "/api/auth/logout", &alice.cookie_header()).await.status, 200, "{case}");
        let revoked = mock.requests(Endpoint::Logout).pop().unwrap().json().unwrap();
        assert_ne!(revoked["refresh"], alice.refresh_token(), "{case}: the successor is live");
        assert_eq!(mock.live_sessions(), before - 1, "{case}");
        pass(Duration::from_secs(1)).await;
        assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 401, "{case}");
        assert_eq!(mock.reuse_detections(), 0, "{case}");
    }
}

#[tokio::test]
async fn an_unusable_answer_pauses_its_token_for_as_long_as_retry_after_says() {
    let mock = MockCrossmint::start().await;
    let auth = with_issuer(&mock, OutagePolicy::KeepSession).await;
    let app = app(&auth);
    let alice = expired(&mock, "alice").cookie_header();
    mock.inject(Endpoint::Refresh, Fault::Garbage);
    for (attempt, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
        for _ in 0..2 {
            let answer = get(&app, "/", &alice).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, &*pause.to_string()));
            assert_eq!(mock.calls(Endpoint::Refresh), attempt + 1);
        }
        pass(Duration::from_secs(pause)).await;
    }
    mock.clear_faults();
    get(&app, "/", &alice).await.assert_refreshed("alice", "in the end");
}

/// What can be wrong with an answer whose refresh token is valid.
type Cause = (&'static str, fn(&MockCrossmint), fn(&MockCrossmint));

/// Returns each cause under each policy in each way.
fn causes() -> impl Iterator<Item = (Cause, OutagePolicy, Way, String)> {
    let policies = [OutagePolicy::EndSession, OutagePolicy::KeepSession];
    let ways = policies.into_iter().flat_map(|policy| [Way::Layer, Way::Route, Way::Handle].map(|way| (policy, way)));
    ways.flat_map(|(policy, way)| CAUSES.map(|cause| (cause, policy, way, format!("{}, {policy:?}, {way:?}", cause.0))))
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Layer,
    Route,
    Handle,
}

impl Way {
    /// Refreshes a session. Returns the status, and the new refresh token if there is one.
    async fn refresh(self, auth: &CrossmintAuth, session: &MockSession) -> (u16, Option<String>) {
        let app = app(auth);
        let answer = match self {
            Self::Layer => get(&app, "/", &session.cookie_header()).await,
            Self::Route => post(&app, "/api/auth/refresh", &session.cookie_header()).await,
            Self::Handle => {
                return match auth.refresh(session.refresh_token()).await {
                    Ok(material) => (200, Some(material.refresh_token().secret().to_owned())),
                    Err(error) if error.kind() == AuthErrorKind::UnusableAnswer => (503, None),
                    Err(error) => panic!("{error}"),
                };
            }
        };
        assert!(answer.status == 200 || !answer.stores_a_session(), "nothing of an unusable answer is stored");
        let secret = (answer.status == 200).then(|| answer.refresh_token());
        (answer.status, secret)
    }
}

async fn with_issuer(mock: &MockCrossmint, policy: OutagePolicy) -> CrossmintAuth {
    let auth = CrossmintAuth::new(mock.config().issuer(mock.issuer()).on_outage(policy).build().unwrap());
    auth.warm_up().await.unwrap();
    auth
}

const CAUSES: [Cause; 9] = [
    ("exp in the past", |mock| mock.set_renewed_jwt_lifetime(-60), |mock| mock.set_renewed_jwt_lifetime(3600)),
    (
        "nbf in the future",
        |mock| mock.set_renewed_claim("nbf", 4_000_000_000_u64),
        |mock| mock.set_renewed_claim("nbf", Value::Null),
    ),
    (
        "another audience",
        |mock| mock.set_renewed_claim("aud", "other-project"),
        |mock| mock.set_renewed_claim("aud", mock.project_id()),
    ),
    (
        "another issuer",
        |mock| mock.set_renewed_claim("iss", "https://other.test"),
        |mock| mock.set_renewed_claim("iss", mock.issuer()),
    ),
    (
        "a JWT too large for a cookie",
        |mock| mock.set_renewed_claim("pad", "x".repeat(3000)),
        |mock| mock.set_renewed_claim("pad", Value::Null),
    ),
    (
        "a refresh token that no cookie can hold",
        |mock| mock.set_secret_suffix("; Domain=evil.test"),
        |mock| mock.set_secret_suffix(""),
    ),
    (
        "a refresh token too large for a cookie",
        |mock| mock.set_secret_suffix("x".repeat(4096)),
        |mock| mock.set_secret_suffix(""),
    ),
    ("another user", |mock| mock.set_renewed_claim("sub", "mallory"), |mock| mock.set_renewed_claim("sub", "alice")),
    (
        "no JWT",
        |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = Value::Null),
        |mock| mock.edit_refresh_answers(|_| ()),
    ),
];
