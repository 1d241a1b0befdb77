//! What the layer logs.

use std::{
    fmt::Debug,
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// The events of this thread, which runs one test.
pub(crate) struct Events {
    texts: Arc<Mutex<Vec<String>>>,
    spans: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
}

impl Events {
    pub(crate) fn capture(level: Level) -> Self {
        // Without a global subscriber, tests on other threads may disable the events.
        let _ = tracing::subscriber::set_global_default(Capture::new(level));
        let capture = Capture::new(level);
        let [texts, spans] = [&capture.texts, &capture.spans].map(Arc::clone);
        Self { texts, spans, _guard: tracing::subscriber::set_default(capture) }
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
    spans: Arc<Mutex<Vec<String>>>,
}

impl Capture {
    fn new(level: Level) -> Self {
        Self { level, texts: Arc::default(), spans: Arc::default() }
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
        spans.push(text.0);
        span::Id::from_u64(spans.len() as u64)
    }

    fn record(&self, id: &span::Id, fields: &span::Record<'_>) {
        let mut text = Text::default();
        fields.record(&mut text);
        self.spans.lock().unwrap()[id.into_u64() as usize - 1] += &text.0;
    }

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

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "error" => {}
            "message" => self.0 += &format!(" {value:?}"),
            name => self.0 += &format!(" {name}={value:?}"),
        }
    }
}

/// The events of this thread and the ends of its spans, as tracing-subscriber writes them for log pipelines.
#[derive(Clone, Default)]
pub(crate) struct JsonLog(Arc<Mutex<Vec<u8>>>);

impl JsonLog {
    pub(crate) fn capture() -> (Self, DefaultGuard) {
        let _ = tracing::subscriber::set_global_default(Capture::new(Level::TRACE));
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(Level::TRACE)
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(log.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    /// Returns the lines of the crate so far.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"].as_str().unwrap().starts_with("tower_crossmint_auth")).collect()
    }

    /// Returns the field `error` of the events so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.lines().iter().filter_map(|line| line["fields"]["error"].as_str().map(ToOwned::to_owned)).collect()
    }

    /// Returns the spans that have ended, each with the names of those around it.
    pub(crate) fn ended_spans(&self) -> Vec<(Vec<String>, Value)> {
        let ends = self.lines().into_iter().filter(|line| line["fields"]["message"] == "close");
        let ended = ends.map(|line| {
            let names = line["spans"].as_array().unwrap().iter().map(|span| span["name"].as_str().unwrap().to_owned());
            (names.collect(), line["span"].clone())
        });
        ended.collect()
    }
}

impl io::Write for JsonLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for JsonLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
