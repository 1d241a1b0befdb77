//! What neither ill will nor bad luck brings about.

use std::time::Duration;

use axum::Router;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::HeaderMap;
use serde_json::json;
use tower_crossmint_auth::{
    AuthErrorKind, Credentials, CrossmintAuth, CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, MockCrossmint},
};

use crate::{
    direct::{app, auth, get, pass, post, slow_handler},
    support::{App, JWT, LOGOUT_ROUTE, REFRESH, beyond, expired},
};

#[tokio::test]
async fn the_last_word_on_a_response_counts() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let material = auth.refresh(mock.sign_in("alice").refresh_token()).await.unwrap();
    let mut response = HeaderMap::from_iter([(http::header::SET_COOKIE, "other=1".parse().unwrap())]);
    let cleared = |response: &HeaderMap| {
        let fields: Vec<&str> = response.get_all("set-cookie").iter().map(|field| field.to_str().unwrap()).collect();
        assert!(fields.len() == 3 && fields[0] == "other=1", "{fields:?}");
        fields[1..].iter().all(|field| field.contains("1970"))
    };
    auth.store_auth_material(&mut response, &material).unwrap();
    auth.clear_auth_material(&mut response);
    assert!(cleared(&response));
    auth.store_auth_material(&mut response, &material).unwrap();
    assert!(!cleared(&response));
}

#[tokio::test]
async fn a_renewal_does_not_take_an_older_reload_for_its_own() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let (alice, bob) = (expired(&mock, "alice").cookie_header(), mock.sign_in("bob").cookie_header());
    pass(Duration::from_secs(601)).await;
    // The set is due: bob's request starts a reload in the background, whose answer takes its time.
    let hold = mock.hold_answers(Endpoint::Keys);
    assert_eq!(get(&app, "/", &bob).await.status, 200);
    mock.called(Endpoint::Keys, 2).await;
    mock.rotate_keys();
    let (answer, ()) = tokio::join!(get(&app, "/", &alice), async {
        mock.called(Endpoint::Refresh, 1).await;
        // Time for the renewal to find the reload.
        for _ in 0..10 {
            assert!(auth.get_user("nobody").await.is_err());
        }
        hold.release();
    });
    assert_eq!((answer.status, mock.reuse_detections()), (200, 0));
}

#[tokio::test]
async fn logouts_of_junk_tokens_are_bounded() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().max_concurrent_refreshes(8).logout_timeout(Duration::from_secs(600));
    let app = app(&CrossmintAuth::new(config.build().unwrap()));
    let hold = mock.hold(Endpoint::Logout);
    let cookies: Vec<String> = (0..200).map(|number| format!("{REFRESH}=junk{number}")).collect();
    let mut logouts: FuturesUnordered<_> = cookies.iter().map(|cookie| post(&app, LOGOUT_ROUTE, cookie)).collect();
    for _ in 0..128 {
        let answer = logouts.next().await.unwrap();
        assert!((answer.status, answer.clears(&[JWT, REFRESH])) == (200, true));
    }
    hold.release();
    assert_eq!(logouts.count().await, 72);
    assert_eq!(mock.calls(Endpoint::Logout), 72, "8 under way, and 64 that waited for them");
}

#[tokio::test]
async fn no_response_sets_a_session_that_was_signed_out_meanwhile() {
    let mock = MockCrossmint::start().await;
    let (slow, entered, go) = slow_handler();
    let app = Router::new().fallback(slow).layer(CrossmintAuthLayer::from(auth(&mock)));
    let cookie = expired(&mock, "alice").cookie_header();
    let (slow, ()) = tokio::join!(get(&app, "/", &cookie), async {
        drop(entered.acquire().await);
        assert!(post(&app, LOGOUT_ROUTE, &cookie).await.clears(&[JWT, REFRESH]));
        go.close();
    });
    assert_eq!((slow.status, slow.set_cookie().len()), (200, 0));
}

#[tokio::test]
async fn a_user_id_names_this_user_or_nobody() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let _ = mock.sign_in("alice");
    for id in ["al\nice", ".\t.", ".\n", "\n", "alice\u{7f}"] {
        assert!(auth.get_user(id).await.is_err(), "{id:?}");
    }
    assert_eq!((mock.calls(Endpoint::User), mock.calls(Endpoint::Elsewhere)), (0, 0));
}

#[tokio::test]
async fn a_new_key_does_not_spend_successors() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().rotation_grace(Duration::from_secs(300)).build().unwrap());
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    mock.rotate_keys();
    pass(Duration::from_secs(31)).await;
    auth.verify_jwt(mock.sign_in("bob").jwt()).await.unwrap();
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!((mock.calls(Endpoint::Keys), mock.calls(Endpoint::Refresh)), (2, 1));
}

#[tokio::test]
async fn a_logout_during_the_next_renewal_forgets_the_last_one_too() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let first = expired(&mock, "alice").cookie_header();
    let second = get(&app, "/", &first).await.json();
    let [jwt, token] = [&second["jwt"], &second["refreshToken"]].map(|value| value.as_str().unwrap().to_owned());
    let hold = mock.hold(Endpoint::Refresh);
    let only_token = format!("{REFRESH}={token}");
    let (renewal, logout, ()) = tokio::join!(
        get(&app, "/", &only_token),
        async {
            mock.called(Endpoint::Refresh, 2).await;
            post(&app, LOGOUT_ROUTE, &first).await
        },
        async {
            mock.called(Endpoint::Refresh, 2).await;
            tokio::task::yield_now().await;
            hold.release();
        }
    );
    assert_eq!((renewal.status, logout.status), (401, 200));
    let before = auth.stats().verifications;
    auth.get_session(Credentials::pair(&jwt, &token)).await.unwrap();
    assert_eq!(auth.stats().verifications, before + 1, "the JWT is verified anew");
}

#[tokio::test]
async fn an_answer_that_comes_a_little_late_is_not_lost() {
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().on_outage(OutagePolicy::KeepSession).build().unwrap());
    auth.warm_up().await.unwrap();
    let app = app(&auth);
    let cookie = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let late = beyond(Duration::from_secs(10), &mock, Endpoint::Refresh, get(&app, "/", &cookie)).await;
    assert_eq!((late.status, late.set_cookie().len()), (503, 0));
    assert_eq!(get(&app, "/", &cookie).await.status, 503, "nobody waits for it any more");
    hold.release();
    while get(&app, "/", &cookie).await.status == 503 {}
    assert_eq!(get(&app, "/", &cookie).await.status, 200);
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn an_odd_profile_does_not_cost_the_session() {
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
        let odd = profile.clone();
        mock.edit_refresh_answers(move |answer| {
            answer["user"].as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
        });
        let answer = app.post("/api/auth/refresh", &expired(&mock, "alice").cookie_header(), "{}").await;
        assert_eq!(answer.status, 200, "{case}");
        for (member, value) in profile.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
            assert_eq!(&answer.json()["user"][member], value, "{case}");
        }
    }
}

#[tokio::test]
async fn endless_time_limits_work() {
    let mock = MockCrossmint::start().await;
    let max = Duration::MAX;
    let config = mock.config().refresh_timeout(max).keys_timeout(max).logout_timeout(max).connect_timeout(max);
    let app = App::with(CrossmintAuth::new(config.build().unwrap())).await;
    let answer = app.get("/", expired(&mock, "alice").cookie_header()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(app.post(LOGOUT_ROUTE, &answer.cookie_header(), "").await.status, 200);
}

#[tokio::test]
async fn huge_cookies_are_refused_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let (big, crowd) = ("A".repeat(400 << 10), "a=b;".repeat(100_000));
    for cookie in [format!("{JWT}=x; {REFRESH}={big}"), format!("{crowd}{REFRESH}={big}"), crowd] {
        assert_eq!(get(&app, "/", &cookie).await.status, 401);
    }
    assert_eq!(mock.connections(), 0);
}

#[tokio::test]
async fn a_user_that_is_not_given_out_ends_no_session() {
    let mock = MockCrossmint::start().await;
    let error = auth(&mock).get_user("nobody").await.unwrap_err();
    assert_eq!(error.kind(), AuthErrorKind::UserUnavailable);
}
