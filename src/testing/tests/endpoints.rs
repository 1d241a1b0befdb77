use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn claims(jwt: &str) -> Value {
    decoded(jwt.split('.').nth(1).unwrap())
}

fn verifies(jwt: &str, keys: &Value) -> bool {
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let header = decoded(signed.split_once('.').unwrap().0);
    let Some(key) = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]) else {
        return false;
    };
    let member = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    RsaPublicKeyComponents { n: member("n"), e: member("e") }
        .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
        .is_ok()
}

#[tokio::test]
async fn a_minted_jwt_verifies_under_the_published_key() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");

    let keys: Value = fetch(&mock, KEYS).await.json().await.unwrap();
    assert!(verifies(session.jwt(), &keys));
    assert_eq!(keys, mock.key_set());

    let header = decoded(session.jwt().split('.').next().unwrap());
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "kid": mock.key_id() }));
    let claims = claims(session.jwt());
    assert_eq!(claims["iss"], mock.issuer());
    assert_eq!(claims["aud"], mock.project_id());
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
}

#[tokio::test]
async fn two_mocks_are_two_projects_with_shared_keys() {
    let (ours, theirs) = (MockCrossmint::start_as("ours").await, MockCrossmint::start_as("theirs").await);
    let alice = theirs.sign_in("alice");
    assert_eq!((claims(alice.jwt())["aud"].as_str(), theirs.project_id()), (Some("theirs"), "theirs"));
    assert!(verifies(alice.jwt(), &ours.key_set()), "only the audience tells them apart");
    assert!(alice.cookie_header().starts_with("crossmint-jwt-theirs=e"));
    assert!(alice.cookie_header().contains("; crossmint-refresh-token-theirs="));
    assert_ne!(ours.api_key(), theirs.api_key());
    assert_eq!(post(&ours, REFRESH, alice.refresh_token()).await.0, StatusCode::UNAUTHORIZED);
    assert!(theirs.is_live(&successor(&theirs, alice.refresh_token()).await));
}

#[tokio::test]
async fn a_session_has_the_claims_of_its_builder() {
    let mock = MockCrossmint::start().await;
    let session = mock.session("alice").jwt_lifetime(-60).audience(json!(["a", "b"])).issuer("i").claim("nbf", 7);
    let claims = claims(session.claim("jti", Value::Null).create().jwt());
    assert!(claims["exp"].as_i64().unwrap() < OffsetDateTime::now_utc().unix_timestamp());
    assert_eq!(claims["aud"], json!(["a", "b"]));
    assert_eq!(claims["iss"], "i");
    assert_eq!(claims["nbf"], 7);
    assert_eq!(claims.get("jti"), None);
}

#[tokio::test]
async fn an_arbitrary_token_keeps_its_own_alg_and_kid() {
    let mock = MockCrossmint::start().await;
    let token = mock.sign(json!({ "alg": "none", "kid": "x" }), json!({ "sub": "alice" }));
    assert_eq!(decoded(token.split('.').next().unwrap()), json!({ "alg": "none", "kid": "x" }));
    assert_eq!(claims(&token), json!({ "sub": "alice" }));
    assert!(verifies(&mock.sign(json!({}), json!([1])), &mock.key_set()));
}

#[tokio::test]
async fn keys_can_be_rotated_and_old_keys_withdrawn() {
    let mock = MockCrossmint::start().await;
    let (old_kid, old) = (mock.key_id(), mock.sign_in("alice"));
    mock.publish_jwk(json!({ "kty": "odd" }));
    mock.rotate_keys();
    let new = mock.sign_in("alice");
    assert_ne!(mock.key_id(), old_kid);
    assert!(verifies(old.jwt(), &mock.key_set()));
    assert!(verifies(new.jwt(), &mock.key_set()));

    mock.withdraw_old_keys();
    assert!(!verifies(old.jwt(), &mock.key_set()));
    assert!(verifies(new.jwt(), &mock.key_set()));
    assert_eq!(mock.key_set()["keys"].as_array().unwrap().len(), 1);

    let other = MockCrossmint::start().await;
    assert_eq!(other.key_id(), old_kid, "all mocks of a process share their keys");
    other.rotate_keys();
    assert_eq!(other.key_id(), mock.key_id());
}

#[tokio::test]
async fn a_refresh_returns_a_new_session() {
    let mock = MockCrossmint::start().await;
    mock.set_user(json!({ "id": "alice", "email": "alice@example.com" }));
    mock.set_refreshed_jwt_lifetime(10);
    mock.set_refreshed_claim("role", "admin");
    let session = mock.sign_in("alice");

    let (status, answer) = post(&mock, REFRESH, session.refresh_token()).await;
    assert_eq!(status, StatusCode::OK);
    let jwt = answer["jwt"].as_str().unwrap();
    assert!(verifies(jwt, &mock.key_set()));
    let claims = claims(jwt);
    assert_eq!(claims["role"], "admin");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 10);
    assert_eq!(answer["user"], json!({ "id": "alice", "email": "alice@example.com" }));
    assert!(mock.is_live(answer["refresh"]["secret"].as_str().unwrap()));
    assert!(!mock.is_live(session.refresh_token()));
    let expiry = answer["refresh"]["expiresAt"].as_str().unwrap();
    assert!(OffsetDateTime::parse(expiry, &Rfc3339).unwrap() > OffsetDateTime::now_utc());
}

#[tokio::test]
async fn a_refresh_answer_can_be_edited() {
    let mock = MockCrossmint::start().await;
    mock.edit_refresh_answers(|answer| {
        answer["refresh"]["expiresAt"] = json!(12);
        answer.as_object_mut().unwrap().remove("user");
    });
    let (_, answer) = post(&mock, REFRESH, mock.sign_in("alice").refresh_token()).await;
    assert_eq!(answer["refresh"]["expiresAt"], 12);
    assert_eq!(answer.get("user"), None);
}

#[tokio::test]
async fn a_reused_refresh_token_is_rejected_as_such() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    let next = successor(&mock, session.refresh_token()).await;

    let (status, answer) = post(&mock, REFRESH, session.refresh_token()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer, json!({ "error": "Unauthorized", "message": "Refresh token has been used" }));
    assert_eq!(mock.reuse_detections(), 1);
    assert_eq!(post(&mock, REFRESH, &next).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(post(&mock, REFRESH, "junk").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(mock.reuse_detections(), 1);
}

#[tokio::test]
async fn a_logout_revokes_the_session() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    let next = successor(&mock, session.refresh_token()).await;
    assert_eq!(mock.live_sessions(), 1);
    assert_eq!(post(&mock, LOGOUT, session.refresh_token()).await, (StatusCode::OK, json!({})));
    assert_eq!(mock.live_sessions(), 0);
    assert!(!mock.is_live(&next));
}

#[tokio::test]
async fn a_user_is_found_by_an_encoded_id() {
    let mock = MockCrossmint::start().await;
    let _session = mock.sign_in("email:a/b é@c");
    let user: Value = fetch(&mock, &format!("{USER}email%3Aa%2fb%20%C3%A9@c")).await.json().await.unwrap();
    assert_eq!(user, json!({ "id": "email:a/b é@c" }));
    for unknown in ["bob", "%", "%2", "%zz", "%ff", "%+1"] {
        assert_eq!(fetch(&mock, &format!("{USER}{unknown}")).await.status(), StatusCode::NOT_FOUND, "{unknown}");
    }
    assert_eq!(mock.calls(Endpoint::User), 7);
}

#[tokio::test]
async fn a_call_that_is_none_is_refused() {
    let mock = MockCrossmint::start().await;
    assert_eq!(fetch(&mock, "/nowhere").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch(&mock, USER).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(mock.calls(Endpoint::Elsewhere), 2);

    let response = fetch(&mock, REFRESH).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "POST");

    let url = format!("{}{REFRESH}", mock.base_url());
    let session = mock.sign_in("alice");
    let good = json!({ "refresh": session.refresh_token() }).to_string();
    for key in [None, Some("sk_production_other")] {
        let request = client().post(&url).body(good.clone());
        let request = if let Some(key) = key { request.header("x-api-key", key) } else { request };
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    for body in ["", "{}", "[]", "{\"refresh\":1}", "{", "\u{0}", &"[".repeat(60_000), &" ".repeat(100_000)] {
        let request = client().post(&url).header("x-api-key", mock.api_key()).body(body.to_owned());
        assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    }
    assert!(mock.is_live(session.refresh_token()));
}

#[tokio::test]
async fn a_recorded_request_holds_everything_and_prints_no_secret() {
    let mock = MockCrossmint::start().await;
    let session = mock.sign_in("alice");
    post(&mock, REFRESH, session.refresh_token()).await;

    let requests = mock.requests(Endpoint::Refresh);
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.method(), "POST");
    assert_eq!(request.path(), REFRESH);
    assert_eq!(request.header("x-api-key"), Some(mock.api_key()));
    assert_eq!(request.json(), Some(json!({ "refresh": session.refresh_token() })));

    let printed = format!("{requests:#?} {session:#?} {mock:#?}");
    for secret in [mock.api_key(), session.refresh_token(), session.jwt()] {
        assert!(!printed.contains(secret));
    }
}
