"""Brings kept fragments to the store, then to the topics that tell of them. Every write may be repeated.

Order of effects: the store, then `traces-complete` and `sampling-decisions`. What the store will never take goes to the
dead letters instead.
"""

import json
from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from spanloom.actors.context import World
from spanloom.actors.patience import patiently
from spanloom.core.document import build_document
from spanloom.core.failpoints import Failpoint
from spanloom.errors import CacheUnavailable, StoreRejected
from spanloom.model import (
    DEAD_LETTERS,
    FLAG_LATE,
    SAMPLING_DECISIONS,
    SPANS,
    TRACES_COMPLETE,
    AttributeValue,
    Document,
    Fragment,
    Message,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FRAGMENT_HEADER = "fragment"  # the document id: a repeat on the topics has the same
PLAIN_REAL_MAX = 1e16  # from here on Python writes an exponent
DELETE = b"\x7f"
_in_order = msgspec.json.Encoder(order="sorted")


async def receive_bulk(fragments: trio.MemoryReceiveChannel[Fragment], bulk_bytes: int) -> list[Fragment]:
    """Wait for a fragment; take with it those that are there, up to about *bulk_bytes* of spans."""
    bulk = [await fragments.receive()]
    size = len(bulk[0].spans)
    while size < bulk_bytes:
        try:
            fragment = fragments.receive_nowait()
        except trio.WouldBlock:
            break
        bulk.append(fragment)
        size += len(fragment.spans)
    return bulk


async def write_bulk(
    bulk: Sequence[Fragment], world: World, *, partition: int, policy_names: Callable[[int], Sequence[str]]
) -> list[str]:
    """Store a bulk and tell of it, however long that takes. Gives each fragment's end: `stored` or `dead_lettered`."""
    incarnation = world.source.incarnation
    documents = [
        build_document(
            fragment,
            incarnation=incarnation,
            partition=partition,
            policy_names=policy_names(fragment.decision.policy_version),
        )
        for fragment in bulk
    ]
    world.failpoint(Failpoint.BEFORE_STORE)
    refusals = await patiently(
        lambda: world.store.write(documents), draw=world.random, partition=partition, what="store"
    )
    world.failpoint(Failpoint.STORE_UNANSWERED)
    refused = {refusal.document_id: refusal for refusal in refusals}
    for fragment, document in zip(bulk, documents, strict=True):
        if document.id in refused:
            await _dead_letter(fragment, refused[document.id], world, partition=partition)
    stored = [document for document in documents if document.id not in refused]
    await _uncache(bulk, world)
    await _tell(TRACES_COMPLETE, [_complete(document) for document in stored], world, partition=partition)
    await _tell(SAMPLING_DECISIONS, [_decision(document) for document in stored], world, partition=partition)
    return ["dead_lettered" if document.id in refused else "stored" for document in documents]


async def _uncache(bulk: Sequence[Fragment], world: World) -> None:
    """A trace with a new fragment is no longer what was cached of it. Best effort: an entry dies by itself soon."""
    for fragment in bulk:
        if fragment.decision.flags & FLAG_LATE:
            try:
                await world.cache.delete(f"trace:{fragment.decision.trace_id.hex()}")
            except CacheUnavailable:
                return


async def _tell(topic: str, messages: list[Message], world: World, *, partition: int) -> None:
    if messages:
        await patiently(
            lambda: world.outlet.publish(topic, messages), draw=world.random, partition=partition, what=topic
        )


async def _dead_letter(fragment: Fragment, refusal: StoreRejected, world: World, *, partition: int) -> None:
    trace_id, first = fragment.decision.trace_id.hex(), fragment.decision.first
    log.error("dead letter", trace_id=trace_id, document=refusal.document_id, reason=refusal.reason)
    headers = (
        ("reason", f"store: {refusal.reason}".encode()),
        ("source-topic", SPANS.encode()),
        ("source-partition", str(partition).encode()),
        ("source-offset", str(first).encode()),
    )
    await _tell(DEAD_LETTERS, [Message(trace_id.encode(), fragment.spans, headers)], world, partition=partition)


def _complete(document: Document) -> Message:
    return Message(document.trace_id.encode(), document.spans, ((FRAGMENT_HEADER, document.id.encode()),))


def _decision(document: Document) -> Message:
    value = verdict_json(document.verdict)
    return Message(document.trace_id.encode(), value, ((FRAGMENT_HEADER, document.id.encode()),))


def verdict_json(verdict: dict[str, AttributeValue]) -> bytes:
    """A verdict as `sampling-decisions` has it: no blanks, ASCII, keys in order; a repeat has the same bytes.

    msgspec takes a tenth of json's time, and writes only large numbers, DEL and what is not ASCII differently.
    """
    count = verdict["adjusted_count"]
    if count is None or (isinstance(count, float) and count < PLAIN_REAL_MAX):
        plain = _in_order.encode(verdict)
        if plain.isascii() and DELETE not in plain:
            return plain
    return json.dumps(verdict, sort_keys=True, separators=(",", ":")).encode()
