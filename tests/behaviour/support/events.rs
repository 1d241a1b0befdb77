//! What the layer logs.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
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
    causes: Arc<Mutex<Vec<String>>>,
    spans: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Events {
    pub(crate) fn capture(level: Level) -> Self {
        // Without a global subscriber, tests on other threads may disable the events.
        let _ = tracing::subscriber::set_global_default(Capture::new(level));
        let capture = Capture::new(level);
        let [texts, causes, spans] = [&capture.texts, &capture.causes, &capture.spans].map(Arc::clone);
        Self { texts, causes, spans, _guard: tracing::subscriber::set_default(capture) }
    }

    /// Returns the field `error` of the events so far, as every subscriber gets it.
    pub(crate) fn causes(&self) -> Vec<String> {
        self.causes.lock().unwrap().clone()
    }

    /// Returns the spans so far, with their fields in the order in which they were recorded.
    pub(crate) fn spans(&self) -> Vec<String> {
        self.spans.lock().unwrap().clone()
    }

    /// Returns the events so far: level, message, and all fields but `error`, whose text may change.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }
}

struct Capture {
    level: Level,
    texts: Arc<Mutex<Vec<String>>>,
    causes: Arc<Mutex<Vec<String>>>,
    spans: Arc<Mutex<Vec<String>>>,
}

impl Capture {
    fn new(level: Level) -> Self {
        Self { level, texts: Arc::default(), causes: Arc::default(), spans: Arc::default() }
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut text = Text::default();
        if span.metadata().target().starts_with("tower_crossmint_auth") {
            span.record(&mut text);
        }
        let mut spans = self.spans.lock().unwrap();
        spans.push(text.line);
        span::Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &span::Id, fields: &span::Record<'_>) {
        let mut text = Text::default();
        fields.record(&mut text);
        self.spans.lock().unwrap()[id.into_u64() as usize - 1] += &text.line;
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if metadata.target().starts_with("tower_crossmint_auth") && *metadata.level() <= self.level {
            let mut text = Text { line: metadata.level().to_string(), cause: None };
            event.record(&mut text);
            self.texts.lock().unwrap().push(text.line);
            self.causes.lock().unwrap().extend(text.cause);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    line: String,
    cause: Option<String>,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "error" => self.cause = Some(format!("{value:?}")),
            "message" => self.line += &format!(" {value:?}"),
            name => self.line += &format!(" {name}={value:?}"),
        }
    }
}
