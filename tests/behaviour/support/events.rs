//! What the layer logs.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

/// The events of this thread, which runs one test.
pub(crate) struct Events {
    texts: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Events {
    pub(crate) fn capture(level: Level) -> Self {
        // Without a global subscriber, tests on other threads may disable the events.
        let _ = tracing::subscriber::set_global_default(Capture { level, texts: Arc::default() });
        let texts = Arc::default();
        let guard = tracing::subscriber::set_default(Capture { level, texts: Arc::clone(&texts) });
        Self { texts, _guard: guard }
    }

    /// Returns the events so far: level, message, and all fields but `error`, whose text may change.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }
}

struct Capture {
    level: Level,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        span::Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if metadata.target().starts_with("tower_crossmint_auth") && *metadata.level() <= self.level {
            let mut text = Text(metadata.level().to_string());
            event.record(&mut text);
            self.texts.lock().unwrap().push(text.0);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "error" => {}
            "message" => self.0.push_str(&format!(" {value:?}")),
            name => self.0.push_str(&format!(" {name}={value:?}")),
        }
    }
}
