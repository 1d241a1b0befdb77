//! No page of another site opens a WebSocket with the session of the user.

use std::convert::Infallible;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::ORIGIN},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tower_crossmint_auth::{CookieOptions, SameSite, Session};

use crate::{
    site::{App, Site},
    webdriver::Browser,
};

#[tokio::test]
async fn only_pages_of_the_site_open_a_web_socket() {
    let Some(browser) = Browser::start().await else { return };
    let without_headers = |headers: &mut HeaderMap| {
        headers.remove("sec-fetch-site");
        headers.remove(ORIGIN);
    };
    let with_headers = |_: &mut HeaderMap| {};
    for (case, edit, foreign) in [
        ("as it is", with_headers as fn(&mut HeaderMap), "refused"),
        ("without the headers of browsers", without_headers, "open"),
    ] {
        // Cross-site requests carry these cookies.
        let options = CookieOptions::default().secure(true).same_site(SameSite::None);
        let users = Router::new().route("/ws", get(open));
        let app = App::serve("app.localhost", |config| config.cookies(options), users, edit).await;
        let session = app.sign_in(&browser, "alice").await;
        let other = Site::page("<p>Hello</p>".to_owned()).await;
        for (host, page, expected) in [
            ("the site", app.url("/"), "open"),
            ("another", other.url("evil.localhost", "/"), foreign),
            ("a sibling", other.url("sibling.app.localhost", "/"), foreign),
        ] {
            let case = format!("{case}, {host}");
            let target = format!("/ws?{}", host.replace(' ', "-"));
            browser.open(&page).await;
            let url = app.url(&target).replace("http:", "ws:");
            let script = format!(
                "return new Promise(done => {{
                    const socket = new WebSocket('{url}');
                    socket.onopen = () => done('open');
                    socket.onerror = () => done('refused');
                }})"
            );
            assert_eq!(browser.run(&script).await, expected, "{case}");
            let visit = app.visited(&target).await;
            assert!(visit.has_cookies && visit.origin.is_some(), "{case}: {visit:?}");
            assert!(app.is_alive(&browser, &session).await, "{case}: the user is signed out");
        }
    }
}

/// Opens a WebSocket (RFC 6455 section 4.2.2), and closes it at once.
async fn open(_: Session, request: HeaderMap) -> Result<(StatusCode, HeaderMap), Infallible> {
    let mut text = request["sec-websocket-key"].as_bytes().to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text));
    let mut headers = HeaderMap::new();
    for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", &*accept)] {
        headers.insert(name, value.parse().unwrap());
    }
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers))
}
