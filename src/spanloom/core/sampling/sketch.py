"""Quantiles of durations in bounded memory: a DDSketch in integers.

DDSketch (Masson, Rim, Lee; VLDB 2019) counts values in buckets of equal relative width. Here a bucket is named by a
duration's bit length and the six bits below its highest: every bucket spans less than 1/64 of its value, so a quantile
is off by less than 0.8 %. No logarithm is taken, so every machine and both kernels agree on every bucket.
"""

SUB_BITS = 6  # buckets a power of two: 64


def bucket_of(duration_ns: int) -> int:
    """The bucket of a duration. Rises with it; exact below 128 ns."""
    shift = duration_ns.bit_length() - 1 - SUB_BITS
    return duration_ns if shift <= 0 else (shift << SUB_BITS) + (duration_ns >> shift)


def upper_bound_of(bucket: int) -> int:
    """The highest duration in ns that falls into *bucket*."""
    shift = (bucket >> SUB_BITS) - 1
    if shift <= 0:
        return bucket
    mantissa = bucket - (shift << SUB_BITS)
    return ((mantissa + 1) << shift) - 1


def quantile_bucket(counts: dict[int, int], basis_points: int) -> int:
    """The bucket that holds the value of rank ceil(n * basis_points / 10,000). *counts* is not empty."""
    total = sum(counts.values())
    rank = max(1, -(-total * basis_points // 10_000))
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return bucket
    raise AssertionError("a rank beyond the count")
