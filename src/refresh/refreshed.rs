//! What a refresh returns.

use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use tokio::sync::oneshot;

use crate::{
    error::{AuthError, AuthErrorKind},
    secret::Secret,
    session::{AuthMaterial, Session},
};

/// A refreshed session, and the `Set-Cookie` fields that deliver it to the browser.
#[derive(Debug)]
pub(crate) struct Refreshed {
    pub(crate) session: Session,
    pub(crate) set_cookie: [HeaderValue; 2],
    /// The size of Crossmint's answer, parts of which the session keeps.
    pub(crate) bytes: usize,
    pub(crate) receipt: Receipt,
}

/// Tells other replicas that a response delivers the session, once.
#[derive(Debug, Default)]
pub(crate) struct Receipt(Mutex<Option<oneshot::Sender<()>>>);

impl Receipt {
    pub(crate) fn new(sender: oneshot::Sender<()>) -> Self {
        Self(Mutex::new(Some(sender)))
    }

    pub(crate) fn send(&self) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // Nobody waits for it in a runtime that ends.
            let _ = sender.send(());
        }
    }
}

impl Refreshed {
    pub(crate) fn new(session: Session, set_cookie: [HeaderValue; 2], bytes: usize) -> Self {
        Self { session, set_cookie, bytes, receipt: Receipt::default() }
    }

    pub(crate) fn material(&self) -> &AuthMaterial {
        self.session.material().expect("a refresh issues a refresh token")
    }

    /// Returns about how many bytes this holds.
    pub(crate) fn cost(&self) -> usize {
        // The session's strings occur in the `Set-Cookie` fields once more.
        self.bytes + 2 * self.session.cost()
    }
}

/// A refresh that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: AuthError,
    /// The successor, if Crossmint has issued one nevertheless.
    pub(crate) rescued: Option<Arc<Rescued>>,
}

/// A successor without a verified session.
#[derive(Debug)]
pub(crate) struct Rescued {
    pub(crate) token: Secret,
    /// Delivers a pair that only lacks a key to verify it. `None` if the JWT or the token cannot be used.
    pub(crate) set_cookie: Option<[HeaderValue; 2]>,
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self { error, rescued: None }
    }
}

impl From<AuthErrorKind> for Failure {
    fn from(kind: AuthErrorKind) -> Self {
        AuthError::of(kind).into()
    }
}
