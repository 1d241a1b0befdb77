//! A response as a client sees it.

use axum::http::HeaderMap;
use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns the user that the inner service saw.
    pub(crate) fn user(&self) -> Option<String> {
        self.json()["user"].as_str().map(ToOwned::to_owned)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn set_cookie(&self) -> Vec<cookie::Cookie<'static>> {
        self.set_cookie_fields().map(|field| cookie::Cookie::parse(field.to_owned()).unwrap()).collect()
    }

    pub(crate) fn set_cookie_fields(&self) -> impl Iterator<Item = &str> {
        self.headers.get_all("set-cookie").iter().map(|field| field.to_str().unwrap())
    }

    /// Returns the `Cookie` header with the cookies that the answer sets.
    pub(crate) fn cookie_header(&self) -> String {
        let pairs: Vec<String> = self.set_cookie().iter().map(|cookie| cookie.stripped().to_string()).collect();
        pairs.join("; ")
    }

    /// Returns the refresh token that the answer sets.
    pub(crate) fn refresh_token(&self) -> String {
        self.set_cookie().iter().find(|cookie| cookie.name() == REFRESH).unwrap().value().to_owned()
    }

    /// Returns the `Cookie` header of a browser that has kept the answer's refresh token, and not its JWT.
    pub(crate) fn refresh_token_cookie(&self) -> String {
        format!("{REFRESH}={}", self.refresh_token())
    }

    /// Tells whether the answer deletes exactly the cookies of these names.
    pub(crate) fn clears(&self, names: &[&str]) -> bool {
        let cookies = self.set_cookie();
        let epoch = cookie::time::OffsetDateTime::UNIX_EPOCH;
        cookies.iter().map(cookie::Cookie::name).collect::<Vec<_>>() == names
            && cookies.iter().all(|cookie| cookie.value().is_empty() && cookie.expires_datetime() == Some(epoch))
    }

    /// Tells whether the answer stores a pair of tokens in the two cookies.
    pub(crate) fn stores_a_session(&self) -> bool {
        let cookies = self.set_cookie();
        cookies.iter().map(cookie::Cookie::name).eq([JWT, REFRESH])
            && cookies.iter().all(|cookie| !cookie.value().is_empty())
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16, case: &str) {
        assert_eq!(self.status, status, "{case}: {self:?}");
    }

    /// Asserts that the request was forwarded for a user, and that no cookie was set.
    #[track_caller]
    pub(crate) fn assert_passed(&self, user: &str, case: &str) {
        assert_eq!((self.status, self.user().as_deref()), (200, Some(user)), "{case}");
        assert_eq!(self.set_cookie_fields().count(), 0, "{case}");
    }

    /// Asserts that the request was forwarded for a user with a refreshed session.
    #[track_caller]
    pub(crate) fn assert_refreshed(&self, user: &str, case: &str) {
        assert_eq!((self.status, self.user().as_deref()), (200, Some(user)), "{case}");
        assert!(self.stores_a_session(), "{case}: {self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{case}");
    }

    /// Asserts that the request was rejected with 401 and this message, and that both cookies were cleared.
    #[track_caller]
    pub(crate) fn assert_ended(&self, message: &str, case: &str) {
        assert_eq!((self.status, &*self.body), (401, &*unauthorized(message)), "{case}");
        assert!(self.clears(&[JWT, REFRESH]), "{case}: {self:?}");
    }

    /// Asserts that the request was rejected with this status and message, and that the cookies were kept.
    #[track_caller]
    pub(crate) fn assert_rejected(&self, status: u16, message: &str, case: &str) {
        assert_eq!((self.status, self.json()["message"].as_str()), (status, Some(message)), "{case}");
        assert_eq!(self.set_cookie_fields().count(), 0, "{case}");
    }
}

/// Returns the body of a 401.
pub(crate) fn unauthorized(message: &str) -> String {
    format!(r#"{{"error":"Unauthorized","message":"{message}"}}"#)
}

pub(crate) const JWT: &str = "crossmint-jwt-mock-project";
pub(crate) const REFRESH: &str = "crossmint-refresh-token-mock-project";
pub(crate) const REFRESH_ROUTE: &str = "/api/auth/refresh";
pub(crate) const LOGOUT_ROUTE: &str = "/api/auth/logout";

pub(crate) const SIGN_IN: &str = "Please sign in";
pub(crate) const ENDED: &str = "The session has ended, please sign in again";
pub(crate) const TRY_LATER: &str = "The session could not be checked, please try again later";
