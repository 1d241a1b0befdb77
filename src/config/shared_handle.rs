//! One handle for all clones of a configuration.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The handle that all clones of a configuration share. It does not keep the handle alive.
///
/// Its type is the handle's own business: a configuration knows nothing of what is built from it.
pub(crate) struct SharedHandle(Mutex<Weak<dyn Any + Send + Sync>>);

impl SharedHandle {
    pub(crate) fn get_or_create<T: Any + Send + Sync>(&self, create: impl FnOnce(Weak<T>) -> T) -> Arc<T> {
        // Held while the handle is created: two threads must not end up with two.
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(handle)) = shared.upgrade().map(Arc::downcast) {
            return handle;
        }
        let handle = Arc::new_cyclic(|handle| create(handle.clone()));
        let weak: Weak<T> = Arc::downgrade(&handle);
        *shared = weak;
        handle
    }
}

impl Default for SharedHandle {
    fn default() -> Self {
        Self(Mutex::new(Weak::<()>::new()))
    }
}

impl fmt::Debug for SharedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedHandle").finish_non_exhaustive()
    }
}
