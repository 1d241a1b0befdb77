//! Table P: handlers that panic, and runtimes that end. Waiters get an error, and later requests succeed.

use std::time::Duration;

use axum::{Router, routing::any};
use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Runtime};
use tower_crossmint_auth::{
    CrossmintAuthLayer, OutagePolicy,
    testing::{Endpoint, Fault, MockSession},
};

use crate::{
    matrix::stage::{Scene, Stage, assert_inconclusive, keeping},
    support::{
        answer::{ENDED, LOGOUT_ROUTE},
        clock::pass,
        direct,
        mock::{Calls, NO_CALLS, expired},
    },
};

#[tokio::test]
async fn a_handler_that_panics_loses_no_session() {
    async fn panicking() {
        panic!("on purpose");
    }
    let stage = Stage::new(keeping).await;
    let scene = Scene::of(&stage);
    let (valid, lapsed) = (stage.mock.sign_in("alice"), expired(&stage.mock, "bob"));
    let broken = Router::new().fallback(any(panicking)).layer(CrossmintAuthLayer::from(scene.auth.clone()));
    for cookie in [&valid, &lapsed].map(MockSession::cookie_header) {
        let app = broken.clone();
        let request = tokio::spawn(async move { direct::get(&app, "/me", &cookie).await });
        assert!(request.await.unwrap_err().is_panic());
    }
    scene.get(&valid).await.assert_passed("alice", "valid");
    scene.get(&lapsed).await.assert_refreshed("bob", "refreshed before the panic");
    assert_eq!(scene.calls(), Calls { keys: 1, refreshes: 1, ..NO_CALLS });
}

#[test]
fn a_runtime_that_ends_loses_its_calls_and_no_session() {
    struct Row {
        case: &'static str,
        endpoint: Endpoint,
        fault: Fault,
        calls: Calls,
    }
    let alive = Builder::new_current_thread().enable_all().build().unwrap();
    let stage = alive.block_on(Stage::new(|config| keeping(config).max_concurrent_refreshes(1)));
    let mock = &stage.mock;
    mock.set_reuse_grace(Duration::from_secs(30));
    for Row { case, endpoint, fault, calls } in [
        Row { case: "keys", endpoint: Endpoint::Keys, fault: Fault::Hang, calls: Calls { keys: 2, ..NO_CALLS } },
        Row {
            case: "a refresh",
            endpoint: Endpoint::Refresh,
            fault: Fault::Hang,
            calls: Calls { keys: 1, refreshes: 2, ..NO_CALLS },
        },
        Row {
            case: "a refresh after processing",
            endpoint: Endpoint::Refresh,
            fault: Fault::HangAfterCommit,
            calls: Calls { keys: 1, refreshes: 2, ..NO_CALLS },
        },
    ] {
        let lost = runtime();
        let scene = Scene::of(&stage);
        let alice = if endpoint == Endpoint::Keys { mock.sign_in("alice") } else { expired(mock, "alice") };
        let (app, auth, cookie) = (scene.app.clone(), scene.auth.clone(), alice.cookie_header());
        if endpoint == Endpoint::Refresh {
            let warm = lost.spawn(async move { auth.warm_up().await });
            alive.block_on(warm).unwrap().unwrap();
        }
        mock.inject(endpoint, fault);
        let arrived = mock.calls(endpoint) + 1;
        let lost_request = lost.spawn(async move { direct::get(&app, "/me", &cookie).await });
        alive.block_on(async {
            mock.called(endpoint, arrived).await;
            let mut waiting = Box::pin(scene.get(&alice));
            assert!((&mut waiting).now_or_never().is_none(), "{case}");
            lost.shutdown_background();
            assert!(lost_request.await.unwrap_err().is_cancelled(), "{case}");
            assert_inconclusive(&waiting.await, OutagePolicy::KeepSession, case);

            mock.clear_faults();
            pass(Duration::from_secs(1)).await;
            let next = scene.get(&alice).await;
            if endpoint == Endpoint::Keys {
                next.assert_passed("alice", case);
            } else {
                next.assert_refreshed("alice", case);
            }
            scene.get(&expired(mock, "bob")).await.assert_refreshed("bob", case);
        });
        assert_eq!(scene.calls(), Calls { refreshes: calls.refreshes + 1, ..calls }, "{case}");
        alive.block_on(async {
            mock.close_connections();
            mock.disconnected().await;
        });
    }
}

#[test]
fn a_runtime_that_ends_releases_the_permit_of_its_logout() {
    let alive = Builder::new_current_thread().enable_all().build().unwrap();
    let stage = alive.block_on(Stage::new(|config| keeping(config).max_concurrent_refreshes(1)));
    let scene = Scene::of(&stage);
    let mock = &stage.mock;
    let (alice, bob) = (expired(mock, "alice"), expired(mock, "bob"));
    mock.inject(Endpoint::Logout, Fault::Hang);
    let lost = runtime();
    let (app, cookie) = (scene.app.clone(), alice.cookie_header());
    let lost_request = lost.spawn(async move { direct::post(&app, LOGOUT_ROUTE, &cookie).await });
    alive.block_on(async {
        mock.called(Endpoint::Logout, 1).await;
        lost.shutdown_background();
        assert!(lost_request.await.unwrap_err().is_cancelled());
        // The call to Crossmint is another task of the runtime that ended.
        scene.auth.wait_idle().await;
        mock.clear_faults();
        scene.get(&alice).await.assert_ended(ENDED, "");
        assert_eq!(scene.post(LOGOUT_ROUTE, &bob.cookie_header()).await.status, 200);
        assert_eq!(
            (scene.calls(), mock.is_live(bob.refresh_token())),
            (Calls { keys: 1, logouts: 2, ..NO_CALLS }, false)
        );
    });
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
