//! The faults and holds that a test has set for each endpoint.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Semaphore;

use super::{calls::Endpoint, fault::Fault};

/// Holds calls to an endpoint until it is released or dropped.
///
/// Created by [`MockCrossmint::hold`](crate::testing::MockCrossmint::hold) and
/// [`MockCrossmint::hold_answers`](crate::testing::MockCrossmint::hold_answers). It does not affect calls that arrive
/// after the release.
#[derive(Debug)]
#[must_use = "the calls proceed as soon as the hold is dropped"]
pub struct Hold(Arc<Semaphore>);

impl Hold {
    /// Lets the held calls proceed.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The faults and holds of all endpoints.
#[derive(Debug, Default)]
pub(crate) struct Script {
    endpoints: Mutex<[EndpointScript; Endpoint::COUNT]>,
}

#[derive(Debug, Default)]
struct EndpointScript {
    /// Faults for a number of calls each, in order; they take precedence over `default_fault`.
    limited_faults: VecDeque<(usize, Fault)>,
    default_fault: Option<Fault>,
    before: Holds,
    after: Holds,
}

/// The fault and the holds that apply to one call.
#[derive(Debug)]
pub(crate) struct CallScript {
    pub(crate) fault: Option<Fault>,
    /// Hold the call before it is executed.
    pub(crate) before: Holds,
    /// Hold the response after the call was executed.
    pub(crate) after: Holds,
}

impl Script {
    pub(crate) fn inject(&self, endpoint: Endpoint, fault: Fault) {
        self.lock()[endpoint.index()].default_fault = Some(fault);
    }

    pub(crate) fn inject_times(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        if times > 0 {
            self.lock()[endpoint.index()].limited_faults.push_back((times, fault));
        }
    }

    pub(crate) fn clear_faults(&self) {
        for script in &mut *self.lock() {
            script.limited_faults.clear();
            script.default_fault = None;
        }
    }

    pub(crate) fn hold(&self, endpoint: Endpoint) -> Hold {
        self.lock()[endpoint.index()].before.add()
    }

    pub(crate) fn hold_answers(&self, endpoint: Endpoint) -> Hold {
        self.lock()[endpoint.index()].after.add()
    }

    /// Returns the script of the next call to an endpoint.
    pub(crate) fn next(&self, endpoint: Endpoint) -> CallScript {
        let script = &mut self.lock()[endpoint.index()];
        let fault = script.next_limited_fault().or_else(|| script.default_fault.clone());
        CallScript { fault, before: script.before.unreleased(), after: script.after.unreleased() }
    }

    fn lock(&self) -> MutexGuard<'_, [EndpointScript; Endpoint::COUNT]> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndpointScript {
    fn next_limited_fault(&mut self) -> Option<Fault> {
        let (times, fault) = self.limited_faults.front_mut()?;
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.limited_faults.pop_front();
        }
        Some(fault)
    }
}

/// The holds of one endpoint, in the order in which they were added.
///
/// Each is a semaphore without permits: closing it, which fails every `acquire`, releases the hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(Vec<Arc<Semaphore>>);

impl Holds {
    /// Waits until all holds are released; calls proceed in the order in which they arrived.
    pub(crate) async fn wait(self) {
        for hold in self.0 {
            let _ = hold.acquire().await;
        }
    }

    fn add(&mut self) -> Hold {
        let hold = Arc::new(Semaphore::new(0));
        self.0.push(Arc::clone(&hold));
        Hold(hold)
    }

    /// Removes the released holds, and returns the others.
    fn unreleased(&mut self) -> Self {
        self.0.retain(|hold| !hold.is_closed());
        self.clone()
    }
}
