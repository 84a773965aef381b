"""README, docs and docstrings: names are there, commands have their options, links lead on."""

from __future__ import annotations

import ast
import importlib
import io
import re
import shlex
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("mer", "calibration", "export", "runtime", "benchmarks", "scripts", "examples", "tests")
README = ROOT / "README.md"
README_WORDS = 900
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.md"),
        ROOT / "weights" / "mer_weights" / "MODEL_CARD.md",
        ROOT / "samples" / "README.md",
    ]
)
#: Our files on GitHub: the site can't link to what lies outside docs.
REPOSITORY = re.compile(r"https://github\.com/mer-edge/mer-edge/(?:blob|tree)/main/(\S+)")
#: A dotted name of ours in code font; a call's brackets may follow.
DOTTED = re.compile(
    r"`((?:mer|mer_calibration|mer_export|mer_runtime|mer_bench)(?:\.\w+)+)(?:\(.*?\))?`"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(?:console|sh|bash)?\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").split()) <= README_WORDS


# --- dotted names -------------------------------------------------------------------------


def list_prose(path: Path) -> Iterator[str]:
    """A page's text, or a module's docstrings and comments."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def list_modules() -> list[Path]:
    return sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


@cache
def resolves(dotted: str) -> bool:
    """Whether a name leads to a module, or to an attribute of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and not module.startswith(error.name):
                raise
            continue
        for part in parts[length:]:
            fields = getattr(found, "__annotations__", {})
            if not hasattr(found, part) and part in fields:
                return True  # a field without a default
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_dotted_names_are_there() -> None:
    missing = [
        f"{name(path)}: {dotted}"
        for path in (*PAGES, *list_modules())
        for prose in list_prose(path)
        for dotted in DOTTED.findall(prose)
        if not resolves(dotted)
    ]
    assert not missing, "names in code font that lead nowhere"


@pytest.mark.parametrize(
    ("dotted", "there"),
    [
        ("mer_runtime.Recognizer.predict", True),
        ("mer.data.corpus.Listing", True),
        ("mer_runtime.spec.Spec.labels", True),
        ("mer.preprocessing", False),
        ("mer.train.evaluate_model", False),
        ("mer_runtime.Recognizer.forecast", False),
    ],
)
def test_resolving_tells_right_from_wrong(dotted: str, there: bool) -> None:
    assert resolves(dotted) is there


# --- links --------------------------------------------------------------------------------


def list_anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head).lower() for head in heads)
    return {re.sub(r"[^\w\- ]", "", head).strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in LINK.findall(text):
        ours = REPOSITORY.fullmatch(link)
        if link.startswith(("http://", "https://")) and not ours:
            continue
        target, _, anchor = unquote(ours[1] if ours else link).partition("#")
        file = (ROOT if ours else page.parent) / target if target else page
        if not file.exists() or (anchor and anchor not in list_anchors(file)):
            broken.append(link)
    assert not broken


def test_every_page_has_its_place_on_the_site() -> None:
    listed = set(re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    docs = ROOT / "docs"
    assert listed == {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}


# --- commands -----------------------------------------------------------------------------


@cache
def load_commands() -> dict[str, click.Command]:
    """Our commands by name, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = {}
    for script, place in project["scripts"].items():
        module, _, attribute = place.partition(":")
        commands[script] = getattr(importlib.import_module(module), attribute)
    return commands


def list_command_lines(text: str) -> Iterator[list[str]]:
    """The words of every command line of ours in a page's fenced blocks, one command each."""
    for _, block in FENCE.findall(text):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            lexer = shlex.shlex(line.strip().removeprefix("$"), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            lexer.commenters = "#"
            try:
                words = list(lexer)
            except ValueError:  # output with an odd quote
                continue
            command: list[str] = []
            for word in [*words, ";"]:
                if set(word) <= set("|;&><()"):
                    if command:
                        yield command
                    command = []
                elif command or Path(word).name in load_commands():
                    command.append(word)


def find_unknown(words: list[str]) -> list[str]:
    """Options of a command line that its command doesn't have."""
    command = load_commands()[Path(words[0]).name]
    known = {"--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    options = {word.partition("=")[0].strip("[]") for word in words[1:] if "--" in word[:3]}
    return sorted(option for option in options if option not in known)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_command_lines_have_the_options_they_show(page: Path) -> None:
    wrong = {
        " ".join(words): unknown
        for words in list_command_lines(page.read_text("utf-8"))
        if (unknown := find_unknown(words))
    }
    assert not wrong


def test_command_lines_are_found() -> None:
    shown = "$ cat x | .venv/bin/mer-run ia - \\\n    --jsonn && mer-eval ia c --split test"
    text = f"```console\n{shown}\n```\n"
    found = list(list_command_lines(text))
    assert [words[0] for words in found] == [".venv/bin/mer-run", "mer-eval"]
    assert [find_unknown(words) for words in found] == [["--jsonn"], []]
    pages = [page for page in PAGES if any(list_command_lines(page.read_text("utf-8")))]
    assert len(pages) > 8
