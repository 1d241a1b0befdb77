//! Counters of what the layer has done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::AuthErrorKind;

/// Declares the counters, and the fields of a snapshot of them.
macro_rules! counters {
    ($($(#[$doc:meta])+ $counter:ident,)+) => {
        /// A snapshot of the counters of a [`CrossmintAuth`](crate::CrossmintAuth) and its layers.
        ///
        /// The counters start at zero when the handle is created, and only grow.
        /// [`docs::operations`](crate::docs::operations#counters) shows how to export them.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            /// JWTs that were found in the cache of verified tokens.
            pub cache_hits: u64,
            $($(#[$doc])+ pub $counter: u64,)+
            rejections: [u64; AuthErrorKind::ALL.len()],
        }

        /// The counters behind [`Stats`], except `cache_hits`, which the cache counts.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $counter: Counter,)+
            rejections: [Counter; AuthErrorKind::ALL.len()],
        }

        impl Counters {
            pub(crate) fn read(&self, cache_hits: u64) -> Stats {
                let rejections = self.rejections.each_ref().map(Counter::read);
                Stats { cache_hits, $($counter: self.$counter.read(),)+ rejections }
            }
        }
    };
}

counters! {
    /// Signatures that were checked.
    verifications,
    /// Successful loads of the key set.
    reloads,
    /// Failed attempts to load the key set.
    failed_reloads,
    /// Refresh tokens that were sent to Crossmint.
    refreshes,
    /// Requests that joined a refresh in flight.
    joined,
    /// Requests with a rotated token that were resolved to its successor.
    grace_hits,
    /// Sessions whose rotated tokens were evicted before their grace period ended, for lack of memory
    /// ([`rotation_grace_bytes`](crate::CrossmintAuthConfigBuilder::rotation_grace_bytes)). A request that still
    /// carries such a token ends its session.
    grace_evictions,
    /// Sessions that were signed out through the logout route or the handle.
    logouts,
    /// JWTs of signed-out sessions that were forgotten before they expired, for lack of memory. They are accepted again.
    revocation_evictions,
    /// Runs of refused refresh tokens without an accepted one in between
    /// ([`refusal_warning`](crate::CrossmintAuthConfigBuilder::refusal_warning)). The API key may have been revoked.
    refusal_runs,
}

impl Stats {
    /// Returns, for each reason, how many requests were rejected.
    ///
    /// The `Debug` form of a kind is suitable as a label. Requests that
    /// [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) forwards although their credentials were refused are
    /// counted too; requests without credentials that a policy forwards are not.
    pub fn rejections(&self) -> impl Iterator<Item = (AuthErrorKind, u64)> {
        AuthErrorKind::ALL.iter().copied().zip(self.rejections)
    }
}

impl Counters {
    pub(crate) fn rejection(&self, kind: AuthErrorKind) {
        self.rejections[kind as usize].count();
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, times: usize) {
        // Relaxed: a counter guards no other data.
        self.0.fetch_add(times as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
