"""The documents say what is so: links lead somewhere, names exist, tables are those of the code, examples parse."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from compute import conf
from tests.unit import doc_tables

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *DOCS.rglob("*.md")])
RECORDS = sorted((DOCS / "adr").glob("*.md"))
RENEW = "run `.venv/bin/python -m tests.unit.doc_tables`"
OPTIONS = {option.dest for option in conf.OPTS}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What links may name after `#`, as GitHub makes it from headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def source_words() -> set[str]:
    """Every word of the code, its scripts and its packaging."""
    tops = (
        "compute",
        "virt",
        "db",
        "bin",
        "tests/conformance",
        "tests/functional",
        "tests/integration",
        "tests/unit/doc_tables.py",
        "setup.cfg",
        "pyproject.toml",
    )
    files = [path for top in tops for path in [REPOSITORY / top, *(REPOSITORY / top).rglob("*")] if path.is_file()]
    return {
        word
        for file in files
        if file.suffix != ".pyc"
        for word in re.findall(r"\w+", f"{file.stem} {file.read_text()}")
    }


@each_page
def test_a_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_a_name_in_the_docs_is_in_the_code() -> None:
    words = source_words()
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            names = re.findall(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b", code)
            assert not [name for name in names if name not in words], f"{page.name}: `{code}`"


def test_a_file_in_the_docs_exists() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:compute|virt|db|bin|docs|etc|tests)/[\w./*]+)`", prose(page)):
            name = path.removesuffix("/")
            assert list(REPOSITORY.glob(name)), f"{page.name}: `{path}`"


@each_page
def test_an_option_in_an_example_configuration_exists(page: Path) -> None:
    for block in blocks(page, "ini"):
        names = re.findall(r"^(\w+) *=", block, re.MULTILINE)
        assert names
        assert set(names) <= OPTIONS


@each_page
def test_an_option_that_prose_sets_exists(page: Path) -> None:
    set_here = re.findall(r"`(\w+) = [^`]*`", prose(page))
    assert set(set_here) - {"task_state"} <= OPTIONS


@each_page
def test_an_example_in_python_parses(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", doc_tables.DOCUMENTS, ids=lambda page: page.name)
def test_generated_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    assert text == doc_tables.filled(text), RENEW


def test_every_verb_error_command_and_driver_has_its_table() -> None:
    marked = {name: page.name for page in doc_tables.DOCUMENTS for name in doc_tables.tables() if _marks(page, name)}
    in_rpc = dict.fromkeys(("compute", "scheduler", "errors"), "rpc.md")
    assert marked == {**in_rpc, "cli": "cli.md", "drivers": "drivers.md", "metrics": "metrics.md"}


def _marks(page: Path, name: str) -> bool:
    return f"<!-- generated: {name} -->" in page.read_text()


@pytest.mark.parametrize(
    ("phrase", "witness"),
    [("Packet filters", "virt/firewall/iptables.py"), ("xenapi driver", "virt/xenapi/driver.py")],
)
def test_what_is_not_there_yet_is_not_there(phrase: str, witness: str) -> None:
    missing = (DOCS / "operator-guide.md").read_text().partition("\n## Not there yet\n")[2]
    assert (phrase in missing) != (REPOSITORY / witness).exists()


def test_a_flag_that_was_dropped_is_no_option() -> None:
    (page,) = (record for record in RECORDS if record.name.startswith("0008"))
    gone = " ".join(re.findall(r"^\| (.*?) \|", page.read_text(), re.MULTILINE))
    named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", gone)) - {"network_host"}
    assert len(named) > 20
    assert not named & OPTIONS


def test_decision_records_are_numbered_and_fit_on_a_page() -> None:
    for number, record in enumerate(RECORDS, 1):
        text = record.read_text()
        assert record.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number}. ")
        assert all(f"\n## {part}\n" in text for part in ("Why", "Decision", "What follows"))
        assert len(text.splitlines()) <= 50
