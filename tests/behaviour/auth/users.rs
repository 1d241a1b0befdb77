//! `get_user`.

use std::{error::Error as _, time::Duration};

use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::direct::auth;

#[tokio::test]
async fn a_user_is_found_by_any_id() {
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
async fn a_user_id_with_control_characters_is_an_error() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let _ = mock.sign_in("alice");
    for id in ["al\nice", ".\t.", ".\n", "\n", "alice\u{7f}"] {
        assert!(auth.get_user(id).await.is_err(), "{id:?}");
    }
    assert_eq!((mock.calls(Endpoint::User), mock.calls(Endpoint::Elsewhere)), (0, 0));
}

#[tokio::test]
async fn a_failed_look_up_of_a_user_is_an_error_with_its_cause() {
    struct Row {
        name: &'static str,
        fault: Option<Fault>,
        kind: AuthErrorKind,
        cause: &'static str,
    }
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().refresh_timeout(Duration::from_secs(1)).build().unwrap());
    let cases = [
        Row { name: "unknown", fault: None, kind: AuthErrorKind::UserUnavailable, cause: "404" },
        Row {
            name: "no scope",
            fault: Some(Fault::Status(403)),
            kind: AuthErrorKind::UserUnavailable,
            cause: "users.read",
        },
        Row {
            name: "a geo block",
            fault: Some(Fault::StatusHtml(403)),
            kind: AuthErrorKind::Unavailable,
            cause: "403",
        },
        Row { name: "an outage", fault: Some(Fault::Status(500)), kind: AuthErrorKind::Unavailable, cause: "500" },
        Row { name: "garbage", fault: Some(Fault::Garbage), kind: AuthErrorKind::UnusableAnswer, cause: "members" },
        Row {
            name: "no id",
            fault: Some(Fault::json(200, json!({"email": "x"}))),
            kind: AuthErrorKind::UnusableAnswer,
            cause: "members",
        },
        Row {
            name: "a redirect",
            fault: Some(Fault::Redirect(302, "/x".into())),
            kind: AuthErrorKind::Unavailable,
            cause: "302",
        },
        Row {
            name: "a hang",
            fault: Some(Fault::Hang),
            kind: AuthErrorKind::Unavailable,
            cause: "error sending request",
        },
    ];
    for Row { name, fault, kind, cause } in cases {
        mock.clear_faults();
        fault.into_iter().for_each(|fault| mock.inject(Endpoint::User, fault));
        let error = auth.get_user("unknown").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}");
        assert!(error.source().unwrap().to_string().contains(cause), "{name}: {:?}", error.source());
    }
    assert_eq!(mock.calls(Endpoint::Elsewhere), 0);
}

#[tokio::test]
async fn an_unknown_user_is_not_reported_as_an_ended_session() {
    let mock = MockCrossmint::start().await;
    let error = auth(&mock).get_user("unknown").await.unwrap_err();
    assert_eq!(error.kind(), AuthErrorKind::UserUnavailable);
}

#[tokio::test]
async fn a_user_prints_no_more_than_the_id() {
    let mock = MockCrossmint::start().await;
    mock.set_user(json!({ "id": "alice", "email": "alice@example.com", "phoneNumber": "+41791234567" }));
    let auth = auth(&mock);
    let material = auth.refresh(&mock.one_time_secret("alice")).await.unwrap();
    assert_eq!(material.user().unwrap().email.as_deref(), Some("alice@example.com"));
    let printed = format!("{material:?} {:?}", auth.get_user("alice").await.unwrap());
    assert!(printed.contains("alice") && !printed.contains("@example") && !printed.contains("+4179"), "{printed}");
}
