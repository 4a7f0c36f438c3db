"""The real OpenTelemetry Collector and spanloom, asked for verdicts on the same traces under the same policies."""
