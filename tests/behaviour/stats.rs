//! Counters and events.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use tower_crossmint_auth::{
    AuthErrorKind, CrossmintAuth,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::{Instrument as _, Level};

use crate::support::{
    answer::LOGOUT_ROUTE,
    clock::pass,
    direct::{app, auth, get, post},
    events::{Events, JsonLog},
    mock::expired,
};

#[tokio::test]
async fn the_counters_count_what_was_done() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    mock.inject_times(Endpoint::Keys, 1, Fault::Status(500));
    auth.warm_up().await.unwrap_err();
    pass(Duration::from_secs(1)).await;

    let alice = mock.sign_in("alice").cookie_header();
    for _ in 0..3 {
        assert_eq!(get(&app, "/", &alice).await.status, 200);
    }
    let bob = expired(&mock, "bob").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let four = join_all((0..4).map(|_| get(&app, "/", &bob)));
    let release = async {
        mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    tokio::join!(four, release);
    get(&app, "/", &bob).await;
    get(&app, "/", "").await;
    get(&app, "/", "").await;
    get(&app, "/api/auth/refresh", &alice).await;
    mock.inject(Endpoint::Refresh, Fault::Status(401));
    get(&app, "/", &expired(&mock, "carol").cookie_header()).await;

    let stats = auth.stats();
    assert_eq!((stats.cache_hits, stats.verifications), (2, 2), "alice twice; alice and bob, once each");
    assert_eq!((stats.reloads, stats.failed_reloads), (1, 1));
    assert_eq!((stats.refreshes, stats.joined, stats.grace_hits), (2, 3, 1));
    let refusals: HashMap<AuthErrorKind, u64> = stats.rejections().filter(|(_, count)| *count > 0).collect();
    let expected =
        [(AuthErrorKind::MissingCredentials, 2), (AuthErrorKind::MethodNotAllowed, 1), (AuthErrorKind::Refused, 1)];
    assert_eq!(refusals, HashMap::from(expected));
}

#[tokio::test]
async fn events_tell_what_happened() {
    let events = Events::capture(Level::TRACE);
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    mock.inject_times(Endpoint::Keys, 1, Fault::Status(500));
    auth.warm_up().await.unwrap_err();
    pass(Duration::from_secs(1)).await;
    auth.warm_up().await.unwrap();

    let alice = expired(&mock, "alice");
    let hold = mock.hold(Endpoint::Refresh);
    let cookie = alice.cookie_header();
    let both = join_all((0..2).map(|_| get(&app, "/", &cookie)));
    let release = async {
        mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    tokio::join!(both, release);
    post(&app, LOGOUT_ROUTE, &alice.cookie_header()).await;

    let bob = expired(&mock, "bob");
    mock.revoke(bob.refresh_token());
    get(&app, "/", &bob.cookie_header()).await;
    mock.inject(Endpoint::Refresh, Fault::Garbage);
    for user in ["carol", "dave"] {
        get(&app, "/", &expired(&mock, user).cookie_header()).await;
    }
    assert_eq!(
        events.texts(),
        [
            r#"WARN could not load the key set kind="unavailable""#,
            "DEBUG loaded the key set keys=1",
            "TRACE joined a refresh",
            "DEBUG refreshed a session",
            r#"DEBUG a session has ended reason="logout""#,
            r#"DEBUG a session has ended reason="refused""#,
            r#"ERROR could not refresh a session kind="unusable_answer""#,
            r#"DEBUG could not refresh a session kind="unusable_answer""#,
        ]
    );
}

#[tokio::test]
async fn an_outage_is_logged_once_a_minute() {
    let events = Events::capture(Level::WARN);
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    mock.set_down(true);
    for minute in 1..=3 {
        for _ in 0..3 {
            auth.warm_up().await.unwrap_err();
            pass(Duration::from_secs(20)).await;
        }
        let lines = events.texts();
        assert_eq!(lines.len(), minute, "{lines:?}");
    }
    assert!(auth.stats().failed_reloads > 3);
}

#[tokio::test]
async fn a_run_of_refusals_logs_a_warning_that_names_the_api_key() {
    let events = Events::capture(Level::WARN);
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().refusal_warning(3).build().unwrap());
    let app = app(&auth);
    let bob = expired(&mock, "bob").cookie_header();
    mock.inject_times(Endpoint::Refresh, 2, Fault::Status(401));
    for user in ["alice", "carol"] {
        get(&app, "/", &expired(&mock, user).cookie_header()).await;
    }
    assert_eq!(get(&app, "/", &bob).await.status, 200, "this ends the run");
    mock.inject(Endpoint::Refresh, Fault::Status(401));
    let again = expired(&mock, "dave").cookie_header();
    for _ in 0..3 {
        get(&app, "/", &again).await;
        pass(Duration::from_secs(30)).await;
    }
    get(&app, "/", &expired(&mock, "erin").cookie_header()).await;
    assert_eq!((events.texts().len(), auth.stats().refusal_runs), (0, 0), "one token counts once");
    for number in 0..7 {
        get(&app, "/", &expired(&mock, &number.to_string()).cookie_header()).await;
    }
    let lines = events.texts();
    assert!(lines.len() == 1 && lines[0].starts_with("WARN") && lines[0].contains("API key"), "{lines:?}");
    assert_eq!(auth.stats().refusal_runs, 3, "each is counted");
    pass(Duration::from_secs(60)).await;
    for number in 0..3 {
        get(&app, "/", &expired(&mock, &number.to_string()).cookie_header()).await;
    }
    assert_eq!(events.texts().len(), 2, "one line a minute");
}

#[tokio::test]
async fn a_json_log_holds_the_whole_cause_of_an_error_in_one_field() {
    let (log, _guard) = JsonLog::capture();
    let mock = MockCrossmint::start().await;
    let limit = Duration::from_secs(3);
    let config = mock.config().keys_timeout(limit).refresh_timeout(limit).logout_timeout(limit);
    let auth = CrossmintAuth::new(config.build().unwrap());
    let unavailable = |why: &str| format!("Crossmint is unavailable: {why}");
    let unusable = |why: &str| format!("Crossmint's answer is not usable: {why}");
    let page = Fault::response(200, &[("content-type", "text/html")], "<h1>token</h1>");
    let faults = [
        (Fault::Status(500), unavailable("Crossmint answered 500 Internal Server Error")),
        (Fault::StatusHtml(403), unavailable("Crossmint answered 403 Forbidden with something other than JSON")),
        (Fault::Status(429), "Crossmint limits the rate of requests: Crossmint answered 429 Too Many Requests".into()),
        (Fault::Reset, unavailable("error sending request: client error (SendRequest): ")),
        (Fault::ResetMidBody, unavailable("error decoding response body: ")),
        (Fault::Hang, unavailable("error sending request: operation timed out")),
        (page, unusable("")),
    ];
    for (endpoint, event) in [
        (Endpoint::Keys, "could not load the key set"),
        (Endpoint::Refresh, "could not refresh a session"),
        (Endpoint::Logout, "could not revoke a session at Crossmint"),
    ] {
        for (fault, expected) in &faults {
            // A logout needs no body.
            if endpoint == Endpoint::Logout && matches!(fault, Fault::ResetMidBody | Fault::Response { .. }) {
                continue;
            }
            let (session, case) = (expired(&mock, "alice"), format!("{endpoint:?}: {fault:?}"));
            let (app, cookie, before) = (app(&auth), session.cookie_header(), log.lines().len());
            mock.inject(endpoint, fault.clone());
            let call = mock.calls(endpoint) + 1;
            let request = async {
                match endpoint {
                    Endpoint::Keys => auth.warm_up().await.map_err(drop).unwrap_err(),
                    Endpoint::Refresh => assert_eq!(get(&app, "/", &cookie).await.status, 401, "{case}"),
                    _ => assert_eq!(post(&app, LOGOUT_ROUTE, &cookie).await.status, 200, "{case}"),
                }
                auth.wait_idle().await;
            };
            let clock = async {
                mock.called(endpoint, call).await;
                if *fault == Fault::Hang {
                    pass(limit + limit / 2).await;
                }
            };
            tokio::join!(request, clock);
            let lines = log.lines().split_off(before);
            let found: Vec<_> = lines.iter().filter(|line| line["fields"]["message"] == event).collect();
            let [line] = found[..] else { panic!("{case}: {lines:?}") };
            let error = line["fields"]["error"].as_str().unwrap();
            assert!(error.starts_with(expected), "{case}: {error}");
            assert!(!error.contains("token") && !error.contains("://"), "{case}: {error}");
            let text = format!("{lines:?}");
            assert!(!text.contains(session.refresh_token()) && !text.contains(session.jwt()), "{case}: {text}");
            // Attempts to load the key set, and log lines, are throttled.
            pass(Duration::from_secs(60)).await;
        }
        mock.clear_faults();
        auth.warm_up().await.unwrap();
    }
}

#[tokio::test]
async fn a_span_belongs_to_its_request_and_tells_of_a_time_out() {
    let (log, _guard) = JsonLog::capture();
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let (app, cookie) = (app(&auth), expired(&mock, "alice").cookie_header());
    let request = tracing::info_span!("request");
    get(&app, "/", &cookie).instrument(request.clone()).await;
    mock.inject(Endpoint::Logout, Fault::Hang);
    let clock = async {
        mock.called(Endpoint::Logout, 1).await;
        pass(Duration::from_secs(2)).await;
    };
    tokio::join!(post(&app, LOGOUT_ROUTE, &cookie).instrument(request), clock);
    auth.wait_idle().await;
    let spans = log.ended_spans();
    let told = spans.iter().map(|(names, span)| {
        let is_inner = names[..] == ["request"];
        (is_inner, span["url.template"].as_str().unwrap().rsplit('/').next().unwrap(), span["error.type"].as_str())
    });
    let told: Vec<_> = told.collect();
    let expected = [(false, "jwks.json", None), (true, "refresh", None), (true, "logout", Some("timeout"))];
    assert_eq!(told, expected, "{spans:?}");
}

#[tokio::test]
async fn a_call_to_crossmint_has_a_span_without_secrets() {
    let events = Events::capture(Level::DEBUG);
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let alice = expired(&mock, "alice");
    mock.inject(Endpoint::Logout, Fault::Status(500));
    get(&app(&auth), "/", &alice.cookie_header()).await;
    auth.get_user("a user with a secret ID").await.unwrap_err();
    post(&app(&auth), LOGOUT_ROUTE, &alice.cookie_header()).await;
    let port = mock.base_url().rsplit(':').next().unwrap();
    let spans: Vec<_> = events.spans().into_iter().filter(|span| !span.is_empty()).collect();
    let span = |method: &str, path: &str, rest: &str| {
        format!(
            " otel.name={method} {path} otel.kind=\"client\" http.request.method=\"{method}\" url.template=\"{path}\" \
             server.address=\"127.0.0.1\" server.port={port} {rest}"
        )
    };
    let not_found = r#"http.response.status_code=404 error.type="404" otel.status_code="ERROR""#;
    let failed = r#"http.response.status_code=500 error.type="500" otel.status_code="ERROR""#;
    assert_eq!(
        spans,
        [
            span("GET", "/.well-known/jwks.json", "http.response.status_code=200"),
            span("POST", "/api/2024-09-26/session/sdk/auth/refresh", "http.response.status_code=200"),
            span("GET", "/api/2024-09-26/sdk/auth/user/{user}", not_found),
            span("POST", "/api/2024-09-26/session/sdk/auth/logout", failed),
        ]
    );
}

#[tokio::test]
async fn counters_have_the_names_of_the_metrics() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    get(&app, "/", &expired(&mock, "alice").cookie_header()).await;
    get(&app, "/", "").await;
    let stats = auth.stats();
    let counters: HashMap<&str, u64> = stats.counters().collect();
    assert_eq!(counters["crossmint_auth_refreshes_total"], 1);
    assert_eq!(counters["crossmint_auth_refreshes_succeeded_total"], 1);
    assert_eq!(counters["crossmint_auth_refreshes_failed_total"], 0);
    let printed = format!("{stats:?}");
    assert!(printed.contains(r#""missing_credentials": 1"#) && !printed.contains("refused"), "{printed}");
}
