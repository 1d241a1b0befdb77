//! Counters of what the layer has done. With the feature `metrics`, each of them is a metric as well.

mod metrics;

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

pub(crate) use self::metrics::RefreshTimer;
use self::metrics::{Metric, Recorder};
use crate::error::{AuthError, AuthErrorKind};

macro_rules! name {
    ($counter:ident) => {
        concat!("crossmint_auth_", stringify!($counter), "_total")
    };
}

/// Declares the counters, and the fields of a snapshot of them.
macro_rules! counters {
    // The first line of a counter's documentation is the metric's description.
    ($(#[doc = $summary:literal] $(#[doc = $doc:literal])* $counter:ident,)+) => {
        /// A snapshot of the counters of a [`CrossmintAuth`](crate::CrossmintAuth) and its layers.
        ///
        /// The counters start at zero when the handle is created, and only grow.
        /// [`docs::operations`](crate::docs::operations#counters) shows how to export them.
        #[derive(Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $(#[doc = $summary] $(#[doc = $doc])* pub $counter: u64,)+
            rejections: [u64; AuthErrorKind::ALL.len()],
        }

        impl Stats {
            /// Returns the names and values of all counters except [`rejections`](Self::rejections).
            ///
            /// The names are those of the feature `metrics`: `crossmint_auth_`, the field, and `_total`.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((name!($counter), self.$counter),)+].into_iter()
            }
        }

        impl fmt::Debug for Stats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let rejections = self.rejections().filter(|(_, count)| *count > 0);
                let rejections: BTreeMap<_, _> = rejections.map(|(kind, count)| (kind.as_str(), count)).collect();
                f.debug_struct("Stats")
                    $(.field(stringify!($counter), &self.$counter))+
                    .field("rejections", &rejections)
                    .finish()
            }
        }

        /// The counters behind [`Stats`].
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $counter: Counter,)+
            rejections: [Counter; AuthErrorKind::ALL.len()],
            pub(crate) recorder: Recorder,
        }

        impl Counters {
            /// Registers the metrics of a project with the recorder that is installed at this moment.
            pub(crate) fn new(project_id: &str) -> Self {
                let recorder = Recorder::new(project_id);
                $(let $counter = Counter::of(recorder.counter(name!($counter), $summary));)+
                let rejections = std::array::from_fn(|kind| {
                    Counter::of(recorder.rejections(AuthErrorKind::ALL[kind].as_str()))
                });
                Self { $($counter,)+ rejections, recorder }
            }

            /// The cache of verified tokens keeps its hits itself, in [parts](Counter::part) of the counter.
            pub(crate) fn read(&self, cache_hits: u64) -> Stats {
                let rejections = self.rejections.each_ref().map(Counter::read);
                let stats = Stats { $($counter: self.$counter.read(),)+ rejections };
                Stats { cache_hits, ..stats }
            }
        }
    };
}

counters! {
    /// JWTs that were found in the cache of verified tokens.
    cache_hits,
    /// Signatures that were checked.
    verifications,
    /// Successful loads of the key set.
    reloads,
    /// Failed attempts to load the key set.
    failed_reloads,
    /// Refresh tokens that were sent to Crossmint.
    refreshes,
    /// Refreshes that have returned a session.
    refreshes_succeeded,
    /// Refreshes that have returned none: refused, failed, or not sent for lack of permits.
    refreshes_failed,
    /// Requests that joined a refresh in flight.
    joined,
    /// Requests with a rotated token that were resolved to its successor.
    grace_hits,
    /// Sessions whose rotated tokens were evicted before their grace period ended, for lack of memory.
    ///
    /// A request that still carries such a token ends its session. Raise
    /// [`rotation_grace_bytes`](crate::CrossmintAuthConfigBuilder::rotation_grace_bytes).
    grace_evictions,
    /// Requests to sign a session out, through the logout route or the handle.
    logouts,
    /// JWTs of signed-out sessions that were forgotten before they expired, for lack of memory.
    ///
    /// They are accepted again.
    revocation_evictions,
    /// Runs of refused refresh tokens without an accepted one in between.
    ///
    /// The API key may have been revoked:
    /// see [`refusal_warning`](crate::CrossmintAuthConfigBuilder::refusal_warning).
    refusal_runs,
    /// Refreshes that were resolved by another replica's.
    shared_hits,
    /// Refresh tokens that were claimed, so that no other replica sends them.
    shared_claims,
    /// Claims that were taken over from a replica that has stopped.
    shared_takeovers,
    /// Operations for which the store was unreachable.
    ///
    /// Sessions may be lost meanwhile: see [`WhenUnreachable`](crate::WhenUnreachable).
    shared_unreachable,
    /// Refreshes that failed because two replicas have stopped while they were refreshing the session.
    shared_lost,
}

impl Stats {
    /// Returns, for each reason, how many requests were rejected.
    ///
    /// [`AuthErrorKind::as_str`] is suitable as a label. Requests that
    /// [`Unauthenticated::Allow`](crate::Unauthenticated::Allow) forwards although their credentials were refused are
    /// counted too; requests without credentials that a policy forwards are not, and neither are the responses of
    /// extractors.
    pub fn rejections(&self) -> impl Iterator<Item = (AuthErrorKind, u64)> {
        AuthErrorKind::ALL.iter().copied().zip(self.rejections)
    }
}

impl Counters {
    /// Counts a refresh that has ended.
    pub(crate) fn refreshed(&self, error: Option<&AuthError>) {
        if error.is_none() { &self.refreshes_succeeded } else { &self.refreshes_failed }.count();
    }

    pub(crate) fn rejection(&self, kind: AuthErrorKind) {
        self.rejections[kind as usize].count();
    }
}

/// A number that only grows.
#[derive(Debug)]
pub(crate) struct Counter {
    value: AtomicU64,
    metric: Metric,
}

impl Counter {
    fn of(metric: Metric) -> Self {
        Self { value: AtomicU64::new(0), metric }
    }

    /// Creates a counter of its own value for the same metric, so that threads do not contend for one value.
    pub(crate) fn part(&self) -> Self {
        Self::of(self.metric.clone())
    }

    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, times: usize) {
        // Relaxed: a counter guards no other data.
        self.value.fetch_add(times as u64, Ordering::Relaxed);
        self.metric.add(times as u64);
    }

    pub(crate) fn read(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Default for Counters {
    fn default() -> Self {
        Self::new("project")
    }
}
