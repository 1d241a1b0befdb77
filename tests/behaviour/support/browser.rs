//! A browser's cookie jar.

use cookie_store::{CookieError, CookieStore};
use http::{HeaderMap, Method};
use reqwest::Url;
use serde_json::json;
use tower_crossmint_auth::testing::MockCrossmint;

use crate::support::{
    answer::{Answer, REFRESH_ROUTE},
    app::App,
};

/// A browser that shows one site.
pub(crate) struct Browser {
    jar: CookieStore,
    site: Url,
}

impl Browser {
    pub(crate) fn at(site: &str) -> Self {
        Self { jar: CookieStore::default(), site: site.parse().unwrap() }
    }

    pub(crate) async fn get(&mut self, app: &App) -> Answer {
        self.visit(app, "/me").await
    }

    pub(crate) async fn visit(&mut self, app: &App, path: &str) -> Answer {
        let request = app.request(Method::GET, path).header("host", self.site.host_str().unwrap());
        let answer = app.send(request.header("cookie", self.cookie_header())).await;
        self.take(&answer);
        answer
    }

    pub(crate) async fn sign_in(&mut self, app: &App, mock: &MockCrossmint, user_id: &str) {
        let body = json!({ "refresh": mock.one_time_secret(user_id) }).to_string();
        let answer = app.post(REFRESH_ROUTE, &self.cookie_header(), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.take(&answer);
    }

    pub(crate) fn take(&mut self, answer: &Answer) {
        answer.set_cookie_fields().for_each(|field| self.keep(field));
    }

    pub(crate) fn keep(&mut self, set_cookie: &str) {
        match self.jar.parse(set_cookie, &self.site) {
            // The deletion of a cookie that is absent or of another domain.
            Ok(_) | Err(CookieError::Expired | CookieError::DomainMismatch) => {}
            Err(error) => panic!("{set_cookie}: {error}"),
        }
    }

    pub(crate) fn cookie_header(&self) -> String {
        let pairs: Vec<_> =
            self.jar.get_request_values(&self.site).map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
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
