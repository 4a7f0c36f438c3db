// Exports with a stock OpenTelemetry exporter and writes down what was acknowledged.
//
// Usage: node client.cjs http|proto|grpc ENDPOINT SPANS SPANS_PER_S
//
// Prints `TRACE_ID SPAN_ID` for every span whose export succeeded. On stderr: `retry` each time the exporter says that it
// tries again, `failed COUNT` for spans it gave up. The gRPC exporter of this version never tries again, whatever the
// server says (its transport knows success and failure only), so there this program does, and says `retry`.
'use strict';

const { diag, DiagLogLevel, trace, context } = require('@opentelemetry/api');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');

const TIMEOUT_MS = 60000; // of an export with all its tries: longer than a restart takes on a loaded machine
const BATCH_SPANS = 100;
const AGAIN_MS = 300;
const TICK_MS = 20;

const [protocol, url, spansText, rateText] = process.argv.slice(2);
const spans = Number(spansText);
const spansPerTick = (Number(rateText) * TICK_MS) / 1000;
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${protocol}`);

let settled = 0; // spans that the exporter has answered for

function listen(...message) {
  if (message.join(' ').includes('Scheduling export retry')) {
    process.stderr.write('retry\n');
  }
}
diag.setLogger({ error: listen, warn: listen, info: listen, debug: listen, verbose: listen }, DiagLogLevel.ALL);

// Hands everything to the stock exporter and notes what it says.
class Witness {
  constructor(exporter) {
    this.exporter = exporter;
  }

  export(batch, callback, giveUpAt = Date.now() + TIMEOUT_MS) {
    this.exporter.export(batch, result => {
      if (result.code !== 0 && protocol === 'grpc' && Date.now() < giveUpAt) {
        process.stderr.write('retry\n');
        setTimeout(() => this.export(batch, callback, giveUpAt), AGAIN_MS);
        return;
      }
      settled += batch.length;
      if (result.code === 0) {
        const ids = batch.map(span => span.spanContext());
        process.stdout.write(ids.map(each => `${each.traceId} ${each.spanId}\n`).join(''));
      } else {
        process.stderr.write(`failed ${batch.length} ${result.error}\n`);
      }
      callback(result);
    });
  }

  forceFlush() {
    return this.exporter.forceFlush ? this.exporter.forceFlush() : Promise.resolve();
  }

  shutdown() {
    return this.exporter.shutdown();
  }
}

const witness = new Witness(new OTLPTraceExporter({ url, timeoutMillis: TIMEOUT_MS }));
// A queue that holds everything: what it dropped would be the SDK's doing.
const processor = new BatchSpanProcessor(witness, {
  maxQueueSize: spans + 1,
  maxExportBatchSize: BATCH_SPANS,
  scheduledDelayMillis: 100,
  exportTimeoutMillis: 2 * TIMEOUT_MS,
});
const provider = new BasicTracerProvider({ spanProcessors: [processor] });
const tracer = provider.getTracer('client');

let made = 0;
const began = Date.now();
const timer = setInterval(() => {
  const due = Math.min(spans, ((Date.now() - began) / TICK_MS) * spansPerTick);
  while (made + 2 <= due) {
    const root = tracer.startSpan('root');
    tracer.startSpan('child', {}, trace.setSpan(context.active(), root)).end();
    root.end();
    made += 2;
  }
  if (settled >= made && made + 2 > spans) { // flushing would send all that is queued at once
    clearInterval(timer);
    provider.shutdown();
  }
}, TICK_MS);
