// Exports with a stock OpenTelemetry exporter and writes down what was acknowledged.
//
// Usage: java -cp JARS OtlpClient.java http|grpc ENDPOINT SPANS SPANS_PER_S
//
// Prints `TRACE_ID SPAN_ID` for every span whose export succeeded. On stderr: `retry` each time the exporter says that it
// tries again, `failed COUNT` for spans it gave up.

import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Scope;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.data.SpanData;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.time.Duration;
import java.util.Collection;
import java.util.concurrent.TimeUnit;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

public final class OtlpClient {
  static final Duration TIMEOUT = Duration.ofSeconds(60); // with all its tries: longer than a restart takes
  static final int BATCH_SPANS = 100;
  static final Logger LOGGER = Logger.getLogger("io.opentelemetry.exporter"); // held: the registry's hold is weak

  /** Hands everything to the stock exporter and notes what it says. */
  record Witness(SpanExporter exporter) implements SpanExporter {
    @Override
    public CompletableResultCode export(Collection<SpanData> spans) {
      CompletableResultCode result = exporter.export(spans);
      return result.whenComplete(
          () -> {
            if (!result.isSuccess()) {
              System.err.println("failed " + spans.size() + " " + result.getFailureThrowable());
              return;
            }
            StringBuilder lines = new StringBuilder();
            for (SpanData span : spans) {
              lines.append(span.getTraceId()).append(' ').append(span.getSpanId()).append('\n');
            }
            System.out.print(lines);
            System.out.flush();
          });
    }

    @Override
    public CompletableResultCode flush() {
      return exporter.flush();
    }

    @Override
    public CompletableResultCode shutdown() {
      return exporter.shutdown();
    }
  }

  /** Says `retry` for each attempt that the exporter will repeat. */
  static final class Listener extends Handler {
    @Override
    public void publish(LogRecord record) {
      String message = String.valueOf(record.getMessage());
      if (message.contains(" retryable ")) {
        System.err.println("retry");
      }
    }

    @Override
    public void flush() {}

    @Override
    public void close() {}
  }

  public static void main(String[] arguments) throws InterruptedException {
    String endpoint = arguments[1];
    int spans = Integer.parseInt(arguments[2]);
    double spansPerSecond = Double.parseDouble(arguments[3]);
    LOGGER.setLevel(Level.ALL);
    LOGGER.setUseParentHandlers(false);
    Handler listener = new Listener();
    listener.setLevel(Level.ALL);
    LOGGER.addHandler(listener);
    SpanExporter exporter =
        arguments[0].equals("grpc")
            ? OtlpGrpcSpanExporter.builder().setEndpoint(endpoint).setTimeout(TIMEOUT).build()
            : OtlpHttpSpanExporter.builder().setEndpoint(endpoint).setTimeout(TIMEOUT).build();
    // A queue that holds everything: what it dropped would be the SDK's doing.
    BatchSpanProcessor processor =
        BatchSpanProcessor.builder(new Witness(exporter))
            .setMaxQueueSize(spans + 1)
            .setMaxExportBatchSize(BATCH_SPANS)
            .setScheduleDelay(Duration.ofMillis(100))
            .setExporterTimeout(TIMEOUT.multipliedBy(2))
            .build();
    SdkTracerProvider provider = SdkTracerProvider.builder().addSpanProcessor(processor).build();
    Tracer tracer = provider.get("client");
    long began = System.nanoTime();
    for (int made = 0; made < spans; made += 2) {
      Span root = tracer.spanBuilder("root").startSpan();
      try (Scope scope = root.makeCurrent()) {
        tracer.spanBuilder("child").startSpan().end();
      }
      root.end();
      long dueNanos = began + (long) (made / spansPerSecond * 1e9);
      long early = dueNanos - System.nanoTime();
      if (early > 1_000_000) {
        TimeUnit.NANOSECONDS.sleep(early);
      }
    }
    provider.forceFlush().join(600, TimeUnit.SECONDS);
    provider.shutdown().join(60, TimeUnit.SECONDS);
    System.exit(0); // its HTTP client's threads would stay for a minute
  }
}
