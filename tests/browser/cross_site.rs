//! No page of another site signs a user out.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Router,
    http::{HeaderMap, Method, header::ORIGIN},
};
use tower_crossmint_auth::{CookieOptions, SameSite};

use crate::{
    site::{App, Site, Visit},
    webdriver::Browser,
};

#[tokio::test]
async fn no_page_of_another_site_signs_the_user_out() {
    tokio::join!(
        assert_safe(SameSite::Strict, CookieOptions::hardened()),
        assert_safe(SameSite::Lax, CookieOptions::default()),
    );
}

async fn assert_safe(same_site: SameSite, options: CookieOptions) {
    let Some(browser) = Browser::start().await else { return };
    let app = App::serve("app.localhost", |config| config.cookies(options), Router::new(), |_| {}).await;
    let session = app.sign_in(&browser, "alice").await;
    for (attacker, relation) in
        [("evil.localhost", "cross-site"), ("evil.test", "cross-site"), ("sibling.app.localhost", "same-site")]
    {
        for attack in Attack::ALL {
            for path in ["/me", "/api/auth/refresh", "/api/auth/logout"] {
                let case = format!("{same_site:?}, {attack:?} from {attacker} to {path}");
                let visit = attack.run(&browser, &app, attacker, path).await;
                assert_eq!((&visit.method, visit.site.as_deref()), (&attack.method(), Some(relation)), "{case}");
                let is_sent = relation == "same-site" || (same_site == SameSite::Lax && attack.is_lax());
                assert_eq!(visit.has_cookies, is_sent, "{case}: cookies are sent");
                assert!(app.is_alive(&browser, &session).await, "{case}: the user is signed out");
            }
        }
    }
}

/// Shows that the test above finds what the layer prevents.
#[tokio::test]
async fn without_the_headers_of_browsers_a_link_and_a_form_sign_the_user_out() {
    let Some(browser) = Browser::start().await else { return };
    let without_headers = |headers: &mut HeaderMap| {
        headers.remove("sec-fetch-site");
        headers.remove(ORIGIN);
    };
    for (attack, options) in [(Attack::Link, CookieOptions::hardened()), (Attack::FormPost, CookieOptions::default())] {
        let app = App::serve("app.localhost", |config| config.cookies(options), Router::new(), without_headers).await;
        let session = app.sign_in(&browser, "alice").await;
        attack.run(&browser, &app, "evil.localhost", "/me").await;
        assert!(!app.is_alive(&browser, &session).await, "{attack:?}");
    }
}

#[tokio::test]
async fn over_plain_http_the_origin_protects_all_but_strict_cookies_from_links() {
    let Some(browser) = Browser::start().await else { return };
    let (lax, strict) = (CookieOptions::default(), CookieOptions::default().same_site(SameSite::Strict));
    for (cookies, options) in [("Lax cookies", lax), ("Strict cookies", strict)] {
        let is_strict = cookies == "Strict cookies";
        let app = App::serve("app.test", |config| config.cookies(options), Router::new(), |_| {}).await;
        for attack in Attack::ALL {
            let case = format!("{cookies}, {attack:?}");
            let session = app.sign_in(&browser, "alice").await;
            let visit = attack.run(&browser, &app, "evil.test", "/me").await;
            let has_origin = attack.method() == Method::POST || attack == Attack::CorsFetch;
            assert_eq!((visit.site, visit.origin.is_some()), (None, has_origin), "{case}");
            // No browser sends a header with these that names the site: see `docs::security`.
            let has_no_header = is_strict && attack.is_lax();
            assert_eq!(app.is_alive(&browser, &session).await, !has_no_header, "{case}: the user stays signed in");
        }
    }
}

/// A request that a page can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    Link,
    Window,
    FormGet,
    FormPost,
    /// Without a referrer, `Origin` is `null`.
    AnonymousFormPost,
    Image,
    Frame,
    Fetch,
    FetchPost,
    CorsFetch,
}

impl Attack {
    const ALL: [Self; 10] = [
        Self::Link,
        Self::Window,
        Self::FormGet,
        Self::FormPost,
        Self::AnonymousFormPost,
        Self::Image,
        Self::Frame,
        Self::Fetch,
        Self::FetchPost,
        Self::CorsFetch,
    ];

    fn method(self) -> Method {
        match self {
            Self::FormPost | Self::AnonymousFormPost | Self::FetchPost => Method::POST,
            _ => Method::GET,
        }
    }

    /// Tells whether the request carries Lax cookies: those of navigations by GET do.
    fn is_lax(self) -> bool {
        matches!(self, Self::Link | Self::Window | Self::FormGet)
    }

    /// Lets a page on the host `attacker` send its request. Returns the request once the browser has processed the
    /// response.
    async fn run(self, browser: &Browser, app: &App, attacker: &str, path: &str) -> Visit {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let target = format!("{path}?attack={number}");
        let url = app.url(&target);
        let page = Site::page(self.html(&app.url(path), number)).await;
        // Images and frames are part of the page: they have loaded when it has.
        browser.open(&page.url(attacker, "/")).await;
        match self {
            Self::Link | Self::Window => browser.click("#go").await,
            Self::Fetch | Self::FetchPost | Self::CorsFetch => drop(browser.run("await window.done").await),
            Self::FormGet | Self::FormPost | Self::AnonymousFormPost | Self::Image | Self::Frame => {}
        }
        let visit = app.visited(&target).await;
        match self {
            Self::Link | Self::FormGet | Self::FormPost | Self::AnonymousFormPost => {
                assert_eq!(browser.url().await, url, "{self:?}");
            }
            Self::Window => {
                let mut windows = 0;
                browser
                    .close_others(async || {
                        windows += 1;
                        assert_eq!(browser.url().await, url, "{self:?}");
                    })
                    .await;
                assert_eq!(windows, 1);
            }
            Self::Image | Self::Frame | Self::Fetch | Self::FetchPost | Self::CorsFetch => {}
        }
        visit
    }

    fn html(self, action: &str, number: usize) -> String {
        let url = format!("{action}?attack={number}");
        let post = format!(r#"<form method="post" action="{url}"></form><script>document.forms[0].submit()</script>"#);
        let fetch = |options: &str| {
            format!(
                r#"<script>window.done = fetch("{url}", {{ credentials: "include", {options} }}).catch(() => {{}})</script>"#
            )
        };
        match self {
            Self::Link => format!(r#"<a id="go" href="{url}">Win a prize</a>"#),
            Self::Window => format!(r#"<button id="go" onclick="window.open('{url}')">Win a prize</button>"#),
            Self::FormGet => format!(
                r#"<form action="{action}"><input name="attack" value="{number}"></form>
                <script>document.forms[0].submit()</script>"#
            ),
            Self::FormPost => post,
            Self::AnonymousFormPost => format!(r#"<meta name="referrer" content="no-referrer">{post}"#),
            Self::Image => format!(r#"<img src="{url}">"#),
            Self::Frame => format!(r#"<iframe src="{url}"></iframe>"#),
            Self::Fetch => fetch(r#"mode: "no-cors""#),
            Self::FetchPost => fetch(r#"mode: "no-cors", method: "POST""#),
            Self::CorsFetch => fetch(r#"mode: "cors""#),
        }
    }
}
