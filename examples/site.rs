//! A site with pages for everyone, pages that redirect to a login page, and an API, all on one handle.
//!
//! It signs users in with a mock of Crossmint, so that it needs no API key:
//!
//! ```sh
//! cargo run --example site --features axum,testing
//! ```

use std::{error::Error, sync::Arc};

use axum::{
    Router,
    extract::{Form, Query, State},
    http::HeaderMap,
    response::{Html, IntoResponse, Redirect},
    routing::get,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower_crossmint_auth::{
    AuthError, Bearer, CrossmintAuth, CrossmintAuthLayer, LoginPage, OutagePolicy, Session, Unauthenticated,
    testing::MockCrossmint,
};

#[derive(Clone)]
struct Site {
    auth: CrossmintAuth,
    mock: Arc<MockCrossmint>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mock = Arc::new(MockCrossmint::start().await);
    let auth = CrossmintAuth::new(mock.config().after_logout("/").on_outage(OutagePolicy::KeepSession).build()?);
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://localhost:3000");
    println!(
        "the API takes a token: curl -H 'Authorization: Bearer {}' http://localhost:3000/api/orders",
        mock.sign_in("carol").jwt()
    );
    Ok(axum::serve(listener, app(Site { auth, mock })?).await?)
}

fn app(site: Site) -> Result<Router, Box<dyn Error>> {
    let layer = CrossmintAuthLayer::from(site.auth.clone());
    let public = layer.clone().unauthenticated(Unauthenticated::Allow);
    let pages = layer.clone().unauthenticated(Unauthenticated::Redirect(LoginPage::new("/login")?));
    let api = layer.bearer(Bearer::Accept);
    Ok(Router::new()
        .merge(Router::new().route("/", get(home)).route_layer(public))
        .merge(Router::new().route("/orders", get(orders)).route_layer(pages))
        .merge(Router::new().route("/api/orders", get(api_orders)).route_layer(api))
        .route("/login", get(login_page).post(login))
        .merge(site.auth.routes())
        .with_state(site))
}

async fn home(session: Option<Session>) -> Html<String> {
    let greeting = match session {
        Some(session) => format!(
            r#"Hello, {}. <form action="/api/auth/logout" method="post"><button>Sign out</button></form>"#,
            escape(session.user_id())
        ),
        None => "Hello, guest.".to_owned(),
    };
    Html(format!(r#"{greeting}<p><a href="/orders?page=1">Your orders</a>"#))
}

async fn orders(session: Session) -> Html<String> {
    Html(format!(r#"The orders of {}. <a href="/">Home</a>"#, escape(session.user_id())))
}

async fn api_orders(session: Session) -> String {
    format!("[\"an order of {}\"]\n", session.user_id())
}

#[derive(Deserialize)]
struct Login {
    return_to: Option<String>,
    #[serde(default)]
    user: String,
}

async fn login_page(Query(login): Query<Login>) -> Html<String> {
    let return_to = escape(login.return_to.as_deref().unwrap_or("/"));
    Html(format!(
        r#"<form method="post"><input name="user" value="alice"><input type="hidden" name="return_to" value="{return_to}">
        <button>Sign in</button></form>"#
    ))
}

/// With Crossmint itself, the browser SDK signs the user in and posts the one-time secret to the refresh route.
async fn login(State(site): State<Site>, Form(login): Form<Login>) -> Result<impl IntoResponse, AuthError> {
    let material = site.auth.refresh(&site.mock.one_time_secret(&login.user)).await?;
    let mut headers = HeaderMap::new();
    site.auth.store_auth_material(&mut headers, &material)?;
    // Anybody can write a link to this page, with any `return_to`.
    let return_to = login.return_to.as_deref().and_then(LoginPage::local_path).unwrap_or("/");
    Ok((headers, Redirect::to(return_to)))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
