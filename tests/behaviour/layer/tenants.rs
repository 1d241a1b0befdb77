//! Several projects in one server, and layers around each other.

use axum::{Json, Router, routing::get};
use http::Method;
use serde_json::{Value, json};
use tower_crossmint_auth::{
    Bearer, CookieNames, CookieOptions, CrossmintAuth, CrossmintAuthLayer, Session, Unauthenticated,
    testing::{Browser, Endpoint, MockCrossmint, MockSession},
};

use crate::support::{
    answer::{JWT, REFRESH},
    direct::{auth, get as get_from, request, send},
    mock::expired,
};

fn tenant(mock: &MockCrossmint, name: &str) -> CrossmintAuth {
    let config = mock.config().cookie_names(CookieNames::ScopedOnly).cookies(CookieOptions::hardened());
    let config = config.refresh_route(format!("/{name}/refresh")).logout_route(format!("/{name}/logout"));
    CrossmintAuth::new(config.build().unwrap())
}

fn cookies(sessions: [&MockSession; 2]) -> String {
    sessions.map(MockSession::cookie_header).join("; ")
}

async fn who(session: Option<Session>) -> Json<Value> {
    Json(json!({ "user": session.as_ref().map(Session::user_id), "jwt": session.as_ref().map(Session::jwt) }))
}

#[tokio::test]
async fn two_projects_on_one_domain_have_sessions_of_their_own() {
    let [a, b] = [MockCrossmint::start_as("project-a").await, MockCrossmint::start_as("project-b").await];
    let [auth_a, auth_b] = [tenant(&a, "a"), tenant(&b, "b")];
    let route = |path, auth: &CrossmintAuth| {
        Router::new().route(path, get(who)).route_layer(CrossmintAuthLayer::from(auth.clone()))
    };
    let app = Router::new()
        .merge(route("/a/me", &auth_a))
        .merge(route("/b/me", &auth_b))
        .merge(auth_a.routes())
        .merge(auth_b.routes());

    let (alice, bob) = (expired(&a, "alice"), expired(&b, "bob"));
    let both = cookies([&alice, &bob]);
    for (path, user, project) in [("/a/me", "alice", "project-a"), ("/b/me", "bob", "project-b")] {
        let answer = get_from(&app, path, &both).await;
        let names: Vec<_> = answer.set_cookie().iter().map(|cookie| cookie.name().to_owned()).collect();
        assert_eq!(answer.user().as_deref(), Some(user), "{path}");
        let expected = ["crossmint-jwt-", "crossmint-refresh-token-"].map(|name| format!("{name}{project}"));
        assert_eq!(names, expected, "{path}");
    }
    assert_eq!([a.calls(Endpoint::Refresh), b.calls(Endpoint::Refresh)], [1, 1]);
    for (path, foreign) in [("/a/me", b.sign_in("bob")), ("/b/me", a.sign_in("alice"))] {
        assert_eq!(get_from(&app, path, &foreign.cookie_header()).await.status, 401, "{path}");
        let unscoped = foreign.legacy_cookie_header();
        let answer = get_from(&app, path, &unscoped).await;
        let cleared: Vec<_> = answer.set_cookie().iter().map(|cookie| cookie.name().to_owned()).collect();
        assert!(answer.status == 401 && cleared.iter().all(|name| name.contains("-project-")), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn scoped_only_neither_reads_nor_deletes_unscoped_cookies() {
    let mock = MockCrossmint::start().await;
    for (names, user) in [(CookieNames::Scoped, Some("alice")), (CookieNames::ScopedOnly, None)] {
        let config = mock.config().cookie_names(names.clone()).unauthenticated(Unauthenticated::Allow);
        let app = Router::new().route("/", get(who)).layer(CrossmintAuthLayer::new(config.build().unwrap()));
        let answer = get_from(&app, "/", &mock.sign_in("alice").legacy_cookie_header()).await;
        assert_eq!((answer.json()["user"].as_str(), answer.set_cookie_fields().count()), (user, 0), "{names:?}");
    }
}

#[tokio::test]
async fn behind_two_layers_the_inner_one_decides() {
    let [a, b] = [MockCrossmint::start_as("project-a").await, MockCrossmint::start_as("project-b").await];
    let layer = |mock: &MockCrossmint, name| {
        CrossmintAuthLayer::from(tenant(mock, name)).unauthenticated(Unauthenticated::Allow)
    };
    let app = Router::new().route("/", get(who)).layer(layer(&b, "b")).layer(layer(&a, "a"));
    let (alice, bob) = (a.sign_in("alice"), b.sign_in("bob"));
    for (case, cookie, user) in [
        ("both", cookies([&alice, &bob]), Some("bob")),
        ("the inner one's", bob.cookie_header(), Some("bob")),
        ("the outer one's", alice.cookie_header(), None),
    ] {
        assert_eq!(get_from(&app, "/", &cookie).await.json()["user"].as_str(), user, "{case}");
    }
}

#[tokio::test]
async fn two_layers_of_one_handle_refresh_once_and_set_the_cookies_once() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let app =
        Router::new().route("/", get(who)).layer(layer.clone()).layer(layer.unauthenticated(Unauthenticated::Allow));
    let answer = get_from(&app, "/", &expired(&mock, "alice").cookie_header()).await;
    answer.assert_refreshed("alice", "");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
    let kept = answer.set_cookie().iter().find(|cookie| cookie.name().contains("jwt")).unwrap().value().to_owned();
    assert_eq!(answer.json()["jwt"], kept, "the handler saw what the browser keeps");
    get_from(&app, "/", &answer.cookie_header()).await.assert_passed("alice", "again");
}

#[tokio::test]
async fn the_tokens_of_one_project_do_not_sign_in_at_the_other() {
    let [a, b] = [MockCrossmint::start_as("project-a").await, MockCrossmint::start_as("project-b").await];
    assert_eq!(a.key_id(), b.key_id(), "the signature alone does not tell them apart");
    let app = Router::new().route("/", get(who)).layer(CrossmintAuthLayer::from(tenant(&b, "b")));
    let mallory = a.sign_in("mallory");
    let answer = get_from(&app, "/", &mallory.cookie_header().replace("project-a", "project-b")).await;
    assert!(answer.status == 401 && answer.clears(&NAMES_OF_B), "{answer:?}");
    assert!(a.is_live(mallory.refresh_token()));
}

#[tokio::test]
async fn a_request_through_the_layers_of_two_projects_refreshes_both_sessions() {
    let [a, b] = [MockCrossmint::start_as("project-a").await, MockCrossmint::start_as("project-b").await];
    let [inside, outside] = [CrossmintAuthLayer::from(tenant(&b, "b")), CrossmintAuthLayer::from(tenant(&a, "a"))];
    let app = Router::new().route("/", get(who)).layer(inside).layer(outside);
    let answer = get_from(&app, "/", &cookies([&expired(&a, "alice"), &expired(&b, "bob")])).await;
    assert_eq!((answer.status, answer.user().as_deref()), (200, Some("bob")));
    let again = get_from(&app, "/", &answer.cookie_header()).await;
    assert_eq!((again.user().as_deref(), again.set_cookie_fields().count()), (Some("bob"), 0), "four new cookies");
    assert_eq!([a.calls(Endpoint::Refresh), b.calls(Endpoint::Refresh)], [1, 1]);
}

#[tokio::test]
async fn two_layers_of_one_handle_clear_an_ended_session_once() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let app =
        Router::new().route("/", get(who)).layer(layer.clone()).layer(layer.unauthenticated(Unauthenticated::Allow));
    let alice = expired(&mock, "alice");
    mock.revoke(alice.refresh_token());
    let answer = get_from(&app, "/", &alice.cookie_header()).await;
    assert!(answer.status == 401 && answer.clears(&[JWT, REFRESH]), "{answer:?}");
    assert_eq!(mock.calls(Endpoint::Refresh), 1);
}

#[tokio::test]
async fn credentials_that_only_the_outer_layer_accepts_do_not_pass_the_inner_one() {
    let mock = MockCrossmint::start().await;
    let layer = CrossmintAuthLayer::from(auth(&mock));
    let bearer = layer.clone().bearer(Bearer::Accept);
    for (case, inner, status, user) in [
        ("an inner layer that rejects", layer.clone(), 401, None),
        ("an inner layer that allows", layer.unauthenticated(Unauthenticated::Allow), 200, None),
        ("an inner layer that accepts them", bearer.clone(), 200, Some("alice")),
    ] {
        let app = Router::new().route("/", get(who)).layer(inner).layer(bearer.clone());
        let mut call = request(Method::GET, "/", "");
        let token = format!("Bearer {}", mock.sign_in("alice").jwt());
        call.headers_mut().insert("authorization", token.parse().unwrap());
        let answer = send(&app, call).await;
        assert_eq!((answer.status, answer.json()["user"].as_str()), (status, user), "{case}");
    }
}

#[tokio::test]
async fn a_browser_signs_in_clicks_and_comes_back() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().cookies(CookieOptions::hardened()).after_logout("/").build().unwrap();
    let auth = CrossmintAuth::new(config);
    let layer = CrossmintAuthLayer::from(auth.clone()).unauthenticated(Unauthenticated::Allow);
    let app = Router::new().route("/", get(who)).layer(layer).merge(auth.routes());
    let mut browser = Browser::new(app, "https://app.example.com");
    let user = |page: tower_crossmint_auth::testing::Page| {
        serde_json::from_str::<Value>(&page.text()).unwrap()["user"].clone()
    };

    assert_eq!(user(browser.open("/").await), json!(null));
    browser.sign_in(&mock, "alice").await;
    assert_eq!(user(browser.click("/").await), "alice");
    assert_eq!(
        user(browser.follow_link_from("https://other.example", "/").await),
        json!(null),
        "the cookies are Strict"
    );
    assert_eq!(user(browser.open("/").await), "alice", "the link has signed nobody out");
    assert_eq!(browser.submit_from("https://other.example", "/api/auth/logout", "").await.status(), 403);
    assert_eq!(user(browser.open("/").await), "alice", "and neither has the form");
    let page = browser.submit("/api/auth/logout", "").await;
    assert_eq!(page.path(), "/");
    assert_eq!(user(page), json!(null));
    assert_eq!((mock.live_sessions(), browser.cookie("crossmint-jwt-mock-project")), (0, None));
}

const NAMES_OF_B: [&str; 2] = ["crossmint-jwt-project-b", "crossmint-refresh-token-project-b"];
