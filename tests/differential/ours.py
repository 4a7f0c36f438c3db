"""The verdicts of one of spanloom's kernels: an assembler of one partition, fed record by record."""

from collections import Counter

from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import Limits
from spanloom.core.ledger import decode_decisions
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Verdict
from tests.differential.corpus import Corpus
from tests.differential.verdicts import DECISION_WAIT_S, PolicyFile, Verdicts

S = 1_000_000_000
BATCH = 256  # records
LIMITS = Limits(quiet_ns=60 * S, idle_ns=60 * S, age_max_ns=DECISION_WAIT_S * S, remember_ns=60 * S)


def our_verdicts(assembler_class: type[Assembler], corpus: Corpus, file: PolicyFile) -> Verdicts:
    """Feed the corpus, let every trace grow old, look into what the ledger would be given."""
    assembler = assembler_class(LIMITS, partition=0, partition_count=1)
    assembler.configure(parse_policies(file.policies, version=1))
    kept: dict[bytes, int] = {}
    votes: Counter[str] = Counter()
    decided = 0
    end_ns = corpus.records[-1].timestamp_ms * 1_000_000 + 2 * DECISION_WAIT_S * S
    batches = [corpus.records[at : at + BATCH] for at in range(0, len(corpus.records), BATCH)]
    for batch in [*batches, ()]:
        harvest = assembler.feed(batch) if batch else assembler.advance(end_ns)
        for decision in (decision for body in harvest.decisions for decision in decode_decisions(body)):
            decided += 1
            votes.update(name for bit, name in enumerate(file.policy_names) if decision.votes >> bit & 1)
            if decision.verdict is Verdict.KEEP:
                assert decision.trace_id not in kept, f"{decision.trace_id.hex()} was decided twice"
                kept[decision.trace_id] = decision.span_count
            assembler.confirm(1)
    return Verdicts(kept, votes, undecided=len(corpus.span_counts) - decided)
