//! What handles, layers and configurations share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use futures_util::future::join_all;
use http::Method;
use tower::ServiceExt as _;
use tower_crossmint_auth::{
    ApiKey, AuthErrorKind, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthConfigBuilder, CrossmintAuthLayer,
    Environment,
    testing::{Endpoint, MockCrossmint},
};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::support::{
    app::App,
    direct::{app, auth, get, post, request},
    events::Events,
    mock::{Calls, NO_CALLS, calls, expired, material},
};

#[tokio::test]
async fn clones_and_layers_share_the_key_set_the_token_cache_and_the_refreshes() {
    let mock = MockCrossmint::start().await;
    let auth = auth(&mock);
    let layer = CrossmintAuthLayer::from(auth.clone());
    let (app, same) = (app(&auth), layer.auth().clone());
    let alice = expired(&mock, "alice");
    let refreshed = auth.get_session(&material(&alice)).await.unwrap();
    assert_eq!(same.get_session(&material(&alice)).await.unwrap().jwt(), refreshed.jwt());
    let answer = get(&app, "/", &alice.cookie_header()).await;
    assert_eq!(answer.set_cookie()[0].value(), refreshed.jwt());
    assert_eq!(calls(&mock), Calls { keys: 1, refreshes: 1, ..NO_CALLS });

    // The JWT is allocated once, in the shared cache.
    let bob = material(&mock.sign_in("bob"));
    let sessions = [auth.get_session(&bob).await.unwrap(), same.get_session(&bob).await.unwrap()];
    assert_eq!(sessions[0].jwt().as_ptr(), sessions[1].jwt().as_ptr());

    post(&app, "/api/auth/logout", &answer.cookie_header()).await;
    let late = auth.get_session(&material(&alice)).await.unwrap_err();
    assert_eq!((late.kind(), mock.calls(Endpoint::Refresh)), (AuthErrorKind::Refused, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_made_from_clones_of_one_configuration_refresh_a_session_once() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().build().unwrap();
    let of = |config| App::with(CrossmintAuthLayer::new(config).auth().clone());
    let apps = [of(config.clone()).await, of(config).await];
    let alice = expired(&mock, "alice").cookie_header();
    let hold = mock.hold(Endpoint::Refresh);
    let requests = join_all((0..20).map(|number| apps[number % 2].get("/", &alice)));
    let release = async {
        mock.called(Endpoint::Refresh, 1).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(requests, release);
    for (number, answer) in answers.iter().enumerate() {
        answer.assert_refreshed("alice", &format!("request {number}"));
        assert_eq!(answer.cookie_header(), answers[0].cookie_header(), "request {number}");
    }
    for app in &apps {
        app.get("/", &alice).await.assert_refreshed("alice", "a latecomer");
        app.get("/", answers[0].cookie_header()).await.assert_passed("alice", "the browser's next request");
    }
    assert_eq!((calls(&mock), mock.live_sessions()), (Calls { keys: 1, refreshes: 1, ..NO_CALLS }, 1));
}

#[tokio::test]
async fn a_configuration_keeps_no_handle_alive() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().build().unwrap();
    for handles in 1..=2 {
        let auth = CrossmintAuth::new(config.clone());
        auth.warm_up().await.unwrap();
        CrossmintAuth::new(config.clone()).warm_up().await.unwrap();
        assert_eq!(mock.calls(Endpoint::Keys), handles, "the key set is dropped with the last handle");
        auth.wait_idle().await;
    }
}

#[tokio::test]
async fn a_configuration_reuses_its_handle_while_one_of_its_tasks_runs() {
    let mock = MockCrossmint::start().await;
    let config = mock.config().build().unwrap();
    let alice = expired(&mock, "alice").cookie_header();
    let hold = mock.hold_answers(Endpoint::Refresh);
    let request_to_drop = app(&CrossmintAuth::new(config.clone())).oneshot(request::<Body>(Method::GET, "/", &alice));
    tokio::select! {
        _ = request_to_drop => panic!("the answer is held"),
        () = mock.called(Endpoint::Refresh, 1) => {}
    }
    let auth = CrossmintAuth::new(config);
    let app = app(&auth);
    let (answer, ()) = tokio::join!(get(&app, "/", &alice), async { hold.release() });
    answer.assert_refreshed("alice", "the first client has hung up, and all its handles are dropped");
    assert_eq!((mock.calls(Endpoint::Refresh), mock.reuse_detections()), (1, 0));
}

#[tokio::test]
async fn a_second_handle_for_a_project_is_warned_of_once() {
    let events = Events::capture(Level::WARN);
    let (mock, elsewhere) = (MockCrossmint::start().await, MockCrossmint::start().await);
    let other = || CrossmintAuthConfig::builder(ApiKey::unverified("other", Environment::Development));
    let rows: [(&str, [CrossmintAuthConfig; 2], usize); 3] = [
        ("another base URL", [mock.config(), elsewhere.config()].map(built), 0),
        ("another project", [mock.config(), other().base_url(mock.base_url())].map(built), 0),
        ("the same project", [mock.config(), mock.config().refresh_route("/refresh")].map(built), 1),
    ];
    for (name, configs, expected) in rows {
        let before = events.texts().len();
        let handles = configs.clone().map(CrossmintAuth::new);
        let _layers = configs.map(CrossmintAuthLayer::new);
        let _others = handles.map(CrossmintAuthLayer::from);
        let lines = events.texts().split_off(before);
        assert_eq!(lines.len(), expected, "{name}: {lines:?}");
        let advice = "use `CrossmintAuthLayer::from(auth.clone())`";
        assert!(lines.iter().all(|line| line.starts_with("WARN") && line.contains(advice)), "{name}: {lines:?}");
    }
    let before = events.texts().len();
    for _ in 0..3 {
        let _alone = auth(&mock);
    }
    assert_eq!(events.texts().len(), before, "one after the other");
    let _three = [auth(&mock), auth(&mock), auth(&mock)];
    assert_eq!(events.texts().len(), before + 1, "three at once");
}

#[test]
fn a_subscriber_may_create_a_handle_while_it_is_warned_of_one() {
    struct Creates(CrossmintAuthConfig, AtomicUsize);
    impl Subscriber for Creates {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            if *event.metadata().level() == Level::WARN {
                self.1.fetch_add(1, Ordering::Relaxed);
                let _handle = CrossmintAuth::new(self.0.clone());
            }
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }
    let config =
        || CrossmintAuthConfig::builder(ApiKey::unverified("reentrant", Environment::Development)).build().unwrap();
    let (first, second) = (config(), config());
    let subscriber = Arc::new(Creates(second.clone(), AtomicUsize::new(0)));
    tracing::subscriber::with_default(Arc::clone(&subscriber), || {
        let _handles = [first, second].map(CrossmintAuth::new);
    });
    assert_eq!(subscriber.1.load(Ordering::Relaxed), 1);
}

fn built(config: CrossmintAuthConfigBuilder) -> CrossmintAuthConfig {
    config.build().unwrap()
}
