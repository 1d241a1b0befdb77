//! The metrics, as an exporter renders them.

use std::time::Duration;

use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use tower_crossmint_auth::testing::{Endpoint, Fault, MockCrossmint};

use crate::support::{
    answer::LOGOUT_ROUTE,
    direct::{app, auth, get, post},
    mock::expired,
};

#[tokio::test]
async fn an_exporter_shows_what_crossmint_has_seen() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let prometheus = recorder.handle();
    let mock = MockCrossmint::start().await;
    // The metrics are those of the recorder at this moment, and of none that is installed later.
    let auth = metrics::with_local_recorder(&recorder, || auth(&mock));
    let app = app(&auth);
    auth.warm_up().await.unwrap();

    let alice = mock.sign_in("alice").cookie_header();
    for _ in 0..3 {
        assert_eq!(get(&app, "/", &alice).await.status, 200);
    }
    let hold = mock.hold(Endpoint::Refresh);
    let bob = expired(&mock, "bob").cookie_header();
    let both = join_all((0..2).map(|_| get(&app, "/", &bob)));
    let scrape = async {
        mock.called(Endpoint::Refresh, 1).await;
        let text = prometheus.render();
        hold.release();
        text
    };
    let (_, during) = tokio::join!(both, scrape);
    assert_eq!(value(&during, "refreshes_in_flight{"), 1.0);
    mock.inject(Endpoint::Refresh, Fault::Status(401));
    get(&app, "/", &expired(&mock, "carol").cookie_header()).await;
    mock.inject(Endpoint::Refresh, Fault::Status(500));
    get(&app, "/", &expired(&mock, "dave").cookie_header()).await;
    get(&app, "/", "").await;
    post(&app, LOGOUT_ROUTE, &alice).await;

    let text = prometheus.render();
    let calls = mock.calls(Endpoint::Refresh) as f64;
    for (name, expected) in [
        // A logout is none.
        ("cache_hits_total{", 2.0),
        ("verifications_total{", 2.0),
        ("refreshes_total{", calls),
        ("refreshes_succeeded_total{", 1.0),
        ("refreshes_failed_total{", 2.0),
        ("joined_total{", 1.0),
        ("reloads_total{", mock.calls(Endpoint::Keys) as f64),
        ("logouts_total{", mock.calls(Endpoint::Logout) as f64),
        ("refreshes_in_flight{", 0.0),
        (r#"rejections_total{project="mock-project",kind="missing_credentials"}"#, 1.0),
        (r#"rejections_total{project="mock-project",kind="refused"}"#, 1.0),
        (r#"rejections_total{project="mock-project",kind="unavailable"}"#, 1.0),
        (r#"refresh_seconds_count{project="mock-project",outcome="success"}"#, 1.0),
        (r#"refresh_seconds_count{project="mock-project",outcome="refused"}"#, 1.0),
        (r#"refresh_seconds_count{project="mock-project",outcome="unavailable"}"#, 1.0),
    ] {
        assert_eq!(value(&text, name), expected, "{name}");
    }
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let loaded = Duration::from_secs_f64(value(&text, "key_set_loaded_timestamp_seconds{"));
    assert!(loaded <= since && since - loaded < Duration::from_secs(600), "{loaded:?}");
    for (name, value) in auth.stats().counters() {
        assert!(text.contains(&format!("{name}{{project=\"mock-project\"}} {value}\n")), "{name} {value}: {text}");
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.ends_with('.') && !help.contains('`')), "{name}: {help:?}");
    }
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(&format!("crossmint_auth_{name}")));
    let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
