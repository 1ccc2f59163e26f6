"""Checks every annotation of modulab while tests run; conftest.py loads this before modulab is imported.

Shapes are checked by jaxtyping, which takes a multiple of the time of a short function for every call. So it checks the
modules that name shapes, and beartype alone the others: planning a large grid is then three times faster, and no
annotation is left out.
"""

from __future__ import annotations

from pathlib import Path

from beartype import BeartypeConf
from beartype.claw import beartype_package
from jaxtyping import install_import_hook

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
SOURCE = Path(__file__).parents[1] / "src"


def modules_with_shapes() -> list[str]:
    """Return the modules of modulab whose annotations name shapes."""
    return [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in sorted((SOURCE / "modulab").rglob("*.py"))
        if "from jaxtyping import" in path.read_text()
    ]


def check_annotations() -> None:
    """Have annotations of all modules of modulab checked that are imported from now on."""
    beartype_package("modulab", conf=BeartypeConf(is_pep484_tower=True, claw_is_pep526=False))
    install_import_hook(modules_with_shapes(), CHECKER)
