// Reports with Zipkin's stock reporter and senders and writes down what was acknowledged.
//
// Usage: java -cp JARS ZipkinClient.java urlconnection|okhttp3 ENDPOINT SPANS SPANS_PER_S
//
// Prints `TRACE_ID SPAN_ID` for every span whose message was taken. Zipkin's reporter drops what could not be sent, so the
// sender is wrapped in one that sends again: `retry` on stderr each time, `failed COUNT` for spans it gave up.

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import zipkin2.Endpoint;
import zipkin2.Span;
import zipkin2.reporter.AsyncReporter;
import zipkin2.reporter.BytesMessageSender;
import zipkin2.reporter.Encoding;
import zipkin2.reporter.okhttp3.OkHttpSender;
import zipkin2.reporter.urlconnection.URLConnectionSender;

public final class ZipkinClient {
  static final long GIVE_UP_NANOS = 120_000_000_000L;
  static final Pattern IDS = Pattern.compile("\"traceId\":\"([0-9a-f]+)\".*?\"id\":\"([0-9a-f]+)\"");

  static final AtomicInteger settled = new AtomicInteger();

  /** Sends again what the stock sender could not, and notes what it could. */
  record Persistent(BytesMessageSender sender) implements BytesMessageSender {
    @Override
    public Encoding encoding() {
      return sender.encoding();
    }

    @Override
    public int messageMaxBytes() {
      return sender.messageMaxBytes();
    }

    @Override
    public int messageSizeInBytes(List<byte[]> spans) {
      return sender.messageSizeInBytes(spans);
    }

    @Override
    public int messageSizeInBytes(int size) {
      return sender.messageSizeInBytes(size);
    }

    @Override
    public void send(List<byte[]> spans) throws IOException {
      long began = System.nanoTime();
      while (true) {
        try {
          sender.send(spans);
          break;
        } catch (IOException | RuntimeException exception) {
          if (System.nanoTime() - began > GIVE_UP_NANOS) {
            System.err.println("failed " + spans.size() + " " + exception);
            settled.addAndGet(spans.size());
            throw exception;
          }
          System.err.println("retry");
          try {
            TimeUnit.MILLISECONDS.sleep(300);
          } catch (InterruptedException interrupted) {
            throw new IOException(interrupted);
          }
        }
      }
      StringBuilder lines = new StringBuilder();
      for (byte[] span : spans) {
        Matcher matcher = IDS.matcher(new String(span, StandardCharsets.UTF_8));
        if (!matcher.find()) {
          throw new IllegalStateException("no ids in a span");
        }
        lines.append(matcher.group(1)).append(' ').append(matcher.group(2)).append('\n');
      }
      System.out.print(lines);
      System.out.flush();
      settled.addAndGet(spans.size());
    }

    @Override
    public void close() throws IOException {
      sender.close();
    }
  }

  public static void main(String[] arguments) throws Exception {
    String endpoint = arguments[1];
    int spans = Integer.parseInt(arguments[2]);
    double spansPerSecond = Double.parseDouble(arguments[3]);
    BytesMessageSender sender =
        arguments[0].equals("okhttp3")
            ? OkHttpSender.newBuilder().endpoint(endpoint).readTimeout(60_000).build()
            : URLConnectionSender.newBuilder().endpoint(endpoint).readTimeout(60_000).build();
    // A queue that holds everything: what it dropped would be the reporter's doing.
    AsyncReporter<Span> reporter =
        AsyncReporter.builder(new Persistent(sender))
            .queuedMaxSpans(spans + 1)
            .messageMaxBytes(30_000)
            .messageTimeout(100, TimeUnit.MILLISECONDS)
            .closeTimeout(300, TimeUnit.SECONDS)
            .build();
    Random random = new Random();
    Endpoint shop = Endpoint.newBuilder().serviceName("shop").build();
    long began = System.nanoTime();
    for (int made = 0; made < spans; made += 2) {
      String traceId = String.format("%016x%016x", random.nextLong() | 1, random.nextLong() | 1);
      String rootId = String.format("%016x", random.nextLong() | 1);
      long micros = System.currentTimeMillis() * 1000;
      Span.Builder root = Span.newBuilder().traceId(traceId).id(rootId).name("root").localEndpoint(shop);
      reporter.report(root.kind(Span.Kind.SERVER).timestamp(micros).duration(1500).build());
      Span.Builder child = Span.newBuilder().traceId(traceId).id(random.nextLong() | 1).parentId(rootId);
      reporter.report(child.name("child").localEndpoint(shop).timestamp(micros + 100).duration(700).build());
      long early = began + (long) (made / spansPerSecond * 1e9) - System.nanoTime();
      if (early > 1_000_000) {
        TimeUnit.NANOSECONDS.sleep(early);
      }
    }
    while (settled.get() < spans) { // closing it would drop what is queued
      TimeUnit.MILLISECONDS.sleep(50);
    }
    reporter.close();
    System.exit(0);
  }
}
