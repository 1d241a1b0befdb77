//! One handle for all clones of a configuration.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// The handle that all clones of a configuration share. It does not keep the handle alive.
///
/// A configuration does not know the handle's type: what is built from a configuration imports it, not the reverse.
#[derive(Debug, Default)]
pub(crate) struct SharedHandle(Mutex<Option<Weak<dyn Any + Send + Sync>>>);

impl SharedHandle {
    pub(crate) fn get_or_create<T: Any + Send + Sync>(&self, create: impl FnOnce(Weak<T>) -> T) -> Arc<T> {
        // Held while the handle is created: two threads must not end up with two.
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(handle)) = shared.as_ref().and_then(Weak::upgrade).map(Arc::downcast) {
            return handle;
        }
        let handle = Arc::new_cyclic(|handle| create(handle.clone()));
        *shared = Some(Arc::<T>::downgrade(&handle));
        handle
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn threads_that_create_the_handle_at_once_share_one() {
        for _ in 0..1000 {
            let (shared, start) = (SharedHandle::default(), Barrier::new(2));
            let get = || {
                start.wait();
                shared.get_or_create(|_| {
                    thread::yield_now();
                    0_u8
                })
            };
            let [one, other] = thread::scope(|scope| [scope.spawn(get), scope.spawn(get)].map(|it| it.join().unwrap()));
            assert!(Arc::ptr_eq(&one, &other));
        }
    }
}
