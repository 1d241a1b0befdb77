//! Cookies that a sibling subdomain has planted sign no user in.

use axum::{Router, http::HeaderMap, routing::get};
use tower_crossmint_auth::CookieOptions;

use crate::{
    site::{App, Site},
    webdriver::Browser,
};

/// A deletion does not touch a partitioned cookie of the same name, domain and path.
#[tokio::test]
async fn planted_cookies_sign_no_user_in_as_another() {
    for (case, attribute) in [("as usual", ""), ("partitioned", "; Partitioned")] {
        let Some(browser) = Browser::start().await else { return };
        let options = CookieOptions::hardened();
        let app = App::serve("app.localhost", |config| config.cookies(options), Router::new(), |_| {}).await;
        let mallory = app.mock.sign_in("mallory");
        let planted: Vec<_> = [("jwt", mallory.jwt()), ("refresh-token", mallory.refresh_token())]
            .map(|(name, value)| {
                format!("crossmint-{name}-mock-project={value}; Domain=app.localhost; Path=/; Secure{attribute}")
            })
            .into();
        let sibling = Router::new().route(
            "/",
            get(async move || {
                let mut headers = HeaderMap::new();
                for cookie in &planted {
                    headers.append("set-cookie", cookie.parse().unwrap());
                }
                (headers, "planted")
            }),
        );
        let sibling = Site::serve(sibling).await;
        app.sign_in(&browser, "alice").await;
        browser.open(&sibling.url("sibling.app.localhost", "/")).await;
        for visit in 0..4 {
            let target = format!("/me?{visit}");
            browser.open(&app.url(&target)).await;
            assert!(app.visited(&target).await.has_cookies || visit > 0, "{case}");
            assert!(browser.text().await.contains("Unauthorized"), "{case}, visit {visit}");
        }
        assert!(app.mock.is_live(mallory.refresh_token()), "{case}: no token was sent");
    }
}
