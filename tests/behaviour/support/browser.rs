//! A browser whose requests are sent by the test, to one application or another.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Uri};
use tower_crossmint_auth::testing::{self, MockCrossmint};

use crate::support::{
    answer::{Answer, REFRESH_ROUTE},
    app::App,
};

/// A browser that shows one page.
pub(crate) struct Browser {
    browser: testing::Browser,
    host: String,
}

impl Browser {
    pub(crate) fn at(page: &str) -> Self {
        let uri: Uri = page.parse().unwrap();
        let host = uri.host().unwrap().to_owned();
        let mut browser = testing::Browser::connect(SocketAddr::from(([127, 0, 0, 1], 0)), page);
        browser.show(page);
        Self { browser, host }
    }

    pub(crate) async fn get(&mut self, app: &App) -> Answer {
        self.visit(app, "/me").await
    }

    pub(crate) async fn visit(&mut self, app: &App, path: &str) -> Answer {
        let request = app.request(Method::GET, path).header("host", &self.host);
        let answer = app.send(request.header("cookie", self.cookie_header())).await;
        self.take(&answer);
        answer
    }

    pub(crate) async fn sign_in(&mut self, app: &App, mock: &MockCrossmint, user_id: &str) {
        let body = format!(r#"{{"refresh":"{}"}}"#, mock.one_time_secret(user_id));
        let answer = app.post(REFRESH_ROUTE, &self.cookie_header(), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.take(&answer);
    }

    pub(crate) fn take(&mut self, answer: &Answer) {
        answer.set_cookie_fields().for_each(|field| self.keep(field));
    }

    pub(crate) fn keep(&mut self, set_cookie: &str) {
        self.browser.set_cookie(set_cookie);
    }

    pub(crate) fn cookie_header(&self) -> String {
        self.browser.cookies()
    }

    /// Returns the cookies in the order of their names.
    pub(crate) fn cookies(&self) -> String {
        let header = self.cookie_header();
        let mut pairs: Vec<_> = header.split("; ").collect();
        pairs.sort_unstable();
        pairs.join("; ")
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(http::header::COOKIE, self.cookie_header().parse().unwrap())])
    }
}
