//! The shortest realistic application: a public page, and a route that requires a session.
//!
//! ```sh
//! SERVER_CROSSMINT_API_KEY=sk_... cargo run --example axum --features axum
//! ```

use std::{env, error::Error, iter, process::ExitCode};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, signal};
use tower_crossmint_auth::{
    CookieOptions, CrossmintAuth, CrossmintAuthConfig, CrossmintAuthLayer, OutagePolicy, Session,
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let api_key = env::var("SERVER_CROSSMINT_API_KEY")
        .map_err(|_| "set SERVER_CROSSMINT_API_KEY to a server key (`sk_...`) from the Crossmint console")?;
    let config = CrossmintAuthConfig::builder(api_key)
        // Chrome and Firefox accept `Secure` cookies from http://localhost. Safari does not: to develop with it, add
        // `.secure(false)`.
        .cookies(CookieOptions::hardened())
        // Scripts see the JWT only: the refresh token stays in its HttpOnly cookie.
        .expose_refresh_secret(false)
        // An outage at Crossmint signs no one out.
        .on_outage(OutagePolicy::KeepSession)
        .build()?;

    let auth = CrossmintAuth::new(config);
    if let Err(error) = auth.warm_up().await {
        eprintln!("warning: cannot load the key set from {}: {}", auth.jwks_uri(), with_causes(&error));
        eprintln!("warning: requests are rejected until it is loaded; the next request tries again");
    }

    let app = Router::new()
        .route("/me", get(me))
        .layer(CrossmintAuthLayer::from(auth.clone()))
        // Routes that are added after the layer are public.
        .route("/", get(|| async { "Hello, guest\n" }));

    let listener = TcpListener::bind("127.0.0.1:3000").await.map_err(|error| format!("127.0.0.1:3000: {error}"))?;
    println!("listening on http://localhost:3000");
    axum::serve(listener, app).with_graceful_shutdown(async { signal::ctrl_c().await.unwrap_or_default() }).await?;
    // A refresh in flight may hold the only copy of a user's new refresh token.
    auth.wait_idle().await;
    Ok(())
}

async fn me(session: Session) -> String {
    format!("Hello {}\n", session.user_id())
}

/// Joins an error's text with those of its sources.
fn with_causes(error: &dyn Error) -> String {
    iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
