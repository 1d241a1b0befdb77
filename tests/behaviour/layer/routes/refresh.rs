//! The refresh route.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::Method,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};
use tower_crossmint_auth::testing::{Endpoint, Fault, MockCrossmint};

use crate::{
    corpus::{bytes, cases, text},
    layer::routes::{Invalid, assert_signed_in},
    support::{
        answer::{Answer, ENDED, JWT, REFRESH, REFRESH_ROUTE},
        app::App,
        direct::{app, auth, request, send},
        mock::{Calls, NO_CALLS, calls, expired},
    },
};

#[tokio::test]
async fn the_answer_is_what_the_browser_sdk_reads() {
    let mock = MockCrossmint::start().await;
    mock.edit_refresh_answers(|answer| answer["refresh"]["expiresAt"] = "2099-01-02T03:04:05.678Z".into());
    let mut user = json!({ "id": "alice", "email": "alice@example.test", "phoneNumber": "+100", "new": [{ "x": 1 }] });
    user["twitter"] = json!({ "username": "al", "id": "7" });
    mock.set_user(user);
    let app = App::serve(&mock).await;
    let alice = mock.sign_in("alice");
    let answer = app.post(REFRESH_ROUTE, &alice.cookie_header(), "{}").await;
    let stored = answer.set_cookie();
    let expected = format!(
        concat!(
            r#"{{"jwt":"{}","refreshToken":{{"secret":"{}","expiresAt":"2099-01-02T03:04:05.678Z"}},"#,
            r#""user":{{"id":"alice","email":"alice@example.test","phoneNumber":"+100","#,
            r#""twitter":{{"username":"al","id":"7"}},"new":[{{"x":1}}]}}}}"#,
        ),
        stored[0].value(),
        stored[1].value(),
    );
    assert_eq!((answer.status, &answer.body), (200, &expected));
    assert!(answer.stores_a_session() && stored[1].value() != alice.refresh_token());
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("vary", "cookie"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert_eq!((calls(&mock), app.served()), (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 0));
    app.get("/me", answer.cookie_header()).await.assert_passed("alice", "with the new cookies");
}

#[tokio::test]
async fn a_missing_user_is_taken_from_the_jwt() {
    let mock = MockCrossmint::start().await;
    mock.edit_refresh_answers(|answer| answer["user"] = json!(null));
    let app = App::serve(&mock).await;
    let answer = app.post(REFRESH_ROUTE, &mock.sign_in("alice").cookie_header(), "{}").await;
    assert_eq!(answer.json()["user"], json!({ "id": "alice" }));
}

#[tokio::test]
async fn an_unexpected_profile_does_not_fail_the_refresh() {
    let cases = [
        ("half an account", json!({"twitter": {"username": "x"}})),
        ("a numeric ID of an account", json!({"twitter": {"username": "x", "id": 5}})),
        ("an object for an address", json!({"email": {"address": "a@example.com"}})),
        ("no address", json!({"email": null})),
        ("more than is known", json!({"farcaster": {"fid": 1}})),
    ];
    for (case, profile) in cases {
        let mock = MockCrossmint::start().await;
        let app = App::serve(&mock).await;
        let members = profile.clone();
        mock.edit_refresh_answers(move |answer| {
            answer["user"].as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        });
        let answer = app.post("/api/auth/refresh", &expired(&mock, "alice").cookie_header(), "{}").await;
        assert_eq!(answer.status, 200, "{case}");
        for (member, value) in profile.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
            assert_eq!(&answer.json()["user"][member], value, "{case}");
        }
    }
}

#[tokio::test]
async fn the_secret_is_in_the_body_only_if_it_may_be_exposed() {
    let mock = MockCrossmint::start().await;
    for (expose, names) in [(true, &["expiresAt", "secret"][..]), (false, &["expiresAt"])] {
        let app = App::configured(&mock, |config| config.expose_refresh_secret(expose)).await;
        let answer = app.post(REFRESH_ROUTE, &mock.sign_in("alice").cookie_header(), "{}").await;
        assert_signed_in(&answer, "alice", "");
        let token = answer.json()["refreshToken"].clone();
        assert!(token.as_object().unwrap().keys().eq(names), "{expose}: {token}");
        assert!(token["expiresAt"].as_str().is_some_and(|date| date.starts_with("20")), "{expose}: {token}");
        assert_eq!(answer.body.contains(answer.set_cookie()[1].value()), expose);
    }
}

#[tokio::test]
async fn the_token_in_the_body_wins_over_the_cookie() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let (alice, bob) = (mock.sign_in("alice"), mock.sign_in("bob"));
    let answer = app.post(REFRESH_ROUTE, &alice.cookie_header(), &body_with(bob.refresh_token())).await;
    assert_signed_in(&answer, "bob", "beside a cookie");
    assert_eq!(mock.requests(Endpoint::Refresh)[0].json(), Some(json!({ "refresh": bob.refresh_token() })));
    assert!(mock.is_live(alice.refresh_token()), "the cookie's token is not sent");

    let carol = mock.sign_in("carol");
    let ambiguous = format!("{}; {REFRESH}=x", alice.cookie_header());
    let answer = app.post(REFRESH_ROUTE, &ambiguous, &body_with(carol.refresh_token())).await;
    assert_signed_in(&answer, "carol", "beside two cookies");
}

#[tokio::test]
async fn a_one_time_secret_in_the_body_signs_in() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let answer = app.post(REFRESH_ROUTE, "", &body_with(&mock.one_time_secret("alice"))).await;
    assert_signed_in(&answer, "alice", "");
    app.get("/me", answer.cookie_header()).await.assert_passed("alice", "with the new cookies");
    assert_eq!((calls(&mock), mock.live_sessions()), (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 1));
}

#[tokio::test]
async fn without_a_token_in_the_body_the_cookie_is_used() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for body in ["{}", r#"{"refresh":null}"#, r#" { "other": [1] } "#, "", " \r\n"] {
        assert_signed_in(&app.post(REFRESH_ROUTE, &mock.sign_in("alice").cookie_header(), body).await, "alice", body);
    }
    let bare = app.request(Method::POST, REFRESH_ROUTE).header("cookie", mock.sign_in("alice").cookie_header());
    assert_signed_in(&app.send(bare).await, "alice", "neither a body nor a content type");
    let unscoped = mock.sign_in("alice").legacy_cookie_header();
    assert_signed_in(&app.post(REFRESH_ROUTE, &unscoped, "{}").await, "alice", "an unscoped cookie");
    let limit = format!("{{{}}}", " ".repeat((16 << 10) - 2));
    assert_signed_in(
        &app.post(REFRESH_ROUTE, &mock.sign_in("alice").cookie_header(), &limit).await,
        "alice",
        "exactly 16 KiB",
    );
}

#[tokio::test]
async fn the_message_says_that_there_is_no_refresh_token() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let jwt = format!("{JWT}={}", mock.sign_in("alice").jwt());
    for (case, cookie, body) in [
        ("no cookie, no body", "", ""),
        ("no cookie, an empty object", "", "{}"),
        ("no cookie, null", "", r#"{"refresh":null}"#),
        ("a foreign cookie", "theme=dark", "{}"),
        ("a JWT", &jwt, "{}"),
    ] {
        app.post(REFRESH_ROUTE, cookie, body).await.assert_ended(NO_TOKEN, case);
    }
    assert_eq!((calls(&mock), app.served()), (NO_CALLS, 0));
}

#[tokio::test]
async fn a_token_that_crossmint_refuses_ends_the_session() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let alice = mock.sign_in("alice");
    mock.revoke(alice.refresh_token());
    app.post(REFRESH_ROUTE, &alice.cookie_header(), "{}").await.assert_ended(ENDED, "in a cookie");
    app.post(REFRESH_ROUTE, "", &body_with("unknown")).await.assert_ended(ENDED, "in the body");
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 2, ..NO_CALLS });
    let ambiguous = format!("{}; {REFRESH}=x", mock.sign_in("bob").cookie_header());
    app.post(REFRESH_ROUTE, &ambiguous, "{}").await.assert_ended(ENDED, "two tokens in cookies");
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 2, ..NO_CALLS }, "neither is sent");
}

#[tokio::test]
async fn an_invalid_body_is_rejected_and_the_cookie_is_not_used_instead() {
    let invalid = Invalid::new().await;
    let long = body_with(&"x".repeat(4097));
    let cases: &[(&str, &[u8])] = &[
        ("a number", br#"{"refresh":5}"#),
        ("true", br#"{"refresh":true}"#),
        ("an object", br#"{"refresh":{}}"#),
        ("an array of it", br#"{"refresh":["x"]}"#),
        ("an array", br#"["x"]"#),
        ("a text", br#""x""#),
        ("null itself", b"null"),
        ("cut off", br#"{"refresh":"x"#),
        ("more behind it", br#"{"refresh":"x"}{}"#),
        ("two tokens", br#"{"refresh":"x","refresh":"y"}"#),
        ("no UTF-8", b"{\"refresh\":\"\xff\"}"),
        ("no JSON", b"refresh=x"),
        ("an empty token", br#"{"refresh":""}"#),
        ("a token with a line break", br#"{"refresh":"a\r\nb"}"#),
        ("a token that no cookie can hold", long.as_bytes()),
    ];
    for (case, body) in cases {
        invalid.post(Some("application/json"), body, 400, INVALID, case).await;
    }
}

#[tokio::test]
async fn a_token_in_another_content_type_is_rejected() {
    let invalid = Invalid::new().await;
    let token = body_with(invalid.mock.sign_in("alice").refresh_token());
    for (case, content_type) in [
        ("none", None),
        ("a text", Some("text/plain")),
        ("a text that tries", Some("text/plain; application/json")),
        ("another JSON", Some("text/json")),
        ("a longer type", Some("application/jsonx")),
        ("a form", Some("application/x-www-form-urlencoded")),
        ("a multipart form", Some("multipart/form-data; boundary=x")),
    ] {
        invalid.post(content_type, token.as_bytes(), 415, WRONG_TYPE, case).await;
    }
}

#[tokio::test]
async fn refresh_bodies_are_tokens_or_rejected() {
    for case in cases("refresh_bodies.json", 27, &[]) {
        let id = text(&case, "id");
        let mock = MockCrossmint::start().await;
        let cookie = case["cookie_refresh"].as_str().map_or_else(String::new, |token| format!("{REFRESH}={token}"));
        let mut request: Request = request(Method::POST, REFRESH_ROUTE, &cookie);
        request.headers_mut().insert("content-type", text(&case, "content_type").parse().unwrap());
        *request.body_mut() = bytes(&case, "body_b64").into();
        let answer = send(&app(&auth(&mock)), request).await;
        let sent: Vec<Value> =
            mock.requests(Endpoint::Refresh).iter().map(|call| call.json().unwrap()["refresh"].take()).collect();
        let is_expected = |(member, value): (&String, &Value)| match (member.as_str(), value) {
            ("upstream", Value::Null) => sent.is_empty(),
            ("upstream", token) => sent == [token.clone()],
            ("status", Value::Array(any)) => any.contains(&answer.status.into()),
            ("status", status) => *status == answer.status,
            ("cookies", kept) if kept == "kept" => answer.set_cookie().is_empty(),
            unknown => panic!("{id}: the expectation {unknown:?} is not known"),
        };
        let outcomes = match &case["expect"]["either"] {
            Value::Array(any) => any.as_slice(),
            _ => std::slice::from_ref(&case["expect"]),
        };
        // Every member is checked, so that an unknown one is an error.
        let faults = |outcome: &Value| outcome.as_object().unwrap().iter().filter(|part| !is_expected(*part)).count();
        let faults: Vec<usize> = outcomes.iter().map(faults).collect();
        assert!(faults.contains(&0), "{id}: {answer:?}, {sent:?}");
    }
}

#[tokio::test]
async fn a_body_of_more_than_sixteen_kilobytes_is_rejected() {
    let invalid = Invalid::new().await;
    let body = format!("{{{}}}", " ".repeat((16 << 10) - 1));
    invalid.post(Some("application/json"), body.as_bytes(), 413, TOO_LARGE, "one byte more").await;
}

#[tokio::test]
async fn the_content_type_may_have_parameters_and_any_case() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json ;charset=utf-8"] {
        let request = app.request(Method::POST, REFRESH_ROUTE).header("content-type", content_type);
        let answer = app.send(request.body(body_with(&mock.one_time_secret("alice")))).await;
        assert_signed_in(&answer, "alice", content_type);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_limited_to_five_seconds_and_sixteen_kilobytes() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let by_the_second = |pieces: usize| {
        stream::unfold(0, move |sent| async move {
            sleep(Duration::from_secs(1)).await;
            (sent < pieces).then_some((Ok("["), sent + 1))
        })
    };
    let start = Instant::now();
    let never = post_stream(&app, stream::pending()).await;
    never.assert_rejected(408, TOO_SLOW, "a body that does not come");
    assert_eq!(start.elapsed().as_secs(), 5);
    let slow = post_stream(&app, by_the_second(1000)).await;
    slow.assert_rejected(408, TOO_SLOW, "a body that comes byte by byte");
    assert_eq!(start.elapsed().as_secs(), 10);
    let in_time = post_stream(&app, by_the_second(3)).await;
    in_time.assert_rejected(400, INVALID, "a body that takes four seconds");
    let endless = post_stream(&app, stream::repeat(Ok("      "))).await;
    endless.assert_rejected(413, TOO_LARGE, "a body without end");
    let broken = post_stream(&app, stream::iter([Ok("{"), Err("gone")])).await;
    broken.assert_rejected(400, INVALID, "a body that breaks off");
    assert_eq!(calls(&mock), NO_CALLS);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_unless_it_is_rejected_at_once() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let body = body_with(&mock.one_time_secret("alice"));
    for (case, more, expected) in [
        ("accepted", "", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("refused", "sec-fetch-site: cross-site\r\n", "HTTP/1.1 403 Forbidden\r\n"),
    ] {
        let mut connection = TcpStream::connect(app.address).await.unwrap();
        let head = format!("POST {REFRESH_ROUTE} HTTP/1.1\r\nhost: app\r\ncontent-type: application/json\r\n{more}");
        let head = format!("{head}connection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut first = vec![0; expected.len()];
        connection.read_exact(&mut first).await.unwrap();
        assert_eq!(String::from_utf8(first).unwrap(), expected, "{case}");
        if case == "accepted" {
            connection.write_all(body.as_bytes()).await.unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""id":"alice""#), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_declared_length_above_the_limit_is_rejected_before_the_body_arrives() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let mut connection = TcpStream::connect(app.address).await.unwrap();
    let head = format!("POST {REFRESH_ROUTE} HTTP/1.1\r\nhost: app\r\ncontent-length: {}\r\n\r\n", (16 << 10) + 1);
    connection.write_all(head.as_bytes()).await.unwrap();
    let expected = "HTTP/1.1 413 Payload Too Large\r\n";
    let mut first = vec![0; expected.len()];
    connection.read_exact(&mut first).await.unwrap();
    assert_eq!(String::from_utf8(first).unwrap(), expected);
}

#[tokio::test]
async fn a_one_time_secret_can_be_sent_again_after_an_outage() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let body = body_with(&mock.one_time_secret("alice"));
    mock.inject_times(Endpoint::Refresh, 1, Fault::Status(503));
    assert_eq!(app.post(REFRESH_ROUTE, "", &body).await.status, 401);
    assert_signed_in(&app.post(REFRESH_ROUTE, "", &body).await, "alice", "the second time");
}

fn body_with(secret: &str) -> String {
    json!({ "refresh": secret }).to_string()
}

/// Posts a body in pieces, without a connection: I/O does not work with a paused clock.
async fn post_stream(
    app: &App,
    body: impl stream::Stream<Item = Result<&'static str, &'static str>> + Send + 'static,
) -> Answer {
    let request = Request::post(REFRESH_ROUTE).header("content-type", "application/json");
    let request = request.header("cookie", format!("{REFRESH}=x")).body(Body::from_stream(body)).unwrap();
    let (head, body) = app.call(request).await.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    Answer { status: head.status.as_u16(), headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

const NO_TOKEN: &str = "Please provide a refresh token either in the request body or cookies";
const INVALID: &str = "The body must be a JSON object whose `refresh` is a string, or empty";
const TOO_LARGE: &str = "The body must not be larger than 16 KiB";
const TOO_SLOW: &str = "The body did not arrive in time";
const WRONG_TYPE: &str = "A refresh token in the body needs the content type application/json";
