"""Stock clients of other languages against our collector and a real broker, by hand: see __main__.py."""
