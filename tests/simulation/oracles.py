"""What a run must have left behind, and everything in which it did not.

The judge of a partition is a calm reading of the same records with the ledger's valid TICKs by one assembler that
nothing happens to. Where policies were switched it judges each trace by the version the ledger names, and by the rate
that the ledger had there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from spanloom.actors.partition import DEADLY as DEADLY_REASON
from spanloom.actors.writer import FRAGMENT_HEADER
from spanloom.core._pure.assembler import Assembler
from spanloom.core._pure.gathering import Gathering
from spanloom.core._pure.sampler import rate_of_state
from spanloom.core.assembly import Harvest, Limits, Tally
from spanloom.core.document import build_document
from spanloom.core.ledger import (
    Checkpoint,
    Config,
    Decide,
    Entry,
    Fence,
    Rate,
    Skip,
    Tick,
    decode,
    decode_decisions,
)
from spanloom.core.ownership import decode_metadata
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.versions import those_that_count
from spanloom.core.sampling.written import policies_from_body
from spanloom.model import (
    DEAD_LETTERS,
    FLAG_LATE,
    SAMPLING_DECISIONS,
    TRACES_COMPLETE,
    Committed,
    Decision,
    Document,
    Fragment,
    Record,
    Trigger,
    Verdict,
)
from tests.simulation.scene import DEADLY, LIMITS, Scene
from tests.spans import span_id

Place = tuple[bytes, int]  # trace id, first offset


class CalmAssembler(Assembler):
    """Judges each trace under the policy version that the ledger has for it."""

    def __init__(self, limits: Limits, *, partition: int, partition_count: int) -> None:
        super().__init__(limits, partition=partition, partition_count=partition_count)
        self.versions: dict[Place, PolicySet] = {}
        self.rates: dict[Place, float] = {}

    def _decide(self, gathering: Gathering, trigger: Trigger, stream_ns: int) -> None:
        policies = self.versions.get((gathering.trace_id, gathering.first))
        if policies and policies is not self._sampler.policies:
            self.configure(policies)
        self.set_rate(self.rates.get((gathering.trace_id, gathering.first), 1.0))
        super()._decide(gathering, trigger, stream_ns)


@dataclass(slots=True)
class Calm:
    """What should have come of a partition."""

    decisions: list[Decision] = field(default_factory=list)
    fragments: list[Fragment] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)  # offsets
    tally: Tally = field(default_factory=Tally)
    innocent: int = 0  # records skipped as deadly that are not: owners had read them before, and timers had run on them


def valid_entries(bodies: Sequence[bytes], partition: int) -> list[Entry]:
    """The ledger's entries that count, whoever wrote them."""
    epoch = 0
    entries: list[Entry] = []
    for position, body in enumerate(bodies):
        of, entry = decode(body, partition=partition, position=position)
        if isinstance(entry, Fence):
            epoch = max(epoch, of)
        elif of == epoch:
            entries.append(entry)
    return entries


def ledger_of(scene: Scene, partition: int) -> list[Entry]:
    return valid_entries([record.body for record in scene.ledger._entries[partition]], partition)


def decisions_in(entries: Sequence[Entry]) -> list[Decision]:
    return [d for entry in entries if isinstance(entry, Decide) for d in decode_decisions(entry.entries)]


def rates_in(entries: Sequence[Entry]) -> dict[Place, float]:
    """The rate under which each decision was made: the last that stands before it."""
    rate, found = 1.0, {}
    for entry in entries:
        match entry:
            case Rate(_, now):
                rate = now
            case Checkpoint(_, _, state):
                assert rate_of_state(state) == rate, "a CHECKPOINT has the rate in force"
            case Decide(body):
                found.update({(d.trace_id, d.first): rate for d in decode_decisions(body)})
    return found


def read_calmly(records: Sequence[Record], entries: Sequence[Entry], *, partition: int, partition_count: int) -> Calm:
    """One assembler, one record at a time, everything confirmed and stored at once."""
    assembler = CalmAssembler(LIMITS, partition=partition, partition_count=partition_count)
    versions = {e.version: policies_from_body(e.body, version=e.version) for e in entries if isinstance(e, Config)}
    if versions:
        assembler.configure(versions[min(versions)])
    assembler.versions = {
        (d.trace_id, d.first): versions[d.policy_version]
        for d in decisions_in(entries)
        if not d.flags & FLAG_LATE and d.policy_version in versions
    }
    assembler.rates = rates_in(entries)
    ticks = sorted((entry for entry in entries if isinstance(entry, Tick)), key=lambda tick: tick.offset)
    deadly = {entry.offset for entry in entries if isinstance(entry, Skip) and entry.reason == DEADLY_REASON}
    calm = Calm()

    def take(harvest: Harvest) -> None:
        for body in harvest.decisions:
            calm.decisions += decode_decisions(body)
            for fragment in assembler.confirm(Decide(body).count):
                calm.fragments.append(fragment)
                assembler.resolve(fragment.decision, "stored")
        for reject in harvest.rejects:
            calm.rejected.append(reject.record.offset)
            assembler.skipped(reject.record.offset)
        for move in harvest.moves:
            assembler.moved(move.offset)

    for record in records:
        while ticks and ticks[0].offset <= record.offset:
            take(assembler.advance(ticks.pop(0).stream_ns))
        if record.offset in deadly:
            calm.rejected.append(record.offset)
            calm.innocent += record.key != DEADLY
            take(assembler.skip(record))
        else:
            take(assembler.feed([record]))
    for tick in ticks:
        take(assembler.advance(tick.stream_ns))
    calm.tally = assembler.statistics().tally
    return calm


def differences(scene: Scene) -> list[str]:
    """Everything in which the run is not as promised."""
    found = list(scene.bugs)
    wanted: dict[str, Document] = {}
    for partition in range(scene.plan.partitions):
        entries = ledger_of(scene, partition)
        count = scene.plan.partitions
        calm = read_calmly(scene.history[partition], entries, partition=partition, partition_count=count)
        found += _judged_twice(scene, partition, entries)
        found += _decided_otherwise(scene, partition, decisions_in(entries), calm)
        found += _books(scene, partition, calm)
        found += _letters(scene, partition, calm)
        names = {e.version: policies_from_body(e.body, version=e.version) for e in entries if isinstance(e, Config)}
        for fragment in calm.fragments:
            document = build_document(
                fragment,
                incarnation=scene.log.incarnation,
                partition=partition,
                policy_names=[policy.name for policy in names[fragment.decision.policy_version].policies],
            )
            wanted[document.id] = document
    if not scene.plan.pressure and not scene.plan.retention:
        found += _stored_otherwise(scene, wanted)
    found += _refused(scene)
    found += _repeats(scene)
    found += _told(scene)
    found += _lost(scene)
    return found


def _judged_twice(scene: Scene, partition: int, entries: Sequence[Entry]) -> Iterator[str]:
    """Versions are the fleet's: each has one body; none is left for a lower one; a trace's decisions name one."""
    bodies = {one.version: one.body for one in those_that_count(scene.versions._records)}
    in_force = 0
    lives: dict[bytes, int] = {}
    for entry in entries:
        match entry:
            case Config(_, version, body):
                if bodies.get(version) != body:
                    yield f"VERSION {partition} {version} has other policies than the log of versions"
                if version < in_force:
                    yield f"VERSION {partition} {version} after {in_force}"
                in_force = version
            case Decide(batch):
                for d in decode_decisions(batch):
                    if not d.flags & FLAG_LATE:
                        lives[d.trace_id] = d.policy_version
                        if d.policy_version != in_force:
                            yield f"VERSION {partition} {d} under {in_force}"
                    elif lives.get(d.trace_id) != d.policy_version:
                        yield f"VERSION {partition} {d} in a life of {lives.get(d.trace_id)}"


def _decided_otherwise(scene: Scene, partition: int, mine: list[Decision], calm: Calm) -> Iterator[str]:
    places = Counter((d.trace_id, d.first) for d in mine)
    yield from (f"DECIDED TWICE {partition} {place}" for place, count in places.items() if count > 1)
    if scene.plan.pressure or scene.plan.retention:
        return
    ours, theirs = {(d.trace_id, d.first): d for d in mine}, {(d.trace_id, d.first): d for d in calm.decisions}
    for place in sorted(ours.keys() | theirs.keys(), key=lambda place: place[1]):
        if ours.get(place) != theirs.get(place):
            yield f"DIVERGE {partition} {ours.get(place)} for {theirs.get(place)}"
    if not scene.plan.switching and not calm.innocent and list(ours) != list(theirs):
        yield f"ORDER {partition}"


def _books(scene: Scene, partition: int, calm: Calm) -> Iterator[str]:
    committed = scene.log._committed.get(partition, Committed(0, b""))
    end = scene.log._partitions[partition].end
    if committed.offset != end:
        yield f"COMMITTED {partition}: {committed.offset} of {end}"
    tally = decode_metadata(committed, partition=partition)[0].tally
    if tally.pending:
        yield f"PENDING {partition}: {tally}"
    if tally.received != tally.resolved:
        yield f"BOOKS {partition}: {tally}"
    if scene.plan.retention:
        scene.weather.fired["spans lost to retention"] += tally.lost_to_retention
    elif (tally.received, tally.moved, tally.lost_to_retention) != (calm.tally.received, calm.tally.moved, 0):
        yield f"BOOKS {partition}: {tally} for {calm.tally}"
    elif not scene.plan.pressure and not scene.plan.refusing and tally != calm.tally:
        scene.weather.fired["books that name another outcome"] += 1


def _letters(scene: Scene, partition: int, calm: Calm) -> Iterator[str]:
    """Every rejected record is in the dead letters, and nothing else is that was not refused by the store."""
    letters = scene.outlet._topics.get(DEAD_LETTERS, [])
    found: defaultdict[int, set[bytes]] = defaultdict(set)
    for letter in letters:
        headers = dict(letter.headers)
        if headers["source-partition"] == str(partition).encode() and not headers["reason"].startswith(b"store:"):
            found[int(headers["source-offset"])].add(letter.value)
    if scene.plan.retention:
        return
    values = {record.offset: {record.value} for record in scene.history[partition]}
    if dict(found) != {offset: values[offset] for offset in calm.rejected}:
        yield f"LETTERS {partition}: {sorted(found)} for {calm.rejected}"


def _stored_otherwise(scene: Scene, wanted: dict[str, Document]) -> Iterator[str]:
    wanted = {name: document for name, document in wanted.items() if not scene.refuses(document)}
    stored = scene.store._documents
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            yield f"STORED {name}: {stored.get(name)} for {wanted.get(name)}"


def _refused(scene: Scene) -> Iterator[str]:
    """Only what the store does not take is dead-lettered for it."""
    held = {document.trace_id for document in scene.written if not scene.refuses(document)}
    for letter in scene.outlet._topics.get(DEAD_LETTERS, []):
        if dict(letter.headers)["reason"].startswith(b"store:") and letter.key and letter.key.decode() in held:
            yield f"REFUSED {letter}"


def _repeats(scene: Scene) -> Iterator[str]:
    """Whoever writes or tells of a fragment again says the very same."""
    if scene.plan.retention:
        return
    for document in scene.written:
        if scene.store._documents[document.id] != document:
            yield f"BYTES {document} after {scene.store._documents[document.id]}"
    for topic in (TRACES_COMPLETE, SAMPLING_DECISIONS):
        told: dict[bytes, Record] = {}
        for message in scene.outlet._topics.get(topic, []):
            first = told.setdefault(dict(message.headers)[FRAGMENT_HEADER], message)
            if (first.key, first.value) != (message.key, message.value):
                yield f"BYTES {topic} {message} after {first}"


def _told(scene: Scene) -> Iterator[str]:
    """Of everything stored, both topics tell."""
    if scene.plan.retention:
        return  # what was stored and not told of cannot be rebuilt
    for topic in (TRACES_COMPLETE, SAMPLING_DECISIONS):
        told = {dict(message.headers)[FRAGMENT_HEADER].decode() for message in scene.outlet._topics.get(topic, [])}
        if told != set(scene.store._documents):
            yield f"TOLD {topic}: {told ^ set(scene.store._documents)}"


def _lost(scene: Scene) -> Iterator[str]:
    """Every span that the intake acknowledged is in the log."""
    held = b"".join(record.value for history in scene.history for record in history)
    for span in scene.acknowledged:
        if span.trace_id not in held or span_id(span.span) not in held:
            yield f"LOST {span}"


def note_transitions(scene: Scene) -> None:
    """Count the transitions of design section 5 that the run went through."""
    fired = scene.weather.fired
    for partition in range(scene.plan.partitions):
        entries = ledger_of(scene, partition)
        ended: set[bytes] = set()
        for decision in decisions_in(entries):
            fired[f"decided {decision.trigger.name.lower()}"] += 1
            fired["decided keep" if decision.verdict is Verdict.KEEP else "decided drop"] += 1
            if decision.verdict is Verdict.LATE_ERROR:
                fired["late errors kept"] += 1
            elif decision.flags & FLAG_LATE:
                fired["late spans kept"] += 1
            elif decision.trace_id in ended:
                fired["forgotten and begun again"] += 1
            ended.add(decision.trace_id)
        for entry in entries:
            if isinstance(entry, Skip) and entry.reason == DEADLY_REASON:
                guilty = scene.history[partition][entry.offset].key == DEADLY
                fired["deadly record skipped" if guilty else "innocent record skipped"] += 1
        fired["policies switched"] += len({e.version for e in entries if isinstance(e, Config)}) - bool(entries)
        fired["rate bent"] += sum(isinstance(entry, Rate) for entry in entries)
        fired["ticks"] += sum(isinstance(entry, Tick) for entry in entries)
        tally = decode_metadata(scene.log._committed.get(partition, Committed(0, b"")), partition=partition)[0].tally
        for name in ("stored", "duplicate", "not_sampled", "late", "pressure", "moved", "dead_lettered", "conflicting"):
            fired[f"spans {name}"] += getattr(tally, name)
    fired["spans replayed"] += scene.replayed


__all__ = ["LIMITS", "differences", "note_transitions", "replace"]
