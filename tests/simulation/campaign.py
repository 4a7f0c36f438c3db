"""Many seeds on both levels, in a few processes, and what they went through.

The core level (`rules.py`) lets owners take single steps in any order; the actor level (`scene.py`) runs the real
actors and supervisor on trio. A run in which any fault or transition of `REQUIRED` never happened has proved nothing
of it.
"""

import multiprocessing
import os
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog

from spanloom.core.failpoints import Failpoint
from tests.simulation import oracles, rules, scene

# The faults of design section 6 and the transitions of section 5, by the names they are counted under.
REQUIRED = (
    *(f"died at {name}" for name in Failpoint if name not in (Failpoint.STORE_HALF_DONE, Failpoint.INTAKE_APPENDED)),
    "killed", "frozen", "two owners at once", "zombie's write", "actor crashed", "restarts spent", "drained",
    "killed by a record", "deadly record skipped",
    "killed during append 1", "killed during append 2", "killed during append 3", "killed during commit",
    "killed during write", "killed during traces-complete",
    "ledger unanswered", "log unanswered", "store unanswered", "outlet unanswered", "source unanswered",
    "ledger part", "log part", "store part", "outlet part",
    "store away", "outlet away", "ledger away", "log away", "source away", "source slow", "ledger slow",
    "document refused", "commit of one fenced off refused", "records deleted", "spans lost to retention",
    "clock jumped", "clock wrong once", "poison", "foreign key", "moved once", "moved twice",
    "policies applied", "policies switched", "load changed", "rate bent",
    "request delayed", "request repeated", "ticks", "spans replayed",
    "decided complete", "decided idle", "decided age", "decided size", "decided pressure", "decided keep",
    "decided drop", "late spans kept", "late errors kept", "forgotten and begun again",
    "spans stored", "spans duplicate", "spans not_sampled", "spans late", "spans pressure", "spans moved",
    "spans dead_lettered", "spans conflicting",
    "core killed", "core frozen", "core overlapping", "core fenced",
)  # fmt: skip


@dataclass(slots=True)
class Report:
    """What a campaign found."""

    seeds: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)  # by "level seed"
    fired: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> list[str]:
        """What never happened."""
        return [name for name in REQUIRED if not self.fired[name]]

    def lines(self) -> Iterator[str]:
        """The report, for people."""
        yield f"{self.seeds} runs, {len(self.failures)} with differences"
        for name in sorted(self.fired):
            yield f"{self.fired[name]:>10}  {name}"
        yield from (f"never happened: {name}" for name in self.missing)
        for run, found in self.failures.items():
            level, seed = run.split()
            yield f"{run}: {len(found)} differences; again: python -m tests.simulation 1 --from {seed} --level {level}"
            yield from (f"    {text[:2000]}" for text in found[:5])


def actor_run(seed: int) -> tuple[list[str], Counter[str]]:
    """A seed on the actor level."""
    done = scene.play(seed)
    found = oracles.differences(done)
    oracles.note_transitions(done)
    return found, done.weather.fired


def core_run(seed: int) -> tuple[list[str], Counter[str]]:
    """A seed on the core level."""
    world = rules.run(seed)
    return rules.differences(world), Counter({f"core {name}": count for name, count in world.faults.items()})


LEVELS = {"actor": actor_run, "core": core_run}
Outcome = tuple[str, int, list[str], Counter[str]]  # level, seed, differences, what fired


def _run(job: tuple[str, int]) -> Outcome:
    level, seed = job
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        found, fired = LEVELS[level](seed)
    except Exception:
        found, fired = [traceback.format_exc()], Counter()
    finally:
        structlog.reset_defaults()
    return level, seed, found, fired


def campaign(jobs: Iterable[tuple[str, int]], *, processes: int = 0) -> Report:
    """Run every (level, seed); with the processors there are, unless told how many.

    One process is this one, so that LeakSanitizer sees it end: those of a pool are ended by a signal.
    """
    report = Report()
    with ExitStack() as until_done:
        outcomes: Iterable[Outcome] = map(_run, jobs)
        if processes != 1:
            pool = until_done.enter_context(multiprocessing.get_context("spawn").Pool(processes or os.cpu_count()))
            outcomes = pool.imap_unordered(_run, jobs, chunksize=20)
        for level, seed, found, fired in outcomes:
            report.seeds += 1
            report.fired += fired
            if found:
                report.failures[f"{level} {seed}"] = found
    return report
