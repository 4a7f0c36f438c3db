"""Compiled from ext/ where there was a compiler; only `spanloom.core.kernel` imports it."""
