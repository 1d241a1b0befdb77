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
        ("another audience", |mock| mock.set_refreshed_claim("aud", "other-project")),
        ("no audience", |mock| mock.set_refreshed_claim("aud", Value::Null)),
        ("no exp", |mock| mock.set_refreshed_claim("exp", Value::Null)),
        ("another user", |mock| mock.set_refreshed_claim("sub", "mallory")),
        ("expired", |mock| mock.set_refreshed_jwt_lifetime(-60)),
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
    for case in Case::all() {
        let (name, Case { cause, policy, way }) = (case.name(), case);
        let auth = with_issuer(&mock, policy).await;
        let alice = expired(&mock, "alice");
        let before = mock.calls(Endpoint::Refresh);
        (cause.apply)(&mock);
        let unavailable = if policy == OutagePolicy::KeepSession || matches!(way, Way::Handle) { 503 } else { 401 };
        for attempt in 1..=3 {
            assert_eq!(way.refresh(&auth, &alice).await, (unavailable, None), "{name}");
            assert_eq!(way.refresh(&auth, &alice).await, (unavailable, None), "{name}, in the pause");
            assert_eq!(mock.calls(Endpoint::Refresh), before + attempt, "{name}");
            pass(Duration::from_secs(1 << (attempt - 1))).await;
        }
        (cause.undo)(&mock);
        let (status, token) = way.refresh(&auth, &alice).await;
        assert_eq!((status, mock.reuse_detections()), (200, 0), "{name}");
        assert!(mock.is_live(&token.unwrap()), "{name}");
        assert_eq!(mock.calls(Endpoint::Refresh), before + 4, "{name}");
    }
}

#[tokio::test]
async fn a_logout_after_an_unusable_answer_revokes_the_successor() {
    let mock = MockCrossmint::start().await;
    for case in Case::all() {
        let (name, Case { cause, policy, way }) = (case.name(), case);
        let auth = with_issuer(&mock, policy).await;
        let alice = expired(&mock, "alice");
        let before = mock.live_sessions();
        (cause.apply)(&mock);
        way.refresh(&auth, &alice).await;
        (cause.undo)(&mock);
        assert_eq!(post(&app(&auth), "/api/auth/logout", &alice.cookie_header()).await.status, 200, "{name}");
        let revoked = mock.requests(Endpoint::Logout).pop().unwrap().json().unwrap();
        assert_ne!(revoked["refresh"], alice.refresh_token(), "{name}: the successor is live");
        assert_eq!(mock.live_sessions(), before - 1, "{name}");
        pass(Duration::from_secs(1)).await;
        assert_eq!(get(&app(&auth), "/", &alice.cookie_header()).await.status, 401, "{name}");
        assert_eq!(mock.reuse_detections(), 0, "{name}");
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
#[derive(Clone, Copy)]
struct Cause {
    name: &'static str,
    apply: fn(&MockCrossmint),
    undo: fn(&MockCrossmint),
}

/// A cause, the policy, and the way in which the session is refreshed.
struct Case {
    cause: Cause,
    policy: OutagePolicy,
    way: Way,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let policies = [OutagePolicy::EndSession, OutagePolicy::KeepSession];
        let ways = [Way::Layer, Way::Route, Way::Handle];
        policies.into_iter().flat_map(move |policy| {
            ways.into_iter().flat_map(move |way| CAUSES.map(|cause| Self { cause, policy, way }))
        })
    }

    fn name(&self) -> String {
        format!("{}, {:?}, {:?}", self.cause.name, self.policy, self.way)
    }
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
    Cause {
        name: "exp in the past",
        apply: |mock| mock.set_refreshed_jwt_lifetime(-60),
        undo: |mock| mock.set_refreshed_jwt_lifetime(3600),
    },
    Cause {
        name: "nbf in the future",
        apply: |mock| mock.set_refreshed_claim("nbf", 4_000_000_000_u64),
        undo: |mock| mock.set_refreshed_claim("nbf", Value::Null),
    },
    Cause {
        name: "another audience",
        apply: |mock| mock.set_refreshed_claim("aud", "other-project"),
        undo: |mock| mock.set_refreshed_claim("aud", mock.project_id()),
    },
    Cause {
        name: "another issuer",
        apply: |mock| mock.set_refreshed_claim("iss", "https://other.test"),
        undo: |mock| mock.set_refreshed_claim("iss", mock.issuer()),
    },
    Cause {
        name: "a JWT too large for a cookie",
        apply: |mock| mock.set_refreshed_claim("pad", "x".repeat(3000)),
        undo: |mock| mock.set_refreshed_claim("pad", Value::Null),
    },
    Cause {
        name: "a refresh token that no cookie can hold",
        apply: |mock| mock.set_secret_suffix("; Domain=evil.test"),
        undo: |mock| mock.set_secret_suffix(""),
    },
    Cause {
        name: "a refresh token too large for a cookie",
        apply: |mock| mock.set_secret_suffix("x".repeat(4096)),
        undo: |mock| mock.set_secret_suffix(""),
    },
    Cause {
        name: "another user",
        apply: |mock| mock.set_refreshed_claim("sub", "mallory"),
        undo: |mock| mock.set_refreshed_claim("sub", "alice"),
    },
    Cause {
        name: "no JWT",
        apply: |mock| mock.edit_refresh_answers(|answer| answer["jwt"] = Value::Null),
        undo: |mock| mock.edit_refresh_answers(|_| ()),
    },
];
