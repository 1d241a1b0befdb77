//! What the test has ordered for each endpoint: faults to show, and gates to wait at.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::calls::Endpoint;
use super::fault::Fault;

/// Holds back calls to one endpoint until it is released or dropped.
///
/// Made by [`MockCrossmint::hold`](super::MockCrossmint::hold) and
/// [`MockCrossmint::hold_answers`](super::MockCrossmint::hold_answers). Calls that arrive after the release pass.
#[derive(Debug)]
#[must_use = "the calls go on as soon as the hold is dropped"]
pub struct Hold(Gate);

impl Hold {
    /// Lets the calls that wait, and all later ones, go on.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// The orders for all endpoints.
#[derive(Debug, Default)]
pub(super) struct Switches {
    state: Mutex<[Switch; Endpoint::COUNT]>,
}

#[derive(Debug, Default)]
struct Switch {
    counted: VecDeque<(usize, Fault)>,
    standing: Option<Fault>,
    before: Gates,
    after: Gates,
}

/// What one call has to go through.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) fault: Option<Fault>,
    /// To be passed before the call is carried out.
    pub(super) before: Gates,
    /// To be passed before the answer leaves.
    pub(super) after: Gates,
}

impl Switches {
    pub(super) fn inject(&self, endpoint: Endpoint, fault: Fault) {
        self.lock()[endpoint.index()].standing = Some(fault);
    }

    pub(super) fn inject_times(&self, endpoint: Endpoint, times: usize, fault: Fault) {
        if times > 0 {
            self.lock()[endpoint.index()].counted.push_back((times, fault));
        }
    }

    pub(super) fn clear_faults(&self) {
        for switch in &mut *self.lock() {
            switch.counted.clear();
            switch.standing = None;
        }
    }

    pub(super) fn hold(&self, endpoint: Endpoint) -> Hold {
        self.lock()[endpoint.index()].before.add()
    }

    pub(super) fn hold_answers(&self, endpoint: Endpoint) -> Hold {
        self.lock()[endpoint.index()].after.add()
    }

    /// Takes the orders for the next call to an endpoint.
    pub(super) fn next(&self, endpoint: Endpoint) -> Orders {
        let switch = &mut self.lock()[endpoint.index()];
        let fault = switch.next_counted().or_else(|| switch.standing.clone());
        Orders { fault, before: switch.before.closed(), after: switch.after.closed() }
    }

    fn lock(&self) -> MutexGuard<'_, [Switch; Endpoint::COUNT]> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Switch {
    fn next_counted(&mut self) -> Option<Fault> {
        let (times, fault) = self.counted.front_mut()?;
        let fault = fault.clone();
        *times -= 1;
        if *times == 0 {
            self.counted.pop_front();
        }
        Some(fault)
    }
}

/// The gates in a call's way, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Gates(Vec<Gate>);

impl Gates {
    pub(super) async fn pass(self) {
        for gate in self.0 {
            gate.pass().await;
        }
    }

    fn add(&mut self) -> Hold {
        let gate = Gate::closed();
        self.0.push(gate.clone());
        Hold(gate)
    }

    fn closed(&mut self) -> Self {
        self.0.retain(|gate| !gate.is_open());
        self.clone()
    }
}

/// A gate that opens once, for those who wait in the order in which they came.
///
/// It is a semaphore that never has a permit: closing the semaphore, which turns all away, opens the gate.
#[derive(Clone, Debug)]
struct Gate(Arc<Semaphore>);

impl Gate {
    fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn is_open(&self) -> bool {
        self.0.is_closed()
    }

    fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        let _ = self.0.acquire().await;
    }
}
