"""Pages of the documentation site that are made at build: the home page, the references, and equations as MathML.

mkdocs.yml names this file as a hook of MkDocs; ./scripts/docs builds the site.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import modulab
from modulab.config.composing import OTHER_GROUPS, config_folder
from modulab.config.described import (
    NOTHING,
    Family,
    Key,
    families,
    group_names,
    keys_of_target,
    meaning_of,
    option_files,
    option_meaning,
    read_option,
    written,
)

ROOT = Path(__file__).resolve().parents[1]
CONFIG_PAGES = "reference/configs"
"""The folder of the pages of configs, and what stands for them in the navigation."""

ROOT_PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages that are files of the repository's root, whose links lead into docs/."""

CONTRACTS = {
    "Network": (
        "modulab.networks.base.Network",
        "modulab.networks.base.Architecture",
        "modulab.networks.base.Parameter",
        "modulab.networks.base.Site",
        "modulab.networks.base.Edges",
        "modulab.networks.base.Recording",
        "modulab.networks.base.NetworkPopulation",
    ),
    "Task": (
        "modulab.tasks.base.Task",
        "modulab.tasks.base.Samples",
        "modulab.partition.Partition",
        "modulab.losses.Loss",
    ),
    "Noise and regulariser": (
        "modulab.noise.Noise",
        "modulab.noise.add_activity_noise",
        "modulab.regularisers.Regulariser",
        "modulab.regularisers.PowerRegulariser",
        "modulab.regularisers.JacobianRegulariser",
        "modulab.regularisers.Pass",
    ),
    "Measure": (
        "modulab.metrics.measure.Measure",
        "modulab.metrics.measure.measure",
        "modulab.metrics.measure.Column",
        "modulab.metrics.probe.Probe",
    ),
    "Analysis": ("modulab.analysis.analysis.Analysis",),
    "Random streams": (
        "modulab.streams.fold_in",
        "modulab.streams.uniforms",
        "modulab.streams.normals",
        "modulab.streams.bernoullis",
    ),
}
"""What a file of a user's own derives from or calls, by contract."""

RETURNED = ("modulab.sweep.trained.TrainedMembers",)
"""Classes of what functions of the Python interface return."""

HYDRA_SETTINGS = {
    "hydra.launcher of hydra/launcher=population_slurm": (
        "hydra_plugins.modulab_launchers.population_slurm_launcher.PopulationSlurmLauncherConf"
    ),
    "hydra.launcher of hydra/launcher=population_ray": (
        "hydra_plugins.modulab_launchers.population_ray_launcher.PopulationRayLauncherConf"
    ),
    "hydra.sweeper of hydra/sweeper=optuna": (
        "hydra_plugins.modulab_launchers.search_sweeper.OptunaSweeperConf"
    ),
}


def on_config(config: Any) -> Any:
    """Put the pages of configs where the navigation asks for them."""
    config.nav = [_with_config_pages(entry) for entry in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links from pages to files of the repository's root to their pages of the site."""
    for page, file in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{file}", f"]({page}")
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Turn equations into MathML, which browsers draw without any script."""
    from latex2mathml.converter import convert

    def formula(found: re.Match[str]) -> str:
        display = "block" if found["block"] else "inline"
        return convert(html.unescape(found["block"] or found["inline"]).strip(), display=display)

    return EQUATION.sub(formula, content)


def on_post_build(config: Any) -> None:
    """Raise PluginError where a page would fetch something from another host: the site is read offline too."""
    from mkdocs.exceptions import PluginError

    for file in sorted(path for path in Path(config.site_dir).rglob("*") if path.suffix in (".html", ".css")):
        if found := fetched_elsewhere(file.read_text("utf-8")):
            raise PluginError(f"{file}: the page would fetch {', '.join(found)}.")


def fetched_elsewhere(page: str) -> list[str]:
    """Return the addresses on other hosts of scripts, styles, images and the like that a page fetches when it opens."""
    tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*>", page)
    addresses = [address for tag in tags for address in _ADDRESS.findall(tag)]
    return [*addresses, *_STYLE_ADDRESS.findall(page)]


_HOST = r"(?:https?:)?//[^\s\"'>)]+"
_ADDRESS = re.compile(rf"\b(?:src|href|data|srcset)\s*=\s*[\"']?({_HOST})")
_STYLE_ADDRESS = re.compile(rf"\burl\(\s*[\"']?({_HOST})")
EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>',
    re.DOTALL,
)


def generated_pages() -> dict[str, str]:
    """Return the text of each page that is made at build, by its path in the site."""
    pages = {page: _from_root((ROOT / file).read_text("utf-8")) for page, file in ROOT_PAGES.items()}
    pages["reference/python.md"] = python_page()
    pages["reference/contracts.md"] = contracts_page()
    pages |= {f"{CONFIG_PAGES}/{group}.md": group_page(group) for group in groups()}
    pages[f"{CONFIG_PAGES}/run.md"] = run_page()
    return pages


def groups() -> list[str]:
    """Return the groups of configs that have a page."""
    return [*group_names([config_folder()]), *OTHER_GROUPS]


def _with_config_pages(entry: Any) -> Any:
    if isinstance(entry, str):
        return entry
    ((title, inside),) = entry.items()
    if inside == CONFIG_PAGES:
        return {title: [f"{CONFIG_PAGES}/{name}.md" for name in ("run", *groups())]}
    return {title: [_with_config_pages(each) for each in inside] if isinstance(inside, list) else inside}


def _from_root(text: str) -> str:
    return text.replace("](docs/", "](")


def python_page() -> str:
    """Return the reference of what `dir(modulab)` shows."""
    lines = [
        "# Python interface",
        "",
        "The functions and classes of `import modulab`. [Python](../python.md) shows how to use them.",
        "",
    ]
    for name in (*(f"modulab.{name}" for name in modulab.__all__), *RETURNED):
        lines += [f"::: {name}", ""]
    return "\n".join(lines)


def contracts_page() -> str:
    """Return the reference of the classes that extensions derive from."""
    lines = [
        "# Contracts",
        "",
        "The base classes of your own tasks, networks, regularisers, measures and analyses. "
        "[Extending modulab](../extending.md) shows an example of each, and [how modulab is built](../architecture.md) "
        "describes what each contract requires.",
        "",
    ]
    for heading, names in CONTRACTS.items():
        lines += [f"## {heading}", "", *(line for name in names for line in (f"::: {name}", ""))]
    return "\n".join(lines)


def run_page() -> str:
    """Return the page of what is not a group: the seed, experiments, and Hydra's own keys."""
    lines = [
        "# Run",
        "",
        "A run's config has these groups: "
        + ", ".join(f"[`{name}`]({name}.md)" for name in group_names([config_folder()]))
        + ". On the command line, `GROUP=OPTION` chooses an option of a group and `GROUP.KEY=VALUE` sets a key.",
        "",
        *_table(
            [
                Key("seed", 0, meaning_of("Member", "seed"), "integer", ("at least 0", "below 2**63"), ()),
            ]
        ),
        "The most important keys of Hydra are:",
        "",
        "| key | meaning |",
        "|---|---|",
        "| `hydra.run.dir` | the folder of a run; the same command with the same folder resumes |",
        "| `hydra.sweep.dir` | the same for a sweep (`-m`) |",
        "",
    ]
    for heading, name in HYDRA_SETTINGS.items():
        lines += [
            f"## {heading}",
            "",
            f"::: {name}",
            "    options:",
            "      show_root_heading: false",
            "      show_root_toc_entry: false",
            "      show_if_no_docstring: true",
            "",
        ]
    return "\n".join(lines)


def group_page(group: str) -> str:
    """Return the reference of a group: its options, and every key with type, range and default."""
    places = [config_folder()]
    files = option_files(group, places)
    lines = [f"# {group}", ""]
    if group in OTHER_GROUPS:
        lines += [
            "Options of `modulab analyse PATH --with OPTION`; a key is set as `OPTION.KEY=VALUE`.",
            "",
        ]
    else:
        lines += [f"Choose an option with `{group}=OPTION`, and set a key with `{group}.KEY=VALUE`.", ""]
    lines += ["| option | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {_prose(option_meaning(file))} |" for name, file in files.items()]
    lines += [""]
    if group in OTHER_GROUPS:
        found = [Family((name,), tuple(_own_keys(name, file))) for name, file in files.items()]
    else:
        found = families(group, places)
    for family in found:
        if family.keys:
            lines += _family(group, family, files, alone=len(found) == 1)
    return "\n".join(lines)


def _own_keys(option: str, file: Path) -> list[Key]:
    return keys_of_target(option, read_option(file))


def _family(group: str, family: Family, files: Mapping[str, Path], alone: bool) -> Iterator[str]:
    first, *others = family.options
    if not alone:
        yield f"## {', '.join(family.options)}"
        yield ""
    if others:
        yield f"Defaults are those of `{group}={first}`."
        yield ""
    yield from _table(family.keys)
    changes = [
        (option, list(_changes(read_option(files[first]), read_option(files[option])))) for option in others
    ]
    if changes:
        yield "| option | other defaults |"
        yield "|---|---|"
        for option, changed in changes:
            yield f"| `{option}` | {'; '.join(map(_code, changed))} |"
        yield ""
    yield from _parts(group, {option: read_option(files[option]) for option in family.options})


def _parts(group: str, options: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the keys of the measures with parameters that options of `probes` name, of equal ones once."""
    shown: list[tuple[str, Any]] = []
    for option, values in options.items():
        for name, inner in (values.get("measures") or {}).items():
            keys = keys_of_target(f"{group}.measures.{name}", inner) if isinstance(inner, dict) else []
            if keys and (name, inner) not in shown:
                shown.append((name, inner))
                yield from (f"### {group}.measures.{name}", "", f"As `{group}={option}` has it.", "")
                yield from _table(keys)


def _changes(first: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield KEY=VALUE for each key whose value differs from that of the first option; names are left out."""
    for key, value in other.items():
        before = first.get(key, NOTHING)
        if value == before or (not prefix and key in ("name", "_target_")):
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _changes(before, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={written(value)}"


def _table(keys: Sequence[Key]) -> Iterator[str]:
    yield "| key | type | range | default | meaning |"
    yield "|---|---|---|---|---|"
    for key in keys:
        allowed = ", ".join([*map(_code, key.choices), *map(_prose, key.limits)])
        default = _code(key.written_default) if key.written_default else ""
        yield f"| `{key.name}` | {key.type} | {allowed} | {default} | {_prose(key.meaning)} |"
    yield ""


def _prose(text: str) -> str:
    """Return text for a cell of a table in which no character is markup."""
    escaped = re.sub(r"([\\`*_\[\]|])", r"\\\1", text.replace("&", "&amp;"))
    return escaped.replace("<", "&lt;").replace("$", "&#36;")


def _code(text: str) -> str:
    """Return text as code for a cell of a table, which a bar would end."""
    return "`" + text.replace("|", "\\|") + "`"
