"""The supervisor: one_for_one restarts, bounded, escalating, on a mock clock."""

from collections.abc import Callable, Sequence

import pytest
import structlog
import trio
from trio.testing import MockClock

from spanloom.actors.supervisor import RESTART_DELAY_CAP_S, ChildSpec, Restart, supervise
from spanloom.core.restart import RestartBudget
from spanloom.errors import ConfigError, RestartIntensityExceeded

PLENTY = 100


class Crash(Exception):
    """What the children of these tests die of."""


class Child:
    """Plays a list of lives, one a start, and notes when each began; after the last it lives for ever."""

    def __init__(self, name: str = "child", lives: Sequence[str] = (), journal: list[str] | None = None) -> None:
        self.name = name
        self.lives = list(lives)
        self.journal = journal if journal is not None else []
        self.starts_s: list[float] = []

    def spec(self, restart: Restart = Restart.PERMANENT) -> ChildSpec:
        return ChildSpec(self.name, self.live, restart)

    async def live(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        life = self.lives.pop(0) if self.lives else "for ever"
        self.starts_s.append(trio.current_time())
        self.journal.append(f"{self.name} starts")
        if life == "no start":
            raise Crash(f"{self.name} cannot start")
        if life == "silent end":
            return
        task_status.started()
        try:
            if life == "for ever":
                await trio.sleep_forever()
            await trio.sleep(float(life.split()[1]) if " " in life else 1.0)
            if life.startswith("crash"):
                raise Crash(f"{self.name} crashed")
        finally:
            self.journal.append(f"{self.name} stops")


async def run_for(
    seconds: float, children: Sequence[ChildSpec], budget: RestartBudget, draw: Callable[[], float] = lambda: 1.0
) -> None:
    """Supervise, and stop from outside after a while."""
    with trio.move_on_after(seconds):
        await supervise(children, budget, draw=draw)


def plenty() -> RestartBudget:
    return RestartBudget(PLENTY, 60.0)


def leaves(group: BaseException) -> list[BaseException]:
    """The errors themselves, out of however many groups."""
    if isinstance(group, BaseExceptionGroup):
        return [leaf for inner in group.exceptions for leaf in leaves(inner)]
    return [group]


async def test_children_start_in_order_each_after_the_one_before_is_ready(autojump_clock: MockClock) -> None:
    """A child starts when the one before it has reported itself started, and the supervisor reports after the last."""
    journal: list[str] = []

    def slow(name: str) -> ChildSpec:
        async def live(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            journal.append(f"{name} starts")
            await trio.sleep(1)
            journal.append(f"{name} ready")
            task_status.started()
            await trio.sleep_forever()

        return ChildSpec(name, live)

    async with trio.open_nursery() as nursery:
        await nursery.start(supervise, [slow("a"), slow("b")], plenty())
        journal.append("supervisor ready")
        nursery.cancel_scope.cancel()
    assert journal == ["a starts", "a ready", "b starts", "b ready", "supervisor ready"]


async def test_a_crashed_child_is_restarted_alone(autojump_clock: MockClock) -> None:
    """The one that crashed starts again; its siblings are neither stopped nor restarted."""
    journal: list[str] = []
    children = [Child("a", journal=journal), Child("b", ["crash"], journal), Child("c", journal=journal)]
    budget = plenty()
    await run_for(10, [child.spec() for child in children], budget)
    assert journal[:5] == ["a starts", "b starts", "c starts", "b stops", "b starts"]
    assert sorted(journal[5:]) == ["a stops", "b stops", "c stops"]
    assert budget.statistics().restarts == {"b": 1}


@pytest.mark.parametrize(
    ("restart", "life", "starts"),
    [
        (Restart.PERMANENT, "crash", 2),
        (Restart.PERMANENT, "end", 2),
        (Restart.TRANSIENT, "crash", 2),
        (Restart.TRANSIENT, "end", 1),
        (Restart.TEMPORARY, "crash", 1),
        (Restart.TEMPORARY, "end", 1),
    ],
)
async def test_the_restart_type_says_after_which_end_a_child_starts_again(
    autojump_clock: MockClock, restart: Restart, life: str, starts: int
) -> None:
    """PERMANENT restarts always, TRANSIENT after a crash only, TEMPORARY never: OTP's table."""
    child = Child(lives=[life])
    await run_for(30, [child.spec(restart)], plenty())
    assert len(child.starts_s) == starts


async def test_a_supervisor_with_no_child_left_ends(autojump_clock: MockClock) -> None:
    """When every child has ended for good, supervise returns by itself."""
    children = [Child("a", ["end"]).spec(Restart.TRANSIENT), Child("b", ["crash"]).spec(Restart.TEMPORARY)]
    with trio.fail_after(10):
        await supervise(children, plenty())


async def test_a_spent_budget_stops_the_supervisor_and_all_its_children(autojump_clock: MockClock) -> None:
    """One crash more than the intensity escalates as RestartIntensityExceeded, with its cause; siblings stop."""
    journal: list[str] = []
    sibling, child = Child("sibling", journal=journal), Child("child", ["crash"] * 3, journal)
    with pytest.raises(ExceptionGroup) as raised:
        await run_for(60, [sibling.spec(), child.spec()], RestartBudget(2, 60.0))
    (error,) = leaves(raised.value)
    assert isinstance(error, RestartIntensityExceeded)
    assert str(error) == "child: more than 2 restarts in 60 s"
    assert error.__cause__ is not None
    assert [str(leaf) for leaf in leaves(error.__cause__)] == ["child crashed"]
    assert len(child.starts_s) == 3
    assert journal[-1] == "sibling stops"


async def test_the_budget_is_shared_by_the_children(autojump_clock: MockClock) -> None:
    """Crashes of different children spend the same budget."""
    children = [Child(name, ["crash"]).spec() for name in ("a", "b", "c")]
    with pytest.raises(ExceptionGroup) as raised:
        await run_for(60, children, RestartBudget(2, 60.0))
    assert [type(leaf) for leaf in leaves(raised.value)] == [RestartIntensityExceeded]


async def test_crashes_further_apart_than_the_period_never_escalate(autojump_clock: MockClock) -> None:
    """A child that crashes now and then is restarted for as long as it takes."""
    child = Child(lives=["crash 61"] * 20)
    await run_for(5000, [child.spec()], RestartBudget(1, 60.0))
    assert len(child.starts_s) == 21


async def test_a_failed_first_start_is_raised_not_retried(autojump_clock: MockClock) -> None:
    """What a child's first start raises comes out of supervise, no restart is spent, started siblings are stopped."""

    async def misconfigured(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        raise ConfigError("http.port: in use")

    sibling, budget = Child("sibling"), plenty()
    with pytest.raises(ExceptionGroup) as raised:
        await supervise([sibling.spec(), ChildSpec("web", misconfigured)], budget)
    assert [str(leaf) for leaf in leaves(raised.value)] == ["http.port: in use"]
    assert sibling.journal == ["sibling starts", "sibling stops"]
    assert budget.statistics().restarts == {}


async def test_a_first_start_that_ends_without_reporting_is_an_error(autojump_clock: MockClock) -> None:
    """A child that returns before it reported itself started is a bug that supervise raises."""
    with pytest.raises(ExceptionGroup) as raised:
        await supervise([Child(lives=["silent end"]).spec()], plenty())
    assert [type(leaf) for leaf in leaves(raised.value)] == [RuntimeError]


@pytest.mark.parametrize("failure", ["no start", "silent end"])
async def test_a_restart_that_fails_to_start_is_a_crash_like_another(autojump_clock: MockClock, failure: str) -> None:
    """Once a child has run, a start that fails is retried within the budget."""
    child, budget = Child(lives=["crash", failure, failure]), plenty()
    await run_for(60, [child.spec()], budget)
    assert len(child.starts_s) == 4
    assert budget.statistics().restarts == {"child": 3}


async def test_a_child_that_dies_at_once_does_not_spin(autojump_clock: MockClock) -> None:
    """The restarts of a child that never comes up are, after the first, spaced by a doubling, capped delay."""
    child = Child(lives=["crash 0", *["no start"] * 8])
    await run_for(100, [child.spec()], plenty())
    gaps = [round(after - before, 6) for before, after in zip(child.starts_s, child.starts_s[1:], strict=False)]
    assert gaps == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_a_child_that_never_comes_up_spends_the_default_budget(autojump_clock: MockClock) -> None:
    """Even with the longest delays drawn, 10 restarts in 60 s are spent: a dead child escalates instead of idling."""
    child = Child(lives=["crash 0", *["no start"] * PLENTY])
    with pytest.raises(ExceptionGroup) as raised:
        await run_for(60, [child.spec()], RestartBudget(10, 60.0))
    assert [type(leaf) for leaf in leaves(raised.value)] == [RestartIntensityExceeded]


async def test_a_child_that_ran_for_a_while_restarts_without_delay_again(autojump_clock: MockClock) -> None:
    """After a life longer than the longest delay a crash is a first one again, and the backoff begins anew."""
    life_s = RESTART_DELAY_CAP_S + 1
    child = Child(lives=["crash 0", "crash 0", "crash 0", f"crash {life_s}", "crash 0"])
    await run_for(100, [child.spec()], plenty())
    gaps = [after - before for before, after in zip(child.starts_s, child.starts_s[1:], strict=False)]
    assert gaps == pytest.approx([0, 0.1, 0.2, life_s, 0.1])


async def test_a_stray_crash_is_answered_at_once(autojump_clock: MockClock) -> None:
    """The first crash of a child costs no delay, however short its life was: what it works on waits."""
    child = Child(lives=["crash 1"])
    await run_for(10, [child.spec()], plenty())
    assert child.starts_s[1] - child.starts_s[0] == pytest.approx(1)


async def test_a_restart_delay_ends_at_once_when_cancelled(autojump_clock: MockClock) -> None:
    """Stopping the supervisor while a child waits for its restart neither waits nor restarts."""
    child = Child(lives=["crash 0", "crash 1.0"])
    await run_for(1.05, [child.spec()], plenty())
    assert trio.current_time() - child.starts_s[0] == pytest.approx(1.05)
    assert len(child.starts_s) == 2


async def test_stopping_is_no_crash(autojump_clock: MockClock) -> None:
    """A cancelled supervisor stops its children without a restart and without an error in the log."""
    child, budget = Child(), plenty()
    with structlog.testing.capture_logs() as events:
        await run_for(5, [child.spec()], budget)
    assert child.journal == ["child starts", "child stops"]
    assert (budget.statistics().restarts, events) == ({}, [])


async def test_failing_while_being_stopped_spends_nothing(autojump_clock: MockClock) -> None:
    """A child whose clean-up fails on the way down does not turn a stop into an escalation, budget or none."""

    async def messy(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise Crash("clean-up failed") from None

    await run_for(5, [ChildSpec("messy", messy)], RestartBudget(0, 60.0))


async def test_what_is_no_exception_passes_through(autojump_clock: MockClock) -> None:
    """An error that is no Exception, as KeyboardInterrupt, is not a crash: it goes out without a restart."""

    class Stop(BaseException):
        pass

    async def stopping(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep(1)
        raise Stop

    budget = plenty()
    with pytest.raises(BaseExceptionGroup) as raised:
        await supervise([ChildSpec("stopping", stopping)], budget)
    assert [type(leaf) for leaf in leaves(raised.value)] == [Stop]
    assert budget.statistics().restarts == {}


async def test_a_nested_supervisor_escalates_to_its_parent(autojump_clock: MockClock) -> None:
    """A supervisor whose budget is spent is restarted whole by its parent, until the parent's is spent too."""
    worker, inner, outer = Child("worker", ["crash"] * PLENTY), RestartBudget(2, 600.0), RestartBudget(1, 600.0)

    async def nested(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await supervise([worker.spec()], inner, task_status=task_status)

    bystander = Child("bystander")
    with pytest.raises(ExceptionGroup) as raised:
        await run_for(600, [bystander.spec(), ChildSpec("nested", nested)], outer)
    (error,) = leaves(raised.value)
    assert str(error) == "nested: more than 1 restarts in 600 s"
    assert len(worker.starts_s) == 6  # two lives of the nested supervisor, each: a start and two restarts
    assert inner.statistics().restarts == {"worker": 4}
    assert outer.statistics().restarts == {"nested": 1}
    assert bystander.journal == ["bystander starts", "bystander stops"]


async def test_a_crash_is_logged_with_its_child_and_its_error(autojump_clock: MockClock) -> None:
    """Every crash is one error event that names the child and carries the exception."""
    with structlog.testing.capture_logs() as events:
        await run_for(10, [Child("partition-3", ["crash"]).spec()], plenty())
    (event,) = events
    assert (event["event"], event["log_level"], event["child"]) == ("child crashed", "error", "partition-3")
    assert [str(leaf) for leaf in leaves(event["exc_info"])] == ["partition-3 crashed"]


async def test_two_children_of_one_name_are_a_bug() -> None:
    """Ids tell siblings apart in logs and statistics, so a repeated one is refused."""
    with pytest.raises(AssertionError, match="different ids"):
        await supervise([Child("a").spec(), Child("a").spec()], plenty())


async def test_a_crash_in_the_middle_of_a_stop_is_logged_and_stops_like_any_other(autojump_clock: MockClock) -> None:
    """A child that fails because it is being stopped neither escapes the supervisor nor is started again."""

    async def fail_when_stopped(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                raise Crash("while being stopped")

    with structlog.testing.capture_logs() as logs:
        await run_for(1, [ChildSpec("child", fail_when_stopped)], budget := plenty())
    assert [entry["event"] for entry in logs] == ["child crashed"]
    assert budget.statistics() == RestartBudget(intensity=PLENTY, period_s=60).statistics()
