//! The responses to rejected requests.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::Method,
};
use serde_json::{Value, json};
use tower_crossmint_auth::{
    AuthError, AuthErrorKind, Credentials, CrossmintAuth, Session, Unauthenticated,
    testing::{Endpoint, Fault, MockCrossmint},
};

use crate::support::{
    answer::{Answer, ENDED, JWT, LOGOUT_ROUTE, REFRESH, REFRESH_ROUTE, SIGN_IN, TRY_LATER, unauthorized},
    app::App,
    direct::{app, auth, get, post},
    mock::{NO_CALLS, calls, expired},
};

#[tokio::test]
async fn a_rejection_is_json_that_is_neither_cached_nor_sniffed() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let answer = app.get("/me", "").await;
    let cleared = "SameSite=Lax; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    let headers = [
        ("cache-control", "no-store"),
        ("content-length", "51"),
        ("content-type", "application/json"),
        ("set-cookie", &format!("{JWT}=; {cleared}")),
        ("set-cookie", &format!("{REFRESH}=; {cleared}")),
        ("vary", "cookie"),
        ("www-authenticate", "Cookie"),
        ("x-content-type-options", "nosniff"),
    ];
    let body = r#"{"error":"Unauthorized","message":"Please sign in"}"#;
    assert_eq!(bytes_of(&answer), (401, headers.to_vec(), body));
    assert_eq!((calls(&mock), app.served()), (NO_CALLS, 0));
}

#[tokio::test]
async fn the_message_is_one_of_a_fixed_set_and_never_upstreams() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    app.auth.warm_up().await.unwrap();
    let upstream = |status| Fault::json(status, json!({ "message": "<script>", "error": "upstream" }));
    for (case, fault, message) in [
        ("refused with 401", upstream(401), ENDED),
        ("refused with 400", upstream(400), ENDED),
        ("an API key that is not accepted", upstream(403), TRY_LATER),
        ("an internal error", upstream(500), TRY_LATER),
        ("a page", Fault::StatusHtml(401), TRY_LATER),
        ("no answer", Fault::Reset, TRY_LATER),
    ] {
        mock.inject(Endpoint::Refresh, fault);
        app.get("/me", expired(&mock, "alice").cookie_header()).await.assert_ended(message, case);
        let body = json!({ "refresh": mock.one_time_secret("alice") }).to_string();
        app.post(REFRESH_ROUTE, "", &body).await.assert_ended(message, case);
    }
}

#[tokio::test]
async fn expired_forged_foreign_and_revoked_sessions_get_the_same_response() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let valid = mock.sign_in("alice").jwt().to_owned();
    let claims = json!({ "sub": "alice", "aud": mock.project_id(), "exp": 4_000_000_000_u64 });
    let cases = [
        ("revoked", String::new()),
        ("expired", expired(&mock, "alice").jwt().to_owned()),
        ("forged", format!("{}.{}", valid.rsplit_once('.').unwrap().0, "A".repeat(342))),
        ("of an unknown key", mock.sign(json!({ "kid": "unknown" }), claims.clone())),
        ("unsigned", mock.sign(json!({ "alg": "none" }), claims)),
        ("of another project", mock.session("alice").audience("other").create().jwt().to_owned()),
        ("no JWT", "junk".to_owned()),
    ];
    let mut answers = Vec::new();
    for (case, jwt) in &cases {
        let token = mock.sign_in("alice").refresh_token().to_owned();
        mock.revoke(&token);
        let answer = app.get("/me", format!("{JWT}={jwt}; {REFRESH}={token}")).await;
        answer.assert_ended(ENDED, case);
        answers.push(answer);
    }
    for (answer, (case, _)) in answers.iter().zip(&cases) {
        assert_eq!(bytes_of(answer), bytes_of(&answers[0]), "{case}");
    }
}

#[tokio::test]
async fn a_grpc_client_gets_its_status_in_the_headers() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (content_type, status, message) in [
        ("application/grpc", "16", SIGN_IN),
        ("application/grpc+proto", "16", SIGN_IN),
        ("application/grpc-web+proto", "16", SIGN_IN),
        ("application/json", "", ""),
    ] {
        let answer =
            app.send(app.request(Method::POST, "/pkg.Service/Call").header("content-type", content_type)).await;
        answer.assert_ended(SIGN_IN, content_type);
        let found = (answer.header("grpc-status"), answer.header("grpc-message"));
        assert_eq!(found, (status, message), "{content_type}");
    }
}

#[tokio::test]
async fn every_rejection_and_no_other_response_carries_its_error() {
    use AuthErrorKind::*;
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let (valid, revoked, cut_off) = (mock.sign_in("alice"), expired(&mock, "bob"), expired(&mock, "carol"));
    mock.revoke(revoked.refresh_token());
    let post = |path: &str| Request::post(path).header("content-type", "application/json");
    let get = |path: &str, cookie: &str| Request::get(path).header("cookie", cookie).body(Body::empty());
    let cases = [
        ("a valid session", get("/me", &valid.cookie_header()), None),
        ("nothing", get("/me", ""), Some(MissingCredentials)),
        ("two tokens", get("/me", &format!("{REFRESH}=x; {REFRESH}=y")), Some(AmbiguousCredentials)),
        ("an impossible token", get("/me", &format!("{REFRESH}=\"")), Some(InvalidCredentials)),
        ("a revoked session", get("/me", &revoked.cookie_header()), Some(Refused)),
        ("no answer", get("/me", &cut_off.cookie_header()), Some(Unavailable)),
        ("no token for the refresh", post(REFRESH_ROUTE).body(Body::empty()), Some(MissingRefreshToken)),
        ("another body", post(REFRESH_ROUTE).body("[]".into()), Some(InvalidBody)),
        ("a large body", post(REFRESH_ROUTE).body("x".repeat(20_000).into()), Some(BodyTooLarge)),
        ("a form", Request::post(REFRESH_ROUTE).body("refresh=x".into()), Some(UnsupportedMediaType)),
        ("another method", get(REFRESH_ROUTE, ""), Some(MethodNotAllowed)),
        ("another site", post(LOGOUT_ROUTE).header("origin", "null").body(Body::empty()), Some(CrossSite)),
    ];
    for (case, request, expected) in cases {
        if case == "no answer" {
            mock.inject(Endpoint::Refresh, Fault::Status(503));
        }
        let response = app.call(request.unwrap()).await;
        let kind = response.extensions().get::<AuthError>().map(AuthError::kind);
        assert_eq!((kind, response.status().is_success()), (expected, expected.is_none()), "{case}");
    }
}

#[tokio::test]
async fn a_session_that_is_already_in_the_extensions_is_removed() {
    struct Row<'a> {
        case: &'static str,
        policy: Unauthenticated,
        method: Method,
        cookie: String,
        headers: &'a [(&'static str, &'static str)],
        /// The user that the inner service sees, if it is called.
        user: Option<Value>,
    }
    let mock = MockCrossmint::start().await;
    let alice = mock.sign_in("alice");
    let (bob, expired_bob, revoked) = (mock.sign_in("bob"), expired(&mock, "bob"), expired(&mock, "carol"));
    mock.revoke(revoked.refresh_token());
    let preflight = [("origin", "https://x.test"), ("access-control-request-method", "POST")];
    use Unauthenticated::{Allow, AllowMissing, Reject};
    for Row { case, policy, method, cookie, headers, user } in [
        Row {
            case: "a preflight",
            policy: Reject,
            method: Method::OPTIONS,
            cookie: String::new(),
            headers: &preflight[..],
            user: Some(Value::Null),
        },
        Row {
            case: "nothing",
            policy: AllowMissing,
            method: Method::GET,
            cookie: String::new(),
            headers: &[],
            user: Some(Value::Null),
        },
        Row {
            case: "nothing, all allowed",
            policy: Allow,
            method: Method::GET,
            cookie: String::new(),
            headers: &[],
            user: Some(Value::Null),
        },
        Row {
            case: "a revoked session, all allowed",
            policy: Allow,
            method: Method::GET,
            cookie: revoked.cookie_header(),
            headers: &[],
            user: Some(Value::Null),
        },
        Row {
            case: "another session",
            policy: Reject,
            method: Method::GET,
            cookie: bob.cookie_header(),
            headers: &[],
            user: Some("bob".into()),
        },
        Row {
            case: "another session, refreshed",
            policy: Reject,
            method: Method::GET,
            cookie: expired_bob.cookie_header(),
            headers: &[],
            user: Some("bob".into()),
        },
        Row { case: "refused", policy: Reject, method: Method::GET, cookie: String::new(), headers: &[], user: None },
    ] {
        let app = App::configured(&mock, |config| config.unauthenticated(policy)).await;
        let planted = app.auth.get_session(Credentials::pair(alice.jwt(), alice.refresh_token())).await.unwrap();
        let mut request = Request::builder().method(method).uri("/me");
        if !cookie.is_empty() {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = app.call(request.extension(planted).body(Body::empty()).unwrap()).await;
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let seen = (app.served() == 1).then(|| serde_json::from_slice::<Value>(&body).unwrap()["user"].clone());
        assert_eq!(seen, user, "{case}");
    }
}

#[tokio::test]
async fn no_error_path_calls_the_logout() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let revoked = || {
        let session = expired(&mock, "alice");
        mock.revoke(session.refresh_token());
        session
    };
    let refused = app.get("/me", revoked().cookie_header()).await;
    let body = json!({ "refresh": revoked().refresh_token() }).to_string();
    let refused_body = app.post(REFRESH_ROUTE, &mock.sign_in("alice").cookie_header(), &body).await;
    let ambiguous = app.get("/me", format!("{}; {REFRESH}=x", mock.sign_in("alice").cookie_header())).await;
    let incomplete = app.get("/me", format!("{JWT}={}", mock.sign_in("alice").jwt())).await;
    mock.inject(Endpoint::Refresh, Fault::Status(500));
    let outage = app.get("/me", expired(&mock, "alice").cookie_header()).await;
    mock.set_down(true);
    let down = app.get("/me", expired(&mock, "alice").cookie_header()).await;
    for answer in [refused, refused_body, ambiguous, incomplete, outage, down] {
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    mock.set_down(false);

    let alice = mock.sign_in("alice").cookie_header();
    assert_eq!(app.get(LOGOUT_ROUTE, &alice).await.status, 405);
    let cross_site = app.request(Method::POST, LOGOUT_ROUTE).header("cookie", &alice);
    assert_eq!(app.send(cross_site.header("sec-fetch-site", "cross-site")).await.status, 403);
    assert_eq!(mock.calls(Endpoint::Logout), 0);
}

#[tokio::test]
async fn the_layer_adds_no_cors_headers() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let alice = mock.sign_in("alice").cookie_header();
    let mut answers = vec![
        post(&app, REFRESH_ROUTE, &alice).await,
        get(&app, "/", "").await,
        get(&app, REFRESH_ROUTE, &alice).await,
        get(&app, "/", &expired(&mock, "bob").cookie_header()).await,
    ];
    let allow = [("content-type", "application/json"), ("access-control-allow-origin", "*")];
    for endpoint in [Endpoint::Refresh, Endpoint::Logout] {
        mock.inject(endpoint, Fault::response(401, &allow, "{}"));
        answers.push(post(&app, REFRESH_ROUTE, &expired(&mock, "bob").cookie_header()).await);
        answers.push(post(&app, LOGOUT_ROUTE, &expired(&mock, "bob").cookie_header()).await);
    }
    for answer in answers {
        let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors, None, "{answer:?}");
    }
}

#[tokio::test]
async fn a_rejection_by_the_extractor_equals_one_by_the_layer() {
    let mock = MockCrossmint::start().await;
    let inner = Router::new().fallback(async |_: Session| "in");
    let config = mock.config().unauthenticated(Unauthenticated::Allow).build().unwrap();
    let app = App::of(CrossmintAuth::new(config), inner).await;
    let answer = app.get("/me", "").await;
    assert_eq!((answer.status, &*answer.body), (401, &*unauthorized(SIGN_IN)));
    assert_eq!((answer.header("cache-control"), answer.header("www-authenticate")), ("no-store", "Cookie"));
    assert_eq!(answer.set_cookie_fields().count(), 0, "there was nothing to clear");
}

/// Returns everything of an answer but its date, with the headers sorted.
fn bytes_of(answer: &Answer) -> (u16, Vec<(&str, &str)>, &str) {
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let mut headers: Vec<_> = headers.filter(|(name, _)| *name != "date").collect();
    headers.sort_unstable();
    (answer.status, headers, &answer.body)
}
