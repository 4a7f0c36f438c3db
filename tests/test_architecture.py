"""The house rules that a program can hold: imports point down, modules stay small, names say something.

Each rule is read from the source by `ast`, nothing is imported. A message says which file and line breaks which rule
of ARCHITECTURE.md, "Layers and rules".
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "spanloom"

# A package may import itself and what has a higher number. Equal numbers are siblings that may not know each other.
LAYERS = {
    "__main__": 0,
    "cli": 1,
    "app": 2,
    "actors": 3,
    "adapters": 3,
    "collector": 3,
    "query": 3,
    "load": 3,
    "config": 4,
    "metrics": 4,
    "core": 5,
    "interfaces": 5,
    "model": 6,
    "errors": 6,
    "_native": 7,
}
# Beyond the order of layers: pairs that must not meet although one lies below the other.
FORBIDDEN = {
    **{
        (layer, "config"): "nothing below app sees Config"
        for layer in ("actors", "adapters", "collector", "query", "load")
    },
    ("core", "metrics"): "the core does not know how it is watched",
}
PURE_LAYERS = ("core", "model", "errors", "interfaces")
IMPURE = {
    *(
        "asyncio",
        "trio",
        "socket",
        "ssl",
        "select",
        "selectors",
        "threading",
        "multiprocessing",
        "subprocess",
        "signal",
    ),
    *("time", "random", "secrets", "logging", "structlog", "os", "io", "pathlib", "shutil", "tempfile", "sqlite3"),
    *("confluent_kafka", "redis", "elasticsearch", "h11", "httptools", "grpc", "yaml"),
}
IMPURE_ALLOWED = {("spanloom.core.kernel", "os")}  # reads SPANLOOM_PURE, once
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc"}
BANNED_CLASSES = re.compile(r"(Manager|Helper|Base|Util|Utils)$")
EXCEPT_EXCEPTION_ALLOWED = {
    "spanloom.actors.supervisor",
    "spanloom.cli.main",
    "spanloom.adapters.grpc",  # as adapters.http
    "spanloom.adapters.http",  # supervises its connections: a handler's bug costs one request, answered with 500
}
FUNCTION_LINES_MAX, MODULE_LINES_MAX, POSITIONAL_MAX = 70, 500, 4

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Module(NamedTuple):
    """One module of spanloom: its dotted name, where it is, and what it says."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The first word after spanloom; empty for the package itself."""
        return [*self.name.split("."), ""][1]

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def modules() -> tuple[Module, ...]:
    """Every module of spanloom, stubs of the native ones left out."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(), str(path))))
    return tuple(found)


@cache
def our_tests() -> tuple[Module, ...]:
    """Every file under tests."""
    paths = sorted((ROOT / "tests").rglob("*.py"))
    return tuple(Module(path.stem, path, ast.parse(path.read_text(), str(path))) for path in paths)


def imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """What *module* imports, anywhere in it, as absolute dotted names; for type checkers alone does not count."""
    for_types = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, f"{node.module or ''}.{alias.name}"


def inner_imports(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """The modules of spanloom that *module* imports."""
    names = {known.name for known in modules()}
    for node, target in imports(module):
        if target.split(".")[0] == "spanloom":
            yield node, target if target in names else target.rpartition(".")[0]


def tracked_files() -> Iterator[Path]:
    """What is, or would be, in the repository; everything that is no build product where there is no git."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:
        skipped = re.compile(
            r"(^|/)(\.(?!ci/|dockerignore|gitignore)|build/|dist/|__pycache__/|[^/]*\.egg-info/|spanloom-data/)"
        )
        paths = [
            path for path in sorted(ROOT.rglob("*")) if not skipped.search(path.relative_to(ROOT).as_posix() + "/")
        ]
    return (path for path in paths if path.is_file() and path.suffix not in {".so", ".c", ".png"})


def refuse(broken: list[str], rule: str) -> None:
    """Fail with the rule and every place that breaks it."""
    assert not broken, rule + "\n  " + "\n  ".join(broken)


def test_the_rules_see_the_source() -> None:
    """The modules, tests and files that the rules are held against are really found."""
    names = {module.name for module in modules()}
    assert {"spanloom", "spanloom.core.partitioning", "spanloom.actors.supervisor"} <= names
    assert any(module.path == Path(__file__) for module in our_tests())
    assert {ROOT / "pyproject.toml", ROOT / "ext" / "hashes.h", Path(__file__)} <= set(tracked_files())


def test_every_module_has_a_layer() -> None:
    """A new top-level package is first given its place among the layers."""
    unknown = [module.at(module.tree) for module in modules() if module.layer and module.layer not in LAYERS]
    refuse(unknown, f"not in LAYERS ({', '.join(LAYERS)}):")


def test_imports_point_down() -> None:
    """cli, app -> actors, adapters, collector, query, load -> config, metrics -> core, interfaces -> model, errors."""
    broken = []
    for module in modules():
        for node, target in inner_imports(module):
            above, below = module.layer, [*target.split("."), ""][1]
            if not above or not below or above == below:
                continue
            upward = LAYERS.get(below, 0) <= LAYERS.get(above, 0) and (above, below) != ("core", "interfaces")
            model_knows_errors = {above, below} == {"model", "errors"}
            reason = FORBIDDEN.get((above, below), "it does not lie below" if upward and not model_knows_errors else "")
            if reason:
                broken.append(f"{module.at(node)} {above} imports {target}: {reason}")
    refuse(broken, "imports point down only:")


def test_there_are_no_import_cycles() -> None:
    """No module reaches itself through what it imports."""
    graph = {module.name: {target for _, target in inner_imports(module)} - {module.name} for module in modules()}
    finished: set[str] = set()
    broken = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            broken.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in finished:
            for target in sorted(graph.get(name, ())):
                visit(target, [*path, name])
            finished.add(name)

    for name in graph:
        visit(name, [])
    refuse(broken, "import cycles:")


def test_the_core_does_no_io() -> None:
    """core, model, errors and interfaces import nothing that waits, reads a clock, draws a number or logs."""
    broken = [
        f"{module.at(node)} imports {target}"
        for module in modules()
        if module.layer in PURE_LAYERS
        for node, target in imports(module)
        if target.split(".")[0] in IMPURE and (module.name, target.split(".")[0]) not in IMPURE_ALLOWED
    ]
    refuse(broken, "the core is sans-IO (time, randomness and data come in as arguments):")


def test_only_the_kernel_picks_the_native_code() -> None:
    """spanloom._native is imported by core.kernel alone, so that one `if` chooses for everybody."""
    broken = [
        module.at(node)
        for module in modules()
        for node, target in imports(module)
        if target.startswith("spanloom._native") and module.name != "spanloom.core.kernel"
    ]
    refuse(broken, "import spanloom.core.kernel instead of spanloom._native:")


def test_third_party_imports_are_declared() -> None:
    """What spanloom imports is in pyproject.toml: nothing works only because something else brought it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    declared = {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    known_by = packages_distributions()
    broken = []
    for module in modules():
        for node, target in imports(module):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names or top == "spanloom":
                continue
            names = {name.lower().replace("_", "-") for name in known_by.get(top, [top])}
            if not names & declared:
                broken.append(f"{module.at(node)} imports {top}")
    refuse(broken, "not among the dependencies in pyproject.toml:")


def test_functions_and_modules_stay_small() -> None:
    """Functions have at most 70 lines and 4 positional parameters, modules at most 500 lines."""
    broken = []
    for module in modules():
        lines = len(module.path.read_text().splitlines())
        if lines > MODULE_LINES_MAX:
            broken.append(f"{module.at(module.tree)} {lines} lines, at most {MODULE_LINES_MAX}")
        for node in ast.walk(module.tree):
            if not isinstance(node, FUNCTIONS):
                continue
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            own = [arg for arg in (*node.args.posonlyargs, *node.args.args) if arg.arg not in ("self", "cls")]
            if length > FUNCTION_LINES_MAX:
                broken.append(f"{module.at(node)} {node.name}: {length} lines, at most {FUNCTION_LINES_MAX}")
            if len(own) > POSITIONAL_MAX:
                broken.append(
                    f"{module.at(node)} {node.name}: {len(own)} positional parameters, at most {POSITIONAL_MAX}"
                )
    refuse(broken, "too large to be read at once:")


def test_names_say_something() -> None:
    """No module is called utils or the like, and no class Manager, Helper or Base."""
    broken = [module.at(module.tree) for module in modules() if BANNED_NAMES & set(module.name.split("."))]
    broken += [
        f"{module.at(node)} {node.name}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and BANNED_CLASSES.search(node.name)
    ]
    refuse(broken, "names that say nothing:")


def test_only_the_supervisor_and_the_command_line_catch_everything() -> None:
    """`except Exception` stands in the supervisor and cli.main only; bare except and BaseException nowhere."""
    broken = []
    for module in modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "everything"
            words = set(re.findall(r"\w+", caught))
            anything = words & {"everything", "BaseException"}
            if anything or ("Exception" in words and module.name not in EXCEPT_EXCEPTION_ALLOWED):
                broken.append(f"{module.at(node)} catches {caught}")
    refuse(broken, "an actor dies of what it cannot finish handling:")


def test_there_is_no_any() -> None:
    """Types say what a thing is: `Any` is not imported, and imports are absolute."""
    broken = [
        f"{module.at(node)} imports {target}"
        for module in modules()
        for node, target in imports(module)
        if target == "typing.Any"
    ]
    broken += [
        f"{module.at(node)} imports relatively"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    refuse(broken, "typed, absolute imports only:")


def test_every_module_says_what_it_owns() -> None:
    """Every module that holds code, in the source and among the tests, begins with a docstring."""
    broken = [
        module.at(module.tree)
        for module in (*modules(), *our_tests())
        if module.tree.body and ast.get_docstring(module.tree) is None
    ]
    refuse(broken, "no module docstring:")


def test_every_test_states_its_claim() -> None:
    """Every test function has a docstring: the behaviour as a sentence to a user."""
    broken = [
        f"{module.at(node)} {node.name}"
        for module in our_tests()
        for node in ast.walk(module.tree)
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and ast.get_docstring(node) is None
    ]
    refuse(broken, "tests without a docstring:")


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    """No file of the repository names a folder of a developer's machine or a package registry's host."""
    # In pieces, so that this file passes its own rule.
    folders = [rf"/{name}/" for name in ("work" + "/main", "work" + "/shared", "home" + r"/\w+", "Users" + r"/\w+")]
    hosts = [
        re.escape(host + dot) for host, dot in (("pypi", ".org"), ("pythonhosted", ".org"), ("deb.debian", ".org"))
    ]
    known = re.compile("|".join([*folders, *hosts, "pkg" + r"\.dev", "registry" + r"\.npmjs", "repo1" + r"\.maven"]))
    broken = [
        f"{path.relative_to(ROOT)}:{number} {match[0]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := known.search(line))
    ]
    refuse(broken, "paths and hosts of one machine:")


@pytest.mark.parametrize("name", ["dev", ".ci/run", "tests/bare_root.sh"])
def test_scripts_can_be_run(name: str) -> None:
    """The scripts that the documents name are executable and stop at the first error."""
    script = ROOT / name
    assert script.stat().st_mode & 0o111, f"{name} is not executable"
    assert "\nset -euo pipefail\n" in script.read_text()
