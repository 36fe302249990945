"""What holds for every file: sizes, names, docstrings, import contracts, packaging, and nothing of any one machine."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("compute", "virt", "db")
SOURCES = sorted(path for top in (*PACKAGES, "tests", "bench") for path in (REPOSITORY / top).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_TEST = 500, 50, 15
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS: frozenset[str] = frozenset()
LONG_TESTS = {  # one boot of a real guest or server serves several questions; and a few that wait to be split
    "test_a_guest_whose_qemu_hangs_delays_no_other_and_can_be_deleted",
    "test_a_guest_with_a_kernel_boots_and_obeys",
    "test_a_guest_with_kernel_ramdisk_root_and_config_drive_does_what_it_says",
    "test_a_notification_waits_for_its_listener",
    "test_a_restart_of_libvirtd_touches_no_guest_and_the_driver_recovers",
    "test_a_server_does_not_outlive_a_test_run_that_is_killed",
    "test_everything_asked_for_reaches_the_hypervisor",
    "test_racing_senders_and_takers_lose_and_double_nothing",
    "test_two_spawns_of_one_name_make_one_guest",
}
VAGUE_NAMES = {"utils.py", "common.py", "helpers.py"}
_FOLDERS = "|".join(("wor" + "k/", r"home/\w+/", r"root/\.(?!ssh)"))  # /root/.ssh/authorized_keys is a guest's
OF_ONE_MACHINE = re.compile(
    rf"(?<![\w.~$}}])/(?:{_FOLDERS})|https?://[^\s\"')]*(?:pypi|mirror|artifactory|nexus|proxy\.golang)", re.IGNORECASE
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    """A path as messages and tables show it."""
    return path.relative_to(REPOSITORY).as_posix()


def kept_files() -> list[Path]:
    """The files that belong to the repository: what git would keep, or everything where there is no git."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    with contextlib.suppress(FileNotFoundError):
        listing = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if listing.returncode == 0:
            return [REPOSITORY / name for name in listing.stdout.split("\0") if (REPOSITORY / name).is_file()]
    return [path for path in REPOSITORY.rglob("*") if path.is_file() and not _is_hidden(path)]


def _is_hidden(path: Path) -> bool:
    return any(
        (part.startswith(".") and part != ".ci") or part.endswith((".egg-info", "__pycache__"))
        for part in path.relative_to(REPOSITORY).parts
    )


def long_functions(path: Path) -> Iterator[str]:
    """The functions of a file that have too many lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function) and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION:
            yield f"{relative(path)}: {node.name}"


def test_a_file_has_no_more_than_500_lines() -> None:
    long = {relative(path) for path in SOURCES if len(path.read_text().splitlines()) > MOST_LINES}
    assert long == LONG_FILES, "split what is new; strike from LONG_FILES what has shrunk"


def test_a_function_has_no_more_than_50_lines() -> None:
    long = {found for path in SOURCES for found in long_functions(path)}
    assert long == LONG_FUNCTIONS, "split what is new; strike from LONG_FUNCTIONS what has shrunk"


def test_a_module_is_named_for_what_is_in_it() -> None:
    assert not [relative(path) for path in SOURCES if path.name in VAGUE_NAMES]


def test_a_test_has_no_more_than_15_lines() -> None:
    long = {
        node.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, Function) and node.name.startswith("test_") and _lines_of_body(node) > MOST_LINES_OF_A_TEST
    }
    assert long <= LONG_TESTS


def _lines_of_body(node: Function) -> int:
    return (node.end_lineno or 0) - node.body[0].lineno + 1


def test_a_file_names_no_one_machine() -> None:
    found = []
    for path in kept_files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found += [f"{relative(path)}:{number}: {match[0]}" for match in OF_ONE_MACHINE.finditer(line)]
    assert not found


class Tree:
    """The classes of our packages, by name, as far as docstrings are inherited."""

    def __init__(self) -> None:
        self.modules = {
            path: ast.parse(path.read_text()) for top in PACKAGES for path in (REPOSITORY / top).rglob("*.py")
        }
        self.classes = {
            node.name: node
            for module in self.modules.values()
            for node in ast.walk(module)
            if isinstance(node, ast.ClassDef)
        }

    def undocumented(self) -> Iterator[str]:
        """Public modules, classes, functions and methods without a docstring of their own or of a base."""
        for path, module in self.modules.items():
            if ast.get_docstring(module) is None:
                yield relative(path)
            for node in _public(module):
                yield from (f"{relative(path)}: {name}" for name in self._within(node))

    def _within(self, node: ast.ClassDef | Function) -> Iterator[str]:
        if ast.get_docstring(node) is None:
            yield node.name
        if isinstance(node, ast.ClassDef):
            for method in _public(node):
                if ast.get_docstring(method) is None and not self._promised(node, method.name):
                    yield f"{node.name}.{method.name}"

    def _promised(self, owner: ast.ClassDef, method: str) -> bool:
        """True if a base says what the method does, or comes from a library, which says it."""
        for base in owner.bases:
            name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            known = self.classes.get(name)
            if known is None:
                return True
            documented = {found.name for found in _public(known) if ast.get_docstring(found)}
            if method in documented or self._promised(known, method):
                return True
        return False


def _public(node: ast.Module | ast.ClassDef) -> list[ast.ClassDef | Function]:
    """The public definitions in a module or class."""
    return [one for one in node.body if isinstance(one, ast.ClassDef | Function) and not one.name.startswith("_")]


def test_what_is_public_has_a_docstring() -> None:
    assert not list(Tree().undocumented())


def test_imports_keep_their_contracts() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("group", "name"), [("oslo.messaging.drivers", "sqlite"), ("oslo.config.opts", "micronova")])
def test_an_entry_point_loads(group: str, name: str) -> None:
    (found,) = entry_points(group=group, name=name)
    assert callable(found.load())


def test_a_program_in_bin_has_its_module() -> None:
    text = "\n".join(path.read_text() for path in (REPOSITORY / "bin").glob("nova-*"))
    modules = re.findall(r'/_run" ([\w.]+)', text)
    assert {"compute.service", "compute.cli"} <= set(modules)
    assert not [module for module in modules if importlib.util.find_spec(module) is None]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").is_file()
    assert f"{package} = py.typed" in (REPOSITORY / "setup.cfg").read_text()
