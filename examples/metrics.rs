//! Metrics in the format of Prometheus, of a server that a mock of Crossmint signs users in for.
//!
//! ```sh
//! cargo run --example metrics --features axum,metrics,testing
//! curl http://localhost:3000/metrics
//! ```
//!
//! With `-- --once`, it serves a few requests, prints what a scrape returns, and ends.

use std::{env, error::Error};

use axum::{Router, body::Body, http::Request, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use tower_crossmint_auth::{CrossmintAuth, CrossmintAuthLayer, Session, testing::MockCrossmint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before the handle is created: its metrics belong to the recorder of that moment.
    let prometheus = PrometheusBuilder::new()
        // Without buckets, the exporter renders a summary, which cannot be aggregated over replicas.
        .set_buckets_for_metric(
            Matcher::Full("crossmint_auth_refresh_seconds".to_owned()),
            &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
        )?
        .install_recorder()?;
    let mock = MockCrossmint::start().await;
    let auth = CrossmintAuth::new(mock.config().build()?);

    let app = Router::new()
        .route("/me", get(|session: Session| async move { session.user_id().to_owned() }))
        .route_layer(CrossmintAuthLayer::from(auth.clone()))
        .route("/metrics", get(async move || prometheus.render()))
        .merge(auth.routes());

    let cookies = [mock.session("alice").jwt_lifetime(-60).create().cookie_header(), String::new()];
    for cookie in cookies.iter().cycle().take(5) {
        app.clone().oneshot(Request::get("/me").header("cookie", cookie).body(Body::empty())?).await?;
    }
    if env::args().any(|argument| argument == "--once") {
        let scrape = app.oneshot(Request::get("/metrics").body(Body::empty())?).await?;
        println!("{}", String::from_utf8(axum::body::to_bytes(scrape.into_body(), 1 << 20).await?.to_vec())?);
        return Ok(());
    }
    println!("listening on http://localhost:3000");
    Ok(axum::serve(TcpListener::bind("127.0.0.1:3000").await?, app).await?)
}
