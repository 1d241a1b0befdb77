//! Signed out means signed out: a session's JWTs are refused from its logout on.

use axum::Router;
use http::{HeaderMap, Method};
use tower_crossmint_auth::{
    AuthErrorKind, Bearer, Credentials, CrossmintAuth, CrossmintAuthLayer,
    testing::{Endpoint, MockCrossmint, MockSession},
};

use crate::support::{
    answer::{ENDED, LOGOUT_ROUTE, REFRESH},
    app::who,
    direct::{auth, get, post, request, send},
    mock::expired,
};

fn app(auth: &CrossmintAuth) -> Router {
    Router::new().fallback(who).layer(CrossmintAuthLayer::from(auth.clone()).bearer(Bearer::Accept))
}

/// Sends a JWT alone, as a thief who has no more than that.
async fn replay(app: &Router, jwt: &str) -> u16 {
    let mut request = request(Method::GET, "/", "");
    request.headers_mut().insert("authorization", format!("Bearer {jwt}").parse().unwrap());
    send(app, request).await.status
}

#[tokio::test]
async fn a_jwt_is_refused_after_the_logout_whether_it_was_cached_or_not() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    auth.warm_up().await.unwrap();
    for is_cached in [true, false] {
        let (alice, other) = (mock.sign_in("alice"), mock.sign_in("alice"));
        if is_cached {
            assert_eq!(replay(&app, alice.jwt()).await, 200);
        }
        assert_eq!(post(&app, LOGOUT_ROUTE, &alice.cookie_header()).await.status, 200);
        assert_eq!(replay(&app, alice.jwt()).await, 401, "cached: {is_cached}");
        let kind = auth.verify_jwt(alice.jwt()).await.unwrap_err().kind();
        assert_eq!(kind, AuthErrorKind::InvalidToken, "cached: {is_cached}");
        let answer = get(&app, "/", &alice.cookie_header()).await;
        answer.assert_ended(ENDED, "with its refresh token");
        assert_eq!(replay(&app, other.jwt()).await, 200, "another session of the user");
    }
}

#[tokio::test]
async fn the_jwt_that_a_refresh_has_issued_is_refused_as_well() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let old = expired(&mock, "alice");
    let refreshed = get(&app, "/", &old.cookie_header()).await;
    let jwt = refreshed.json()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(replay(&app, &jwt).await, 200);
    // A tab that has not got the new cookies signs out with the old ones.
    assert_eq!(post(&app, LOGOUT_ROUTE, &old.cookie_header()).await.status, 200);
    assert_eq!(replay(&app, &jwt).await, 401);
}

#[tokio::test]
async fn the_handle_revokes_a_session_of_its_own_accord() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let alice = mock.sign_in("alice");
    let session = auth.get_session(Credentials::pair(alice.jwt(), alice.refresh_token())).await.unwrap();
    auth.clone().revoke_session(&session).await.unwrap();
    assert!(!mock.is_live(alice.refresh_token()));
    assert_eq!(replay(&app, alice.jwt()).await, 401);

    let bob = mock.sign_in("bob");
    let bearer = auth.session_from_jwt(bob.jwt()).await.unwrap();
    auth.revoke_session(&bearer).await.unwrap();
    assert_eq!((replay(&app, bob.jwt()).await, mock.is_live(bob.refresh_token())), (401, true));
    let answer = get(&app, "/", &bob.cookie_header()).await;
    answer.assert_refreshed("bob", "his refresh token is still good");
}

#[tokio::test]
async fn a_session_that_is_signed_out_by_its_jwt_is_not_handed_out_by_the_grace_period() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let old = expired(&mock, "alice");
    let first = get(&app, "/", &old.cookie_header()).await.json()["jwt"].as_str().unwrap().to_owned();
    let bearer = auth.session_from_jwt(&first).await.unwrap();
    auth.revoke_session(&bearer).await.unwrap();
    let second = get(&app, "/", &old.cookie_header()).await;
    second.assert_refreshed("alice", "another JWT");
    assert_ne!(second.json()["jwt"], *first);
    assert_eq!(mock.reuse_detections(), 0);
}

#[tokio::test]
async fn a_logout_before_the_keys_are_loaded_holds_once_they_are() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let (alice, bob) = (mock.sign_in("alice"), mock.sign_in("bob"));
    assert_eq!(post(&app, LOGOUT_ROUTE, &alice.cookie_header()).await.status, 200);
    assert_eq!(mock.calls(Endpoint::Keys), 0, "a logout waits for no keys");
    assert_eq!([replay(&app, alice.jwt()).await, replay(&app, bob.jwt()).await], [401, 200]);
}

#[tokio::test]
async fn forged_jwts_are_not_remembered() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    auth.warm_up().await.unwrap();
    let alice = mock.sign_in("alice");
    let forged = forge(&alice);
    let verifications = auth.stats().verifications;
    auth.logout(Credentials::pair(&forged, "")).await.unwrap();
    assert_eq!(auth.stats().verifications - verifications, 1, "one signature is checked");
    assert_eq!(replay(&app, alice.jwt()).await, 200, "the end of both signatures is the same");
    assert_eq!(mock.calls(Endpoint::Keys), 1);
}

/// Changes the signature, and not its end.
fn forge(session: &MockSession) -> String {
    let jwt = session.jwt();
    let start = jwt.rfind('.').unwrap() + 1;
    let other = if jwt[start..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &jwt[..start], &jwt[start + 1..])
}

#[tokio::test]
async fn a_refresh_token_alone_signs_out_the_jwts_that_are_known() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let app = app(&auth);
    let refreshed = get(&app, "/", &expired(&mock, "alice").cookie_header()).await;
    let jwt = refreshed.json()["jwt"].as_str().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    headers.insert("cookie", format!("{REFRESH}={}", refreshed.refresh_token()).parse().unwrap());
    auth.logout(&headers).await.unwrap();
    assert_eq!(replay(&app, &jwt).await, 401);
}
