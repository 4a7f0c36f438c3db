"""A sampler's program and states, from Python to the C headers: what program.h and samplerstate.h hold."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from crossing cimport slice_of
from kernel_c cimport *


cdef inline int put_predicate(sl_predicates *to, int bit, object asked, list groups) except? -1:
    """Add a core.sampling.program.Predicate; its bit joins the group where Python is asked about it."""
    cdef bytes key = asked.key.encode()
    cdef bytes text
    cdef uint32_t group
    cdef int kind = asked.kind
    cdef int status = sl_put_predicate(to, <sl_predicate_kind>kind, slice_of(key), asked.low, asked.high, &group)
    if status == SL_OK and kind in (SL_PREDICATE_TEXT, SL_PREDICATE_STATE):
        for written in dict.fromkeys(asked.texts):
            text = written.encode()
            if sl_put_text(to, <sl_predicate_kind>kind, slice_of(key), slice_of(text)) != SL_OK:
                return SL_NO_MEMORY
    if group != SL_NONE:
        while len(groups) <= group:
            groups.append([])
        groups[group].append(bit)
    return status


cdef inline int put_node(sl_program *to, object node, size_t first_child, dict numbers) except? -1:
    """Add a core.sampling.program.Node; *numbers* are those of the states, by key."""
    cdef sl_node *made = sl_nodes_add(&to.nodes)
    cdef bytes salt = node.salt
    if not made:
        return SL_NO_MEMORY
    made.op = <sl_op><int>node.op
    made.inverted = node.inverted
    made.is_chance = node.is_chance
    made.predicate = node.predicate
    made.low = made.high = 0
    made.threshold = made.salted = 0
    if node.op.name == "SPAN_COUNT":
        made.low, made.high = node.low, node.high
    else:
        made.threshold = node.low
    made.salted = sl_fnv1a_64(slice_of(salt).at, len(salt))
    held = [node.policy] if node.policy is not None else node.buckets
    made.first_state = numbers[held[0]] if held else 0
    made.first_child = <uint32_t>first_child
    made.child_count = len(node.children)
    return SL_OK


cdef inline int put_nodes(sl_program *to, object program, dict numbers) except? -1:
    """All nodes, the children of one together, behind those before them."""
    cdef size_t at = 0
    cdef uint32_t *place
    nodes = list(program.nodes)
    while at < <size_t>len(nodes):
        if put_node(to, nodes[at], len(nodes), numbers) != SL_OK:
            return SL_NO_MEMORY
        nodes.extend(nodes[at].children)
        at += 1
    for index in program.order:
        place = sl_order_add(&to.order)
        if not place:
            return SL_NO_MEMORY
        place[0] = index
    return SL_OK


cdef inline int put_percentiles(sl_percentiles *to, const sl_key *key, object sketches) except? -1:
    """What a core._pure.percentiles.Percentiles holds."""
    to.percentile_bp = sketches.policy.percentile_bp
    to.min_count = sketches.policy.min_count
    to.half_ns = sketches.policy.window_ns // 2
    to.operations_max = sketches.policy.operations_max
    to.generation = sketches.generation
    for half, operations in ((SL_CURRENT, sketches.current), (SL_EARLIER, sketches.earlier)):
        for operation, buckets in operations.items():
            if sl_percentiles_put(to, key, half, operation) != SL_OK:
                return SL_NO_MEMORY
            for bucket, count in buckets.items():
                if sl_percentiles_put_bucket(to, key, half, operation, sl_bucket(bucket, count)) != SL_OK:
                    return SL_NO_MEMORY
    for operation, (count, bucket) in sketches.cuts.items():
        if sl_percentiles_put_cut(to, key, operation, count, bucket) != SL_OK:
            return SL_NO_MEMORY
    return SL_OK


cdef inline int put_shares(sl_shares *to, const sl_key *key, object shares) except? -1:
    """What a core._pure.rates.Shares holds."""
    cdef sl_share share
    to.goal = shares._goal
    to.interval_ns = shares.policy.interval_ns
    to.weight = shares.policy.weight
    to.operations_max = shares.policy.operations_max
    to.generation = shares.generation
    for operation in {**shares.averages, **shares.spans}:
        share.operation = operation
        share.average = shares.averages.get(operation, 0)
        share.spans = shares.spans.get(operation, 0)
        share.threshold = shares.thresholds.get(operation, 0)
        if sl_shares_put(to, key, share) != SL_OK:
            return SL_NO_MEMORY
    return SL_OK


cdef inline int put_bucket(sl_state *to, object state, uint32_t partition_count) except? -1:
    """What a core._pure.rates.TokenBucket holds."""
    bucket = state.bucket
    to.charge = bucket.charge
    to.of.bucket = sl_token_bucket_new(bucket.per_second, bucket.burst, bucket.by_bytes, partition_count)
    to.of.bucket.level, to.of.bucket.filled_us = state.level, state.filled_us
    return SL_OK


cdef inline int put_state(sl_program *to, const sl_key *key, int kind, object state,
                          uint32_t partition_count) except? -1:
    """Add what a state of core._pure.sampler holds."""
    cdef sl_state *made = sl_program_add_state(to, <sl_state_kind>kind)
    if not made:
        return SL_NO_MEMORY
    if kind == SL_STATE_PERCENTILES:
        return put_percentiles(&made.of.percentiles, key, state)
    if kind == SL_STATE_SHARES:
        return put_shares(&made.of.shares, key, state)
    return put_bucket(made, state, partition_count)


cdef inline int put_program(sl_program *to, object program, dict numbers, list groups) except? -1:
    """All of a core.sampling.program.Program but its states, which have *numbers* by key.

    *groups* becomes the bits of the predicates that Python is asked about, by group.
    """
    cdef int bit
    to.predicates.asks_rv = program.asks_randomness
    for bit, asked in enumerate(program.predicates):
        if put_predicate(&to.predicates, bit, asked, groups) != SL_OK:
            return SL_NO_MEMORY
    return put_nodes(to, program, numbers)
