//! The log of the calls that have arrived.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::Notify;

/// One of the endpoints of Crossmint's auth service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// Returns the JSON Web Key Set, `GET /.well-known/jwks.json`.
    Keys,
    /// Exchanges a refresh token, `POST /api/2024-09-26/session/sdk/auth/refresh`.
    Refresh,
    /// Revokes a session, `POST /api/2024-09-26/session/sdk/auth/logout`.
    Logout,
    /// Returns a user's profile, `GET /api/2024-09-26/sdk/auth/user/<id>`.
    User,
    /// Every other path; responds with 404.
    ///
    /// Use it as the target of a [`Fault::Redirect`](crate::testing::Fault::Redirect) to detect whether redirects are
    /// followed.
    Elsewhere,
}

impl Endpoint {
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) const COUNT: usize = Self::Elsewhere as usize + 1;
}

/// A request that the mock has received.
///
/// Its `Debug` output lists the names of the headers, and redacts their values and the body, which contain secrets.
#[derive(Clone)]
pub struct RecordedRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl RecordedRequest {
    /// Returns the method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path and query, percent-encoded as received.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the first value of a header, or `None` if it is absent or not visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the body; empty if it exceeded the limit of 64 KiB.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the body as JSON, or `None` if it is not valid JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            // The `Debug` output of `keys()` itself includes the values.
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &"***")
            .finish()
    }
}

/// The calls, by endpoint.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    endpoints: Mutex<[EndpointLog; Endpoint::COUNT]>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct EndpointLog {
    count: usize,
    recent: VecDeque<RecordedRequest>,
}

impl CallLog {
    pub(crate) fn record(&self, endpoint: Endpoint, request: RecordedRequest) {
        {
            let log = &mut self.lock()[endpoint.index()];
            log.count += 1;
            if log.recent.len() == MAX_RECENT {
                log.recent.pop_front();
            }
            log.recent.push_back(request);
        }
        self.arrived.notify_waiters();
    }

    pub(crate) fn count(&self, endpoint: Endpoint) -> usize {
        self.lock()[endpoint.index()].count
    }

    pub(crate) fn recent(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        self.lock()[endpoint.index()].recent.iter().cloned().collect()
    }

    pub(crate) async fn reached(&self, endpoint: Endpoint, count: usize) {
        loop {
            // Created before the check, so that it is notified of every call recorded after the check.
            let arrival = self.arrived.notified();
            if self.count(endpoint) >= count {
                return;
            }
            arrival.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, [EndpointLog; Endpoint::COUNT]> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds the memory of load tests with millions of calls.
const MAX_RECENT: usize = 4096;
