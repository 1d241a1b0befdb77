//! Wakes those who wait for a record to change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::record::Id;

/// Everyone who waits, by the record that they wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches(Arc<Mutex<HashMap<Id, watch::Sender<()>>>>);

impl Watches {
    /// Watches a record from now on.
    pub(crate) fn watch(&self, id: Id) -> Watch {
        let mut all = self.all();
        let receiver = all.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watch { receiver, _entry: Entry { id, watches: self.clone() } }
    }

    /// Wakes those who wait for a record.
    pub(crate) fn wake(&self, id: &Id) {
        if let Some(sender) = self.all().get(id) {
            sender.send_replace(());
        }
    }

    /// Wakes everyone: changes may have been missed.
    pub(crate) fn wake_all(&self) {
        for sender in self.all().values() {
            sender.send_replace(());
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Id, watch::Sender<()>>> {
        // Held for a look-up, or for a pass over those who wait if the connection has failed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees the changes of one record since it was created.
#[derive(Debug)]
pub(crate) struct Watch {
    receiver: watch::Receiver<()>,
    /// Behind the receiver, so that it is dropped later: the last of several must see that none is left.
    _entry: Entry,
}

/// Removes a sender that has no receivers.
#[derive(Debug)]
struct Entry {
    id: Id,
    watches: Watches,
}

impl Watch {
    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) {
        // The sender lives for as long as anyone watches.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut all = self.watches.all();
        if all.get(&self.id).is_some_and(|sender| sender.receiver_count() == 0) {
            all.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn nothing_is_left_when_watches_are_dropped_at_once() {
        let (watches, barrier) = (Watches::default(), Barrier::new(2));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for number in 0..50_000_u32 {
                        let mut id = [0; 32];
                        id[..4].copy_from_slice(&number.to_be_bytes());
                        let watch = watches.watch(id);
                        barrier.wait();
                        drop(watch);
                    }
                });
            }
        });
        assert_eq!(watches.all().len(), 0);
    }

    #[test]
    fn a_watch_outlives_another_of_the_same_record() {
        let watches = Watches::default();
        let watch = watches.watch([1; 32]);
        drop(watches.watch([1; 32]));
        watches.wake(&[1; 32]);
        assert!(watch.receiver.has_changed().is_ok_and(|changed| changed));
    }
}
