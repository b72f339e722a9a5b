//! Traces of reviews, sent by OTLP. A decision's id is its trace's: whoever has one from an audit log finds the other.
//!
//! Source: OpenTelemetry specification, "Trace", "OTLP Exporter".

use std::{cell::Cell, time::Duration};

use opentelemetry::{
    KeyValue,
    trace::{SpanId, TraceId, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider},
};
use tracing::Span;
use uuid::Uuid;

use crate::Error;

/// Sends traces until it is ended.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends to a collector by gRPC, `http://HOST:4317`; must be called where tokio runs. One that does not answer costs nothing but its
    /// traces.
    ///
    /// # Errors
    /// [`Error::Traces`]: this is no address.
    pub fn start(endpoint: &str, cluster: &str) -> Result<Self, Error> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT).build();
        let exporter = exporter.map_err(|error| Error::Traces(format!("{endpoint}: {error}")))?;
        let resource = Resource::builder()
            .with_service_name("mayfly")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("k8s.cluster.name", cluster.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_id_generator(DecisionIds::default())
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// What makes the spans.
    #[must_use]
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("mayfly")
    }

    /// Sends what is still here. It waits for the collector, for some seconds.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT) {
            tracing::warn!(%error, "the last traces are not sent");
        }
    }
}

/// Ids of traces: those of decisions, and chance for the rest.
#[derive(Debug, Clone, Default)]
pub(crate) struct DecisionIds(RandomIdGenerator);

impl IdGenerator for DecisionIds {
    fn new_trace_id(&self) -> TraceId {
        NEXT.take().map_or_else(|| self.0.new_trace_id(), |id| TraceId::from_bytes(id.into_bytes()))
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// Makes `span` the root of the trace with this id, where it is traced.
pub(crate) fn begin(span: &Span, id: Uuid) {
    NEXT.set(Some(id));
    // A trace gets its id when its span is entered for the first time.
    span.in_scope(|| {});
    NEXT.set(None);
}

thread_local! {
    static NEXT: Cell<Option<Uuid>> = const { Cell::new(None) };
}

const EXPORT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::{error::OTelSdkResult, trace::SpanData};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone)]
    struct Kept(std::sync::mpsc::Sender<(TraceId, String)>);

    impl opentelemetry_sdk::trace::SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            for span in batch {
                let _ = self.0.send((span.span_context.trace_id(), span.name.into_owned()));
            }
            Ok(())
        }
    }

    #[test]
    fn the_trace_of_a_decision_has_its_id_and_so_have_the_steps_in_it() {
        let (sender, spans) = std::sync::mpsc::channel();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(Kept(sender))
            .with_id_generator(DecisionIds::default())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let id = Uuid::now_v7();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let review = tracing::info_span!("review");
            begin(&review, id);
            review.in_scope(|| tracing::info_span!("decide").in_scope(|| {}));
            drop(review);
            tracing::info_span!("other").in_scope(|| {});
        });
        drop(provider);
        let spans: Vec<_> = spans.try_iter().collect();
        let of = |wanted: &str| spans.iter().find(|(_, name)| name == wanted).map(|(id, _)| id.to_bytes());
        assert_eq!(of("review"), Some(id.into_bytes()));
        assert_eq!(of("decide"), Some(id.into_bytes()));
        assert_ne!(of("other"), Some(id.into_bytes()));
    }
}
