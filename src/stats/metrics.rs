//! The metrics, through the facade of the same name. Without the feature, these types are empty and do nothing.

#[cfg(not(feature = "metrics"))]
pub(crate) use self::none::RefreshTimer;
#[cfg(not(feature = "metrics"))]
pub(super) use self::none::{Metric, Recorder};
#[cfg(feature = "metrics")]
pub(crate) use self::some::RefreshTimer;
#[cfg(feature = "metrics")]
pub(super) use self::some::{Metric, Recorder};

#[cfg(feature = "metrics")]
mod some {
    use std::fmt;

    use metrics::{
        Counter, Gauge, Histogram, Label, SharedString, Unit, counter, describe_counter, describe_gauge,
        describe_histogram, gauge, histogram,
    };
    use tokio::time::Instant;

    use crate::{
        clock,
        error::{AuthError, AuthErrorKind},
    };

    /// The metrics of one project.
    pub(crate) struct Recorder {
        labels: Vec<Label>,
        in_flight: Gauge,
        loaded: Gauge,
        /// By outcome: `None` is success.
        seconds: Vec<(Option<AuthErrorKind>, Histogram)>,
    }

    impl Recorder {
        pub(crate) fn new(project_id: &str) -> Self {
            describe_counter!(REJECTIONS, "Requests that were rejected, by kind.");
            describe_gauge!(IN_FLIGHT, "Refreshes in flight.");
            describe_gauge!(LOADED, Unit::Seconds, "The Unix time at which the key set was loaded.");
            describe_histogram!(SECONDS, Unit::Seconds, "The time that Crossmint took for a refresh, by outcome.");
            let labels = vec![Label::new("project", SharedString::from(project_id.to_owned()))];
            let seconds = OUTCOMES.map(|outcome| {
                let name = outcome.map_or("success", AuthErrorKind::as_str);
                (outcome, histogram!(SECONDS, with(&labels, "outcome", name)))
            });
            let (in_flight, loaded) = (gauge!(IN_FLIGHT, labels.clone()), gauge!(LOADED, labels.clone()));
            Self { labels, in_flight, loaded, seconds: seconds.into() }
        }

        pub(crate) fn counter(&self, name: &'static str, description: &'static str) -> Metric {
            describe_counter!(name, description.trim_start());
            Metric(counter!(name, self.labels.clone()))
        }

        pub(crate) fn rejections(&self, kind: &'static str) -> Metric {
            Metric(counter!(REJECTIONS, with(&self.labels, "kind", kind)))
        }

        /// Records when the key set was loaded, and not its age, which would have to be updated all the time.
        pub(crate) fn keys_loaded(&self) {
            let since = clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            self.loaded.set(since.as_secs_f64());
        }
    }

    fn with(labels: &[Label], label: &'static str, value: &'static str) -> Vec<Label> {
        labels.iter().cloned().chain([Label::from_static_parts(label, value)]).collect()
    }

    impl fmt::Debug for Recorder {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Recorder").finish_non_exhaustive()
        }
    }

    /// One counter.
    #[derive(Clone)]
    pub(crate) struct Metric(Counter);

    impl Metric {
        pub(crate) fn add(&self, times: u64) {
            self.0.increment(times);
        }
    }

    impl fmt::Debug for Metric {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Metric").finish_non_exhaustive()
        }
    }

    /// Measures a refresh, which is in flight until this is dropped.
    pub(crate) struct RefreshTimer<'a> {
        recorder: &'a Recorder,
        started: Instant,
    }

    impl<'a> RefreshTimer<'a> {
        pub(crate) fn start(recorder: &'a Recorder) -> Self {
            recorder.in_flight.increment(1);
            Self { recorder, started: Instant::now() }
        }

        /// Records how the refresh has ended.
        pub(crate) fn stop(self, error: Option<&AuthError>) {
            let outcome = error.map(AuthError::kind);
            if let Some((_, seconds)) = self.recorder.seconds.iter().find(|(of, _)| *of == outcome) {
                seconds.record(self.started.elapsed());
            }
        }
    }

    impl Drop for RefreshTimer<'_> {
        fn drop(&mut self) {
            self.recorder.in_flight.decrement(1);
        }
    }

    /// How a call to refresh a session can end. Each has its series from the start, so that rates begin at zero.
    const OUTCOMES: [Option<AuthErrorKind>; 5] = [
        None,
        Some(AuthErrorKind::Refused),
        Some(AuthErrorKind::Unavailable),
        Some(AuthErrorKind::RateLimited),
        Some(AuthErrorKind::UnusableAnswer),
    ];
    const REJECTIONS: &str = "crossmint_auth_rejections_total";
    const IN_FLIGHT: &str = "crossmint_auth_refreshes_in_flight";
    const LOADED: &str = "crossmint_auth_key_set_loaded_timestamp_seconds";
    const SECONDS: &str = "crossmint_auth_refresh_seconds";
}

#[cfg(not(feature = "metrics"))]
mod none {
    use crate::error::AuthError;

    #[derive(Debug)]
    pub(crate) struct Recorder;

    impl Recorder {
        pub(crate) fn new(_: &str) -> Self {
            Self
        }

        pub(crate) fn counter(&self, _: &'static str, _: &'static str) -> Metric {
            Metric
        }

        pub(crate) fn rejections(&self, _: &'static str) -> Metric {
            Metric
        }

        pub(crate) fn keys_loaded(&self) {}
    }

    #[derive(Clone, Debug)]
    pub(crate) struct Metric;

    impl Metric {
        pub(crate) fn add(&self, _: u64) {}
    }

    pub(crate) struct RefreshTimer;

    impl RefreshTimer {
        pub(crate) fn start(_: &Recorder) -> Self {
            Self
        }

        pub(crate) fn stop(self, _: Option<&AuthError>) {}
    }
}
