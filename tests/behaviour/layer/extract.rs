//! `Session` as an axum extractor, and its rejections.

use axum::{Router, body::Body, extract::Request, routing::any};
use http::Method;
use serde_json::json;
use tower_crossmint_auth::{
    AuthError, AuthErrorKind, CookieNames, CrossmintAuth, CrossmintAuthLayer, OutagePolicy, Session, Unauthenticated,
    testing::{Endpoint, Fault, MockCrossmint},
};
use tracing::Level;

use crate::support::{
    answer::{Answer, ENDED, JWT, REFRESH, SIGN_IN, TRY_LATER},
    app::who,
    direct::{app, get, request, send},
    events::Events,
    mock::expired,
};

#[tokio::test]
async fn the_extractor_rejects_as_the_layer_would_have() {
    use OutagePolicy::{EndSession, KeepSession};
    struct Row {
        name: &'static str,
        on_outage: OutagePolicy,
        fault: Option<Fault>,
        status: u16,
        message: &'static str,
        retry_after: &'static str,
    }
    let names = ["retry-after", "www-authenticate", "content-type", "cache-control", "vary", "x-content-type-options"];
    let essence = |answer: &Answer| {
        let headers = names.map(|name| answer.header(name).to_owned());
        (answer.status, answer.body.clone(), headers)
    };
    let unavailable = || Fault::response(503, &[("retry-after", "7")], "");
    let rows = [
        Row { name: "nothing", on_outage: KeepSession, fault: None, status: 401, message: SIGN_IN, retry_after: "" },
        Row {
            name: "nothing, no session kept",
            on_outage: EndSession,
            fault: None,
            status: 401,
            message: SIGN_IN,
            retry_after: "",
        },
        Row {
            name: "a revoked session",
            on_outage: KeepSession,
            fault: Some(Fault::Status(401)),
            status: 401,
            message: ENDED,
            retry_after: "",
        },
        Row {
            name: "an outage",
            on_outage: KeepSession,
            fault: Some(unavailable()),
            status: 503,
            message: TRY_LATER,
            retry_after: "7",
        },
        Row {
            name: "an outage, no session kept",
            on_outage: EndSession,
            fault: Some(unavailable()),
            status: 401,
            message: TRY_LATER,
            retry_after: "",
        },
        Row {
            name: "a rate limit",
            on_outage: KeepSession,
            fault: Some(Fault::response(429, &[("retry-after", "9")], "")),
            status: 503,
            message: TRY_LATER,
            retry_after: "9",
        },
        Row {
            name: "an unusable answer",
            on_outage: KeepSession,
            fault: Some(Fault::Garbage),
            status: 503,
            message: TRY_LATER,
            retry_after: "1",
        },
    ];
    for Row { name, on_outage, fault, status, message, retry_after } in rows {
        let mock = MockCrossmint::start().await;
        let has_cookies = fault.is_some();
        fault.into_iter().for_each(|fault| mock.inject(Endpoint::Refresh, fault));
        let cookie = || if has_cookies { expired(&mock, "alice").cookie_header() } else { String::new() };
        let by_the_layer = get(&strict(&mock, &Unauthenticated::Reject, on_outage), "/", &cookie()).await;
        let answer = get(&strict(&mock, &Unauthenticated::Allow, on_outage), "/", &cookie()).await;
        assert_eq!(essence(&answer), essence(&by_the_layer), "{name}");
        assert_eq!((answer.status, answer.json()["message"].as_str()), (status, Some(message)), "{name}");
        assert_eq!(answer.header("retry-after"), retry_after, "{name}");
        assert_eq!(answer.clears(&[JWT, REFRESH]), has_cookies && status == 401, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn the_extractor_rejects_a_request_without_a_session_with_401() {
    let mock = MockCrossmint::start().await;
    use Unauthenticated::{Allow, AllowMissing, Reject};
    for policy in [Reject, AllowMissing, Allow] {
        let app = strict(&mock, &policy, OutagePolicy::EndSession);
        let mut preflight = request(Method::OPTIONS, "/", "");
        preflight.headers_mut().insert("origin", "https://app.test".parse().unwrap());
        preflight.headers_mut().insert("access-control-request-method", "PUT".parse().unwrap());
        for (case, request) in [("a preflight", preflight), ("nothing", request(Method::GET, "/", ""))] {
            let answer = send(&app, request).await;
            let expected = (401, Some(SIGN_IN));
            assert_eq!((answer.status, answer.json()["message"].as_str()), expected, "{case}, {policy:?}");
        }
        let answer = get(&app, "/", &mock.sign_in("alice").cookie_header()).await;
        assert_eq!((answer.status, &*answer.body), (200, "alice"), "{policy:?}");
    }
}

#[tokio::test]
async fn a_route_without_the_layer_is_a_server_error_that_is_logged_once() {
    let events = Events::capture(Level::INFO);
    let mock = MockCrossmint::start().await;
    let cookie = mock.sign_in("alice").cookie_header();
    let reason = async |session: Result<Session, AuthError>| format!("{:?}", session.unwrap_err().kind());
    let app = inner().route("/maybe", any(who)).route("/reason", any(reason));
    for cookie in ["", &cookie] {
        let answer = get(&app, "/", cookie).await;
        let body = json!({ "error": "Internal Server Error", "message": "The request could not be handled" });
        assert_eq!((answer.status, answer.json()), (500, body));
        assert_eq!(answer.set_cookie_fields().count(), 0);
        assert_eq!(get(&app, "/maybe", cookie).await.user(), None);
        assert_eq!(get(&app, "/reason", cookie).await.body, "LayerMissing");
    }
    assert_eq!(events.texts(), ["ERROR the layer is not installed on this route: add `CrossmintAuthLayer` around it"]);
}

#[tokio::test]
async fn a_handler_can_extract_the_error() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().unauthenticated(Unauthenticated::Allow).on_outage(OutagePolicy::KeepSession);
    let reason = async |session: Result<Session, AuthError>| match session {
        Ok(session) => session.user_id().to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    let app = Router::new().fallback(any(reason)).layer(CrossmintAuthLayer::new(config.build().unwrap()));
    let outage = expired(&mock, "bob").cookie_header();
    mock.inject(Endpoint::Refresh, Fault::Status(503));
    for (cookie, expected) in [
        (mock.sign_in("alice").cookie_header(), "alice"),
        (String::new(), "MissingCredentials"),
        (format!("{REFRESH}=a b"), "InvalidCredentials"),
        (outage, "Unavailable"),
    ] {
        assert_eq!(get(&app, "/", &cookie).await.body, expected);
    }
}

/// The layer closest to the handler decides, whatever others have inserted before.
#[tokio::test]
async fn an_error_that_is_already_in_the_extensions_is_removed() {
    struct Row {
        case: &'static str,
        cookie: String,
        user: Option<&'static str>,
        error: Option<&'static str>,
    }
    let mock = MockCrossmint::start().await;
    let (alice, bob, revoked) = (mock.sign_in("alice"), expired(&mock, "bob"), expired(&mock, "carol"));
    mock.revoke(revoked.refresh_token());
    let auth = CrossmintAuth::new(mock.config().unauthenticated(Unauthenticated::Allow).build().unwrap());
    let app = app(&auth);
    let planted = auth.get_user("..").await.unwrap_err();
    assert_eq!(planted.kind(), AuthErrorKind::UserUnavailable);
    for Row { case, cookie, user, error } in [
        Row { case: "nothing", cookie: String::new(), user: None, error: None },
        Row { case: "a valid session", cookie: alice.cookie_header(), user: Some("alice"), error: None },
        Row { case: "a refreshed one", cookie: bob.cookie_header(), user: Some("bob"), error: None },
        Row { case: "a revoked one", cookie: revoked.cookie_header(), user: None, error: Some("Refused") },
    ] {
        let mut request: Request<Body> = request(Method::GET, "/", &cookie);
        request.extensions_mut().insert(planted.clone());
        let answer = send(&app, request).await;
        assert_eq!((answer.user().as_deref(), answer.json()["error"].as_str()), (user, error), "{case}");
    }
}

#[tokio::test]
async fn of_two_layers_the_inner_one_decides() {
    struct Row {
        case: &'static str,
        cookie: String,
        user: Option<&'static str>,
        error: Option<&'static str>,
        status: u16,
    }
    let (outer, mock) = (MockCrossmint::start().await, MockCrossmint::start().await);
    let allow = |mock: &MockCrossmint| mock.config().unauthenticated(Unauthenticated::Allow);
    let names = CookieNames::Custom { jwt: "outer-jwt".into(), refresh_token: "outer-refresh".into() };
    let outer_layer = allow(&outer).cookie_names(names).on_outage(OutagePolicy::KeepSession);
    let app = inner()
        .route("/who", any(who))
        .layer(CrossmintAuthLayer::new(allow(&mock).build().unwrap()))
        .layer(CrossmintAuthLayer::new(outer_layer.build().unwrap()));
    let outside = |jwt: &str, token: &str| format!("outer-jwt={jwt}; outer-refresh={token}");
    let (valid, failing) = (outer.sign_in("oscar"), expired(&outer, "olga"));
    outer.inject(Endpoint::Refresh, Fault::Status(503));
    let (valid, failing) =
        (outside(valid.jwt(), valid.refresh_token()), outside(failing.jwt(), failing.refresh_token()));
    let alice = mock.sign_in("alice").cookie_header();
    let revoked = expired(&mock, "bob");
    mock.revoke(revoked.refresh_token());
    for Row { case, cookie, user, error, status } in [
        Row { case: "valid outside", cookie: valid.clone(), user: None, error: None, status: 401 },
        Row { case: "an outage outside", cookie: failing.clone(), user: None, error: None, status: 401 },
        Row {
            case: "an outage outside, valid inside",
            cookie: format!("{failing}; {alice}"),
            user: Some("alice"),
            error: None,
            status: 200,
        },
        Row {
            case: "valid outside, revoked inside",
            cookie: format!("{valid}; {}", revoked.cookie_header()),
            user: None,
            error: Some("Refused"),
            status: 401,
        },
    ] {
        let seen = get(&app, "/who", &cookie).await;
        assert_eq!((seen.user().as_deref(), seen.json()["error"].as_str()), (user, error), "{case}");
        assert_eq!(get(&app, "/", &cookie).await.status, status, "{case}");
    }
}

/// Makes an application whose only handler needs a session.
fn strict(mock: &MockCrossmint, policy: &Unauthenticated, on_outage: OutagePolicy) -> Router {
    let config = mock.config().unauthenticated(policy.clone()).on_outage(on_outage);
    inner().layer(CrossmintAuthLayer::new(config.build().unwrap()))
}

fn inner() -> Router {
    Router::new().fallback(any(async |session: Session| session.user_id().to_owned()))
}
