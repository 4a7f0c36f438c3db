"""Half an hour of everything that can go wrong, on real servers: `python -m tests.cluster.chaos`."""
