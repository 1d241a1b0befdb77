//! Crossmint fails: sessions are ended or kept, as the policy says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tower_crossmint_auth::{
    CrossmintAuth, OutagePolicy,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::{
    corpus::{bytes, cases, text},
    support::{
        answer::{Answer, ENDED, JWT, REFRESH, REFRESH_ROUTE, TRY_LATER},
        app::App,
        clock::pass,
        direct::{self, get},
        mock::{Calls, NO_CALLS, beyond, calls, expired},
    },
};

const POLICIES: [OutagePolicy; 2] = [OutagePolicy::EndSession, OutagePolicy::KeepSession];

async fn app(mock: &MockCrossmint, policy: OutagePolicy) -> App {
    let app = App::configured(mock, |config| config.on_outage(policy)).await;
    app.auth.warm_up().await.unwrap();
    app
}

/// Asserts that a session was ended or kept as the policy says after an inconclusive answer.
#[track_caller]
fn assert_inconclusive(answer: &Answer, policy: OutagePolicy, case: &str) {
    let case = format!("{policy:?}: {case}");
    if policy == OutagePolicy::EndSession {
        return answer.assert_ended(TRY_LATER, &case);
    }
    answer.assert_rejected(503, TRY_LATER, &case);
    assert_eq!(answer.json()["error"], "Service Unavailable", "{case}");
    assert_eq!((answer.header("cache-control"), answer.header("www-authenticate")), ("no-store", ""), "{case}");
    let pause: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&pause), "{case}: {pause}");
}

#[tokio::test]
async fn an_inconclusive_answer_ends_or_keeps_the_session_as_configured() {
    let mock = MockCrossmint::start().await;
    let page = |status| Fault::response(status, &[("content-type", "text/html")], r#"{"jwt":"x"}"#);
    for policy in POLICIES {
        let faults = vec![
            ("500", Fault::Status(500)),
            ("503", Fault::Status(503)),
            ("429", Fault::Status(429)),
            ("a page with 401", page(401)),
            ("a page with 403", page(403)),
            ("a page with 502", page(502)),
            ("a page with 200", page(200)),
            ("a redirect", Fault::Redirect(302, format!("{}/elsewhere", mock.base_url()))),
            ("a redirect of the POST", Fault::Redirect(307, format!("{}/elsewhere", mock.base_url()))),
            ("a reset", Fault::Reset),
            ("an answer that is lost", Fault::LoseAnswer),
            ("a reset within the body", Fault::ResetMidBody),
            ("a body that is cut off", Fault::EarlyEof),
            ("no JSON", Fault::Garbage),
            ("an array", Fault::json(200, json!(["jwt", ["secret"]]))),
            ("no body", Fault::Empty),
            ("a huge body", Fault::Huge(1 << 20)),
            ("an endless body", Fault::Endless),
            ("a compressed body", Fault::CompressedBomb),
        ];
        let app = app(&mock, policy).await;
        for (case, fault) in faults {
            let before = mock.calls(Endpoint::Refresh);
            mock.inject(Endpoint::Refresh, fault);
            let answer = app.get("/me", expired(&mock, "alice").cookie_header()).await;
            assert_inconclusive(&answer, policy, case);
            assert_eq!(mock.calls(Endpoint::Refresh), before + 1, "{case}: one call, and no retry");
            let answer = app.post(REFRESH_ROUTE, &expired(&mock, "alice").cookie_header(), "{}").await;
            assert_inconclusive(&answer, policy, &format!("{case}, at the refresh route"));
        }
        assert_eq!((mock.calls(Endpoint::Elsewhere), mock.calls(Endpoint::Logout), app.served()), (0, 0, 0));
    }
}

#[tokio::test]
async fn crossmints_answers_are_classified_as_specified() {
    // 101 is no final answer.
    for case in cases("refresh_upstream_responses.json", 51, &["101"]) {
        let id = text(&case, "id");
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        let mock = MockCrossmint::start().await;
        let auth = CrossmintAuth::new(mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap());
        auth.warm_up().await.unwrap();
        let session = expired(&mock, "user-1");
        let claims = |sub: &str, aud: &str, exp: u64| json!({"sub": sub, "aud": aud, "exp": exp});
        let sign = |aud: &str, exp| mock.sign(json!({}), claims("user-1", aud, exp));
        let forged = sign("mock-project", 4_102_444_800).replace('.', ".e");
        let tokens = [
            ("<VALID>", sign("mock-project", 4_102_444_800)),
            ("<EXPIRED>", sign("mock-project", 1)),
            ("<WRONG_AUD>", sign("another", 4_102_444_800)),
            ("<FORGED>", forged),
            ("<ALG_NONE>", mock.sign(json!({"alg": "none"}), claims("user-1", "mock-project", 4_102_444_800))),
            ("<OLD>", session.refresh_token().to_owned()),
        ];
        let (body, mut headers) = if case["body"].is_null() {
            (bytes(&case, "body_b64"), Vec::new())
        } else {
            let filled = tokens.iter().fold(case["body"].to_string(), |body, (name, token)| body.replace(name, token));
            assert!(!filled.contains('<'), "{id}: {filled}");
            (filled.into_bytes(), vec![("content-type", "application/json")])
        };
        let given = case["headers"].as_object().unwrap();
        headers.retain(|(name, _)| !given.contains_key(*name));
        headers.extend(given.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        mock.inject(Endpoint::Refresh, Fault::response(status, &headers, body));

        let answer = get(&direct::app(&auth), "/", &session.cookie_header()).await;
        let is_expected = |class: &str| match class {
            "rotated" => answer.status == 200 && answer.stores_a_session(),
            "definitive" => answer.status == 401 && answer.clears(&[JWT, REFRESH]),
            "transient" | "broken" => answer.status == 503 && answer.set_cookie().is_empty(),
            unknown => panic!("{id}: the class {unknown} is not known"),
        };
        let classes = text(&case, "class").split("_or_");
        assert_ne!(classes.filter(|class| is_expected(class)).count(), 0, "{id}: {answer:?}");
        assert_eq!((mock.calls(Endpoint::Refresh), mock.calls(Endpoint::Logout)), (1, 0), "{id}");
        assert!(answer.status == 200 || !answer.body.contains("rt-new"), "{id}");
    }
}

#[tokio::test]
async fn a_refresh_that_times_out_ends_or_keeps_the_session_as_configured() {
    let mock = MockCrossmint::start().await;
    for policy in POLICIES {
        let app = app(&mock, policy).await;
        for (case, fault) in
            [("none", Fault::Hang), ("none, after processing", Fault::HangAfterCommit), ("slowly", Fault::SlowBody)]
        {
            let before = mock.calls(Endpoint::Refresh);
            mock.inject(Endpoint::Refresh, fault);
            let answer = app.get("/me", expired(&mock, "alice").cookie_header());
            let answer = beyond(Duration::from_secs(10), &mock, Endpoint::Refresh, answer).await;
            assert_inconclusive(&answer, policy, case);
            assert_eq!(mock.calls(Endpoint::Refresh), before + 1, "{case}: one call, and no retry");
        }
    }
}

#[tokio::test]
async fn an_answer_shortly_after_the_time_limit_is_not_lost() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = direct::app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let late = beyond(Duration::from_secs(10), &mock, Endpoint::Refresh, get(&app, "/", &cookie)).await;
    assert_eq!((late.status, late.set_cookie().len()), (503, 0));
    assert_eq!(get(&app, "/", &cookie).await.status, 503, "it is not waited for any longer");
    hold.release();
    auth.wait_idle().await;
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn an_answer_with_invalid_tokens_is_inconclusive_and_not_stored() {
    let mock = MockCrossmint::start().await;
    let claims = json!({ "sub": "alice", "aud": mock.project_id(), "exp": 4_000_000_000_u64 });
    let jwt = |jwt: &str| json!({ "jwt": jwt });
    let secret = |secret: &str| json!({ "refresh": { "secret": secret } });
    let answers = [
        ("a JWT for another project", jwt(mock.session("alice").audience("other").create().jwt())),
        ("an expired JWT", jwt(expired(&mock, "alice").jwt())),
        ("an unsigned JWT", jwt(&mock.sign(json!({ "alg": "none" }), claims.clone()))),
        ("a JWT of an unknown key", jwt(&mock.sign(json!({ "kid": "unknown" }), claims))),
        ("a JWT of another user", jwt(mock.sign_in("mallory").jwt())),
        ("no JWT", jwt("x; Domain=evil.test")),
        ("no JWT", json!({ "jwt": null })),
        ("another user", json!({ "user": { "id": "mallory" } })),
        ("a secret with an attribute", secret("x; Domain=evil.test")),
        ("a secret with a header", secret("x\r\nSet-Cookie: a=b")),
        ("a secret with a foreign letter", secret("é")),
        ("a secret that is too long for a cookie", secret(&"x".repeat(4096))),
        ("an empty secret", secret("")),
        ("no secret", json!({ "refresh": {} })),
    ];
    for policy in POLICIES {
        let app = app(&mock, policy).await;
        for (case, changes) in answers.clone() {
            let before = mock.calls(Endpoint::Refresh);
            mock.edit_refresh_answers(move |answer| {
                for (name, value) in changes.as_object().unwrap() {
                    answer[name] = value.clone();
                }
            });
            let answer = app.get("/me", expired(&mock, "alice").cookie_header()).await;
            assert_inconclusive(&answer, policy, case);
            assert_eq!(mock.calls(Endpoint::Refresh), before + 1, "{case}");
        }
        assert_eq!((mock.calls(Endpoint::Logout), app.served()), (0, 0));
    }
}

#[tokio::test]
async fn a_refusal_ends_the_session_under_every_policy() {
    let mock = MockCrossmint::start().await;
    let refusal = |status, content_type| Fault::response(status, &[("content-type", content_type)], "{}");
    for policy in POLICIES {
        let app = app(&mock, policy).await;
        for (case, fault) in [
            ("400", refusal(400, "application/json")),
            ("401", refusal(401, "application/json; charset=utf-8")),
            ("401 in the form of RFC 9457", refusal(401, "application/problem+json")),
        ] {
            mock.inject(Endpoint::Refresh, fault);
            app.get("/me", expired(&mock, "alice").cookie_header()).await.assert_ended(ENDED, case);
            let answer = app.post(REFRESH_ROUTE, &expired(&mock, "alice").cookie_header(), "{}").await;
            answer.assert_ended(ENDED, &format!("{case}, at the refresh route"));
        }
    }
}

#[tokio::test]
async fn a_kept_session_is_refreshed_once_crossmint_recovers() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, OutagePolicy::KeepSession).await;
    let cookie = expired(&mock, "alice").cookie_header();
    let valid = mock.sign_in("bob").cookie_header();
    mock.set_down(true);
    for _ in 0..2 {
        assert_inconclusive(&app.get("/me", &cookie).await, OutagePolicy::KeepSession, "down");
    }
    app.get("/me", valid).await.assert_passed("bob", "a valid session does not notice");
    mock.set_down(false);
    app.get("/me", cookie).await.assert_refreshed("alice", "up");
}

#[tokio::test]
async fn retry_after_is_upstreams_within_limits() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, OutagePolicy::KeepSession).await;
    for (upstream, expected) in
        [(None, "5"), (Some("7"), "7"), (Some("0"), "1"), (Some("86400"), "60"), (Some("-3"), "5"), (Some("soon"), "5")]
    {
        let headers: Vec<_> = upstream.map(|value| ("retry-after", value)).into_iter().collect();
        for status in [503, 429] {
            mock.inject(Endpoint::Refresh, Fault::response(status, &headers, ""));
            let answer = app.get("/me", expired(&mock, "alice").cookie_header()).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, expected), "{status} with {upstream:?}");
        }
    }
    let date = Fault::response(503, &[("retry-after", "Fri, 02 Jan 2099 03:04:05 GMT")], "");
    mock.inject(Endpoint::Refresh, date);
    let answer = app.get("/me", expired(&mock, "alice").cookie_header()).await;
    assert_inconclusive(&answer, OutagePolicy::KeepSession, "a date");
}

#[tokio::test]
async fn a_token_is_not_sent_again_before_retry_after_has_passed() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, OutagePolicy::KeepSession).await;
    let cookie = expired(&mock, "alice").cookie_header();
    mock.inject_times(Endpoint::Refresh, 1, Fault::response(429, &[("retry-after", "7")], ""));
    for _ in 0..2 {
        assert_eq!(app.get("/me", &cookie).await.status, 503);
    }
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
    app.get("/me", expired(&mock, "bob").cookie_header()).await.assert_refreshed("bob", "another session");
    pass(Duration::from_secs(7)).await;
    app.get("/me", &cookie).await.assert_refreshed("alice", "then");
}

#[tokio::test]
async fn a_pair_that_cannot_be_verified_yet_is_stored_and_not_lost() {
    for (case, by_the_old_token) in [("with the stored pair", false), ("with the rotated token", true)] {
        let mock = MockCrossmint::start().await;
        let app = app(&mock, OutagePolicy::KeepSession).await;
        mock.rotate_keys();
        mock.inject(Endpoint::Keys, Fault::Status(500));
        let old = expired(&mock, "alice").cookie_header();
        let kept = app.get("/me", &old).await;
        assert!((kept.status, kept.stores_a_session()) == (503, true), "{kept:?}");
        assert_eq!(calls(&mock), Calls { keys: 2, refreshes: 1, ..NO_CALLS }, "{case}");

        mock.clear_faults();
        if by_the_old_token {
            app.get("/me", old).await.assert_refreshed("alice", case);
        } else {
            pass(Duration::from_secs(30)).await;
            app.get("/me", kept.cookie_header()).await.assert_passed("alice", case);
        }
        assert_eq!(mock.reuse_detections(), 0, "{case}");
    }
}

#[tokio::test]
async fn a_token_that_may_have_a_new_key_waits_for_it_or_is_refreshed() {
    for policy in POLICIES {
        let mock = MockCrossmint::start().await;
        let app = app(&mock, policy).await;
        mock.rotate_keys();
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2;
        let cookie = mock.session("alice").claim("iat", soon).create().cookie_header();
        let answer = app.get("/me", &cookie).await;
        if policy == OutagePolicy::KeepSession {
            assert_inconclusive(&answer, policy, "in the cooldown");
            pass(Duration::from_secs(30)).await;
            app.get("/me", &cookie).await.assert_passed("alice", "after it");
            assert_eq!(calls(&mock), Calls { keys: 2, ..NO_CALLS });
        } else {
            answer.assert_refreshed("alice", "in the cooldown");
        }
    }
}

#[tokio::test]
async fn without_a_key_set_nothing_is_refreshed() {
    for policy in POLICIES {
        let mock = MockCrossmint::start().await;
        mock.inject(Endpoint::Keys, Fault::Status(500));
        let app = App::configured(&mock, |config| config.on_outage(policy)).await;
        for (case, session) in [("valid", mock.sign_in("alice")), ("expired", expired(&mock, "alice"))] {
            assert_inconclusive(&app.get("/me", session.cookie_header()).await, policy, case);
        }
        let answer = app.post(REFRESH_ROUTE, &mock.sign_in("alice").cookie_header(), "{}").await;
        assert_inconclusive(&answer, policy, "at the refresh route");
        assert_eq!((mock.calls(Endpoint::Refresh), mock.calls(Endpoint::Logout)), (0, 0), "{policy:?}");
    }
}

#[tokio::test]
async fn an_outage_is_a_grpc_status_in_the_headers() {
    let mock = MockCrossmint::start().await;
    let app = app(&mock, OutagePolicy::KeepSession).await;
    mock.inject(Endpoint::Refresh, Fault::Status(503));
    let request = app.client.post(app.url("/pkg.Service/Call")).header("content-type", "application/grpc");
    let answer = app.send(request.header("cookie", expired(&mock, "alice").cookie_header())).await;
    assert_eq!((answer.header("grpc-status"), answer.header("grpc-message")), ("14", TRY_LATER));
    assert_eq!(answer.json()["message"], Value::from(TRY_LATER));
}
