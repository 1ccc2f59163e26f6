"""The documentation site: every page is reached, references leave nothing out, and no page needs another host."""

from __future__ import annotations

import ast
import builtins
import html
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
import pytest
import site_pages
import yaml
from omegaconf import OmegaConf
from pydantic.fields import FieldInfo

import modulab
from modulab.config import settings
from modulab.config.composing import config_folder, hydra_composer
from modulab.config.loggers import CsvLogger, TensorboardLogger, WandbLogger
from modulab.config.overrides import leaf_keys
from modulab.schema import Settings, import_target

ROOT = Path(__file__).parents[1]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
GROUPS = sorted(path.name for path in config_folder().iterdir() if path.is_dir())
CLASSES: dict[str, type[Settings]] = {
    "data": settings.Data, "training": settings.Training, "probes": settings.Probes, "trainer": settings.Trainer,
    "population": settings.Population, "sweep": settings.Sweep, "noise": settings.Noise,
}  # fmt: skip
"""Of groups whose configs name no class."""
LOGGERS: dict[str, type[Settings]] = {
    "csv": CsvLogger,
    "tensorboard": TensorboardLogger,
    "wandb": WandbLogger,
}


def entries(navigation: list[Any]) -> Iterator[str]:
    """Yield the pages of a navigation."""
    for entry in navigation:
        if isinstance(entry, str):
            yield entry
            continue
        [inside] = entry.values()
        yield from [inside] if isinstance(inside, str) else entries(inside)


def rows_of(page: str, option: str | None = None) -> dict[str, list[str]]:
    """Return the cells of each row whose first cell is a key, of a page or of its section of an option."""
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    own = [text for text in sections if option in text.partition("\n")[0].split(", ")]
    lines = re.findall(r"^\| `([\w.]+)` \|(.*)\|$", "".join(own) or page, re.MULTILINE)
    return {key: [cell.strip() for cell in re.split(r"(?<!\\)\|", rest)] for key, rest in lines}


def classes_of(group: str, file: Path) -> dict[str, type[Settings]]:
    """Return the class that reads a config, by the prefix of its keys."""
    config = yaml.safe_load(file.read_text()) or {}
    if "_target_" in config:
        target = import_target(config["_target_"], "")
        return {file.stem if group == "analysis" else group: target}
    if group == "logger":
        return {f"logger.{name}": LOGGERS[name] for name in config}
    return {group: CLASSES[group]} if group in CLASSES else {}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return site_pages.generated_pages()


def test_every_page_is_in_the_navigation_once(pages: dict[str, str]) -> None:
    config = type("Config", (), {"nav": SITE["nav"]})()
    shown = list(entries(site_pages.on_config(config).nav))
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(shown) == sorted(written | set(pages))


def test_the_reference_of_configs_has_a_page_of_every_group_with_every_option(pages: dict[str, str]) -> None:
    for group in GROUPS:
        page = pages[f"reference/configs/{group}.md"]
        for file in (config_folder() / group).rglob("*.yaml"):
            option = file.relative_to(config_folder() / group).with_suffix("").as_posix()
            assert f"| `{option}` |" in page, (group, option)


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "experiment"])
def test_the_reference_states_every_key_as_the_class_that_checks_it(
    group: str, pages: dict[str, str]
) -> None:
    found = 0
    for file in (config_folder() / group).rglob("*.yaml"):
        rows = rows_of(pages[f"reference/configs/{group}.md"], file.stem)
        for prefix, checked in classes_of(group, file).items():
            for name, field in checked.model_fields.items():
                if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
                    continue  # its own keys are rows
                kind, allowed, _, meaning = rows[f"{prefix}.{name}"]
                assert unescaped(meaning) == (field.description or ""), name
                assert kind == kind_of(field.annotation), name
                assert set(limits(field)) <= set(unescaped(allowed).split(", ")), (name, allowed)
                found += 1
    assert found > 0


def test_nothing_in_a_meaning_is_taken_for_markup() -> None:
    markdown = pytest.importorskip("markdown", reason="the extra 'docs' is not installed")
    text = "_target_ of |a|^p, *all*, <b>, `c`, [d](e) and $f$ \\ g"
    row = f"| x | y |\n|---|---|\n| {site_pages._prose(text)} | z |"
    cell = re.findall(r"<td>(.*?)</td>", markdown.markdown(row, extensions=["tables"]))[0]
    assert html.unescape(cell) == text


def kind_of(annotation: Any) -> str:
    """Return what a page calls the type that pydantic checks."""
    plain = {
        int: "integer",
        float: "number",
        str: "text",
        bool: "boolean",
        type(None): "null",
        Any: "any value",
    }
    if annotation in plain:
        return plain[annotation]
    inside = get_args(annotation)
    match get_origin(annotation):
        case typing.Literal:
            return "choice"
        case typing.Union | types.UnionType:
            return " or ".join(map(kind_of, inside))
        case builtins.list:
            of = kind_of(inside[0])
            return f"list of {'lists' + of[4:] if of.startswith('list') else of + 's'}"
    return "mapping"


def unescaped(cell: str) -> str:
    """Return the text that a cell shows."""
    return html.unescape(re.sub(r"\\(.)", r"\1", cell))


def limits(field: FieldInfo) -> Iterator[str]:
    """Yield the limits that pydantic checks."""
    for limit in field.metadata:
        match limit:
            case annotated_types.Ge(ge=value):
                yield f"at least {value}"
            case annotated_types.Gt(gt=value):
                yield f"above {value}"
            case annotated_types.Le(le=value):
                yield f"at most {value}"
            case annotated_types.Lt(lt=value):
                yield f"below {'2**63' if value == 2**63 else value}"


def test_the_reference_has_the_defaults_that_hydra_composes(pages: dict[str, str]) -> None:
    rows: dict[str, list[str]] = {}
    chosen = yaml.safe_load((config_folder() / "train.yaml").read_text())["defaults"]
    options = {group: name for entry in chosen if isinstance(entry, dict) for group, name in entry.items()}
    for group in GROUPS:
        rows |= rows_of(pages[f"reference/configs/{group}.md"], options.get(group))
    rows |= rows_of(pages["reference/configs/run.md"])
    with hydra_composer() as compose:
        config: Any = OmegaConf.to_container(compose(["logger=[csv,tensorboard,wandb]"]))
    for key in leaf_keys(config):
        if key.endswith("._target_") or key.startswith("probes.measures."):
            continue
        value = config
        for part in key.split("."):
            value = value[part]
        default = rows[key][2].strip("`")
        stated = OmegaConf.to_container(OmegaConf.create(f"value: {default.replace(',', ', ')}"))
        assert stated == {"value": value}, (key, default)


def test_the_reference_of_python_is_that_of_the_package(pages: dict[str, str]) -> None:
    named = re.findall(r"^::: modulab\.(\w+)$", pages["reference/python.md"], re.MULTILINE)
    assert sorted(named) == sorted(name for name in dir(modulab) if name in modulab.__all__)


def test_contracts_name_objects_that_have_docstrings(pages: dict[str, str]) -> None:
    names = re.findall(r"^::: ([\w.]+)$", pages["reference/contracts.md"], re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert import_target(name, "contracts").__doc__, name


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ("<link href='//fonts.example/a.css' rel=stylesheet>", ["//fonts.example/a.css"]),
        ("<img alt='' src=http://example/x.png>", ["http://example/x.png"]),
        ('<style>@import url("https://fonts.example/b.css")</style>', ["https://fonts.example/b.css"]),
        ('<a href="https://example.org">a link fetches nothing</a><link rel="canonical" href="x.html">', []),
        ('<svg xmlns="http://www.w3.org/2000/svg"></svg><script src="x.js"></script>', []),
    ],
)
def test_addresses_that_a_page_would_fetch_from_other_hosts_are_found(page: str, found: list[str]) -> None:
    assert site_pages.fetched_elsewhere(page) == found


def test_equations_become_mathml_with_every_symbol() -> None:
    pytest.importorskip("latex2mathml", reason="the extra 'docs' is not installed")
    page = r'<p>a <span class="arithmatex">\(\sigma^2 &lt; K\)</span></p><div class="arithmatex">\[\frac{1}{d}\]</div>'
    made = site_pages.on_page_content(page)
    assert "arithmatex" not in made
    assert made.count("<math") == 2
    assert re.search(r"<msup><mi>(σ|&#x003C3;)</mi><mn>2</mn></msup>", made)
    assert "<mfrac>" in made
    assert 'display="block"' in made


def test_classes_with_described_keys_have_names_of_their_own() -> None:
    # The reference finds a class by its name alone.
    found: Counter[str] = Counter()
    for file in (ROOT / "src/modulab").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                values = [item.value for item in node.body if isinstance(item, ast.AnnAssign)]
                found[node.name] += any(
                    isinstance(value, ast.Call) and ast.unparse(value.func) == "Field" for value in values
                )
    assert found["ExpertEnrichment"] == 1
    assert [name for name, count in found.items() if count > 1] == []
