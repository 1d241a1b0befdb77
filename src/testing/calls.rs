//! The record of calls that arrived, and waiting for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::Notify;

/// One of the endpoints of Crossmint's auth service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// The JSON Web Key Set, `GET /.well-known/jwks.json`.
    Keys,
    /// The exchange of a refresh token, `POST /api/2024-09-26/session/sdk/auth/refresh`.
    Refresh,
    /// The end of a session, `POST /api/2024-09-26/session/sdk/auth/logout`.
    Logout,
    /// A user's profile, `GET /api/2024-09-26/sdk/auth/user/<id>`.
    User,
    /// Every other path, answered with 404.
    ///
    /// A redirect to it with [`Fault::Redirect`](super::Fault::Redirect) shows whether redirects are followed.
    Elsewhere,
}

impl Endpoint {
    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) const COUNT: usize = Self::Elsewhere as usize + 1;
}

/// A call as it arrived at the mock.
///
/// Its `Debug` output names the headers, but shows no header's value and nothing of the body: they carry secrets.
#[derive(Clone)]
pub struct RecordedRequest {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl RecordedRequest {
    /// Returns the method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path, percent-encoded as it arrived, and the query where there was one.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the first value of a header, or `None` where it is absent or not visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the body; empty where it was above the limit of 64 KiB.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the body as JSON, or `None` where it is none.
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
            // `keys()` itself would print the values as well.
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &"***")
            .finish()
    }
}

/// What arrived, by endpoint.
#[derive(Debug, Default)]
pub(super) struct Calls {
    logs: Mutex<[Log; Endpoint::COUNT]>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Log {
    count: usize,
    recent: VecDeque<RecordedRequest>,
}

impl Calls {
    pub(super) fn record(&self, endpoint: Endpoint, request: RecordedRequest) {
        {
            let log = &mut self.lock()[endpoint.index()];
            log.count += 1;
            if log.recent.len() == KEPT_PER_ENDPOINT {
                log.recent.pop_front();
            }
            log.recent.push_back(request);
        }
        self.arrived.notify_waiters();
    }

    pub(super) fn count(&self, endpoint: Endpoint) -> usize {
        self.lock()[endpoint.index()].count
    }

    pub(super) fn recent(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        self.lock()[endpoint.index()].recent.iter().cloned().collect()
    }

    pub(super) async fn reached(&self, endpoint: Endpoint, count: usize) {
        loop {
            // Made before the look at the count: it is woken by whatever is recorded from here on.
            let arrival = self.arrived.notified();
            if self.count(endpoint) >= count {
                return;
            }
            arrival.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Log; Endpoint::COUNT]> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a load test of millions of calls within memory.
const KEPT_PER_ENDPOINT: usize = 4096;
