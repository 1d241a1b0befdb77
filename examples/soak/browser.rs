//! A user agent: a jar of two cookies, shared by its tabs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, StatusCode, header::SET_COOKIE};
use cookie::{Cookie, time::OffsetDateTime};
use tower_crossmint_auth::testing::{MockCrossmint, MockSession};

#[derive(Default)]
pub(crate) struct Browser {
    jar: Mutex<Vec<(String, String)>>,
}

impl Browser {
    pub(crate) fn with(session: &MockSession) -> Self {
        let browser = Self::default();
        browser.keep(JWT, session.jwt());
        browser.keep(REFRESH, session.refresh_token());
        browser
    }

    /// Signs a user in whose JWT is not good any more: the next request needs a refresh.
    pub(crate) fn expired(mock: &MockCrossmint, jwt: &str, user: usize) -> Self {
        let browser = Self::default();
        browser.keep(JWT, jwt);
        // The mock's secret for a first exchange: as good as a session's, and made without a signature.
        browser.keep(REFRESH, &mock.one_time_secret(&format!("user-{user}")));
        browser
    }

    /// Returns the `Cookie` header.
    pub(crate) fn cookies(&self) -> String {
        let pairs: Vec<String> = self.jar().iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Takes note of an answer that has fully arrived. Returns whether it has ended the session.
    pub(crate) fn receive(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let fields = headers.get_all(SET_COOKIE).iter().map(|field| field.to_str().expect("cookies are ASCII"));
        for cookie in fields.map(|field| Cookie::parse(field).expect("the layer writes cookies")) {
            if cookie.expires_datetime().is_some_and(|expires| expires <= OffsetDateTime::now_utc()) {
                self.jar().retain(|(name, _)| name != cookie.name());
            } else {
                self.keep(cookie.name(), cookie.value());
            }
        }
        status == StatusCode::UNAUTHORIZED || self.refresh_token().is_none()
    }

    pub(crate) fn refresh_token(&self) -> Option<String> {
        self.jar().iter().find(|(name, _)| name == REFRESH).map(|(_, value)| value.clone())
    }

    fn keep(&self, name: &str, value: &str) {
        let mut jar = self.jar();
        jar.retain(|(present, _)| present != name);
        jar.push((name.to_owned(), value.to_owned()));
    }

    fn jar(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) const JWT: &str = "crossmint-jwt-mock-project";
pub(crate) const REFRESH: &str = "crossmint-refresh-token-mock-project";
