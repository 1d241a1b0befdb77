//! Table L: a logout succeeds, whether or not its call does.

use serde_json::json;
use tower_crossmint_auth::testing::{Endpoint, MockCrossmint};

use crate::{
    matrix::{
        failures::failures,
        stage::{Scene, Stage, keeping},
    },
    support::{
        answer::{ENDED, JWT, LOGOUT_ROUTE, REFRESH},
        direct,
        mock::{Calls, NO_CALLS, expired},
    },
};

#[tokio::test]
async fn a_logout_succeeds_whatever_happens_to_the_call() {
    let stage = Stage::new(|config| keeping(config).max_concurrent_refreshes(3)).await;
    for failure in failures() {
        let case = failure.name;
        let scene = failure.scene(&stage);
        let mock = &stage.mock;
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| expired(mock, user));
        let live = mock.live_sessions();
        let successor = scene.get(&carol).await;
        let out = async |cookie: &str| {
            let answer = scene.post(LOGOUT_ROUTE, cookie).await;
            assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{case}");
            assert!(answer.clears(&[JWT, REFRESH]), "{case}: {answer:?}");
        };

        failure.begin(&scene, Endpoint::Logout).await;
        let cookies = [alice.cookie_header(), mock.sign_in("bob").cookie_header(), carol.cookie_header()];
        let [unknown, valid, rotated] = cookies.each_ref().map(|cookie| out(cookie));
        let all = async { tokio::join!(unknown, valid, rotated) };
        let nothing = async || out("").await;
        failure.wait_through(&scene, Endpoint::Logout, 3, all, nothing).await;
        nothing().await;
        let logouts = 3 * failure.arrivals();
        assert_eq!(
            (scene.calls(), mock.calls(Endpoint::Elsewhere)),
            (Calls { keys: 1, refreshes: 1, logouts, ..NO_CALLS }, 0),
            "{case}"
        );
        if failure.arrivals() > 0 {
            let last: Vec<_> = mock.requests(Endpoint::Logout).into_iter().rev().take(3).collect();
            let secret = json!({ "refresh": successor.json()["refreshToken"] });
            assert!(last.iter().any(|request| request.json() == Some(secret.clone())), "{case}: the latest token");
        }

        failure.end(&scene);
        for over in [&alice, &carol] {
            scene.get(over).await.assert_ended(ENDED, case);
        }
        assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, logouts, ..NO_CALLS }, "{case}");
        // The permits are free again.
        out(&bob.cookie_header()).await;
        assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, logouts: logouts + 1, ..NO_CALLS }, "{case}");
        let ended = if failure.commits() { 4 } else { 1 };
        assert_eq!(live + 1 - mock.live_sessions(), ended, "{case}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_logged_out_all_the_same() {
    let stage = Stage::new(keeping).await;
    for hold in [MockCrossmint::hold, MockCrossmint::hold_answers] {
        let scene = Scene::of(&stage);
        let alice = expired(&stage.mock, "alice");
        let arrived = stage.mock.calls(Endpoint::Logout) + 1;
        let held = hold(&stage.mock, Endpoint::Logout);
        let (app, cookie) = (scene.app.clone(), alice.cookie_header());
        let dropped = tokio::spawn(async move { direct::post(&app, LOGOUT_ROUTE, &cookie).await });
        stage.mock.called(Endpoint::Logout, arrived).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        held.release();
        scene.auth.wait_idle().await;
        assert!(!stage.mock.is_live(alice.refresh_token()));
        scene.get(&alice).await.assert_ended(ENDED, "");
        assert_eq!(scene.calls(), Calls { keys: 1, logouts: 1, ..NO_CALLS });
    }
}
