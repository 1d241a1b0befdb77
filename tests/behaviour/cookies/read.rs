//! How cookies are read.

use serde_json::json;
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::support::{
    answer::{ENDED, JWT, REFRESH, unauthorized},
    app::App,
    direct::{app, auth, get},
    mock::{Calls, NO_CALLS, calls},
};

#[tokio::test]
async fn the_credentials_are_found_among_any_other_cookies() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    app.auth.warm_up().await.unwrap();
    let (alice, bob) = (mock.sign_in("alice"), mock.sign_in("bob"));
    let jwt = format!("{JWT}={}", alice.jwt());
    let token = format!("{REFRESH}={}", alice.refresh_token());
    let unscoped = alice.legacy_cookie_header();
    let others: String = (0..1000).map(|n| format!("c{n}={n}; ")).collect();
    for (case, cookie) in [
        ("a field for each, as HTTP/2 splits them", format!("theme=dark\n{jwt}\n{token}")),
        ("no space between", format!("{jwt};{token}")),
        ("space and tab between", format!(" {jwt} ;\t {token}\t")),
        ("empty pairs between", format!(";; {jwt};;;{token}; ;")),
        ("the same twice", format!("{jwt}; {token}; {jwt}\n{token}")),
        ("beside empty ones", format!("{JWT}=; {jwt}; {REFRESH}=; {token}; {REFRESH}= ")),
        ("beside the bare name", format!("{JWT}; {jwt}; {token}")),
        ("beside a nameless cookie", format!("={JWT}=evil; {jwt}; {token}")),
        ("beside other names", format!("{JWT}2=x; x-{JWT}=x; Crossmint-JWT-mock-project=x; {jwt}; {token}")),
        ("beside Unicode white space", format!("\u{2000}{JWT}=x; {jwt}; \u{a0}{REFRESH}=x; {token}")),
        ("beside another project's", format!("crossmint-jwt-other=x; crossmint-refresh-token-other=y; {jwt}; {token}")),
        ("inside of quotes", format!("$Version=1; a=\"x; {jwt}; {token}; b=y\"")),
        ("behind a thousand others", format!("{others}{jwt}; {token}")),
        ("unscoped", unscoped.clone()),
        ("beside another user's unscoped ones", format!("{}; {jwt}; {token}", bob.legacy_cookie_header())),
        ("beside unscoped ones that differ", format!("{unscoped}; {}; {jwt}; {token}", bob.legacy_cookie_header())),
        ("an unscoped refresh token with a scoped JWT", format!("{unscoped}; {jwt}")),
    ] {
        let answer = app.get("/me", cookie).await;
        answer.assert_passed("alice", case);
        assert_eq!(answer.json()["refreshToken"], alice.refresh_token(), "{case}");
    }
    let foreign = [b"name=\xe9\xff; ", alice.cookie_header().as_bytes(), b"; \xff=x"].concat();
    app.get("/me", foreign).await.assert_passed("alice", "beside foreign bytes");
    assert_eq!(calls(&mock), Calls { keys: 1, ..NO_CALLS });
}

#[tokio::test]
async fn the_session_is_found_among_twenty_thousand_cookies() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let others = "a=b; ".repeat(20_000);
    let alice = mock.sign_in("alice").cookie_header();
    for cookie in
        [format!("{others}{alice}"), format!("{alice}; {others}"), format!("x={}; {alice}", "y".repeat(300_000))]
    {
        assert_eq!(get(&app, "/", &cookie).await.user().as_deref(), Some("alice"));
    }
}

#[tokio::test]
async fn a_scoped_refresh_token_is_not_paired_with_an_unscoped_jwt() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let cookie =
        format!("crossmint-jwt={}; {REFRESH}={}", mock.sign_in("bob").jwt(), mock.sign_in("alice").refresh_token());
    app.get("/me", cookie).await.assert_refreshed("alice", "");
}

#[tokio::test]
async fn the_value_is_everything_after_the_first_equals_sign() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    for (calls, token) in ["a=b==", "=", "r%3B1", "r+1"].into_iter().enumerate() {
        app.get("/me", format!("{REFRESH}={token}")).await.assert_ended(ENDED, token);
        assert_eq!(mock.requests(Endpoint::Refresh)[calls].json(), Some(json!({ "refresh": token })));
    }
}

#[tokio::test]
async fn ambiguous_and_invalid_credentials_are_rejected_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = App::serve(&mock).await;
    let alice = mock.sign_in("alice").cookie_header();
    let (jwt, long) = (mock.sign_in("bob").jwt().to_owned(), "r".repeat(4097));
    for (case, cookie) in [
        ("two JWTs", format!("{alice}; {JWT}={jwt}")),
        ("two refresh tokens", format!("{REFRESH}=x; {alice}")),
        ("two refresh tokens in two fields", format!("{alice}\n{REFRESH}=x")),
        ("three JWTs, two of them equal", format!("{JWT}={jwt}; {alice}; {JWT}={jwt}")),
        ("a space in the refresh token", format!("{REFRESH}=a b")),
        ("a quote in the refresh token", format!("{REFRESH}=\"ab\"")),
        ("a comma in the refresh token", format!("{REFRESH}=a,b")),
        ("a backslash in the refresh token", format!("{REFRESH}=a\\b")),
        ("a foreign letter in the refresh token", format!("{REFRESH}=é")),
        ("a refresh token that no cookie can hold", format!("{REFRESH}={long}")),
    ] {
        app.get("/me", cookie).await.assert_ended(ENDED, case);
    }
    app.get("/me", [REFRESH.as_bytes(), b"=\xff"].concat()).await.assert_ended(ENDED, "a foreign byte in it");
    let unscoped = format!("{}; crossmint-jwt=other", mock.sign_in("alice").legacy_cookie_header());
    let answer = app.get("/me", unscoped).await;
    assert_eq!((answer.status, answer.body), (401, unauthorized(ENDED)), "two unscoped JWTs");
    assert_eq!((calls(&mock), app.served()), (NO_CALLS, 0));
}

#[tokio::test]
async fn huge_cookies_are_rejected_without_a_call() {
    let mock = MockCrossmint::start().await;
    let app = app(&auth(&mock));
    let (big, crowd) = ("A".repeat(400 << 10), "a=b;".repeat(100_000));
    for cookie in [format!("{JWT}=x; {REFRESH}={big}"), format!("{crowd}{REFRESH}={big}"), crowd] {
        assert_eq!(get(&app, "/", &cookie).await.status, 401);
    }
    assert_eq!(mock.connections(), 0);
}
