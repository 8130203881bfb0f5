"""Two lives on two real stacks, one after the other: an undisturbed one, and one in which things are killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import chaos_state
import pytest
from chaos_arena import arena, free_port
from chaos_lives import ASKED, STRIKES, Lived, three_at_once


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both lives lie under the same path, because refused rows name the file that they came in."""
    return tmp_path_factory.mktemp("chaos") / "life"


@pytest.fixture(scope="session")
def calm(place: Path) -> Lived:
    """An undisturbed life; at its end, three ways of starting ask for the same days at once."""
    with arena(place, free_port(27000, 28000)) as made:
        made.life.live()
        lived = Lived(chaos_state.collect())
        lived.published = three_at_once(made)
        lived.rows = chaos_state.predictions(ASKED)
    shutil.rmtree(place)
    return lived


@pytest.fixture(scope="session")
def hurt(calm: Lived, place: Path) -> Lived:
    """The same life with kills, and a minute without MLflow."""
    with arena(place, free_port(27000, 28000)) as made:
        made.down["mlflow"] = 60  # in the middle of a registration
        for name, strike in STRIKES.items():
            made.arm({"id": name, **strike})
        made.life.live()
        lived = Lived(chaos_state.collect(), struck=made.struck(), cleared=made.life.cleared)
        lived.ended = {name: made.ended(name) for name in STRIKES}
        lived.mended = [m["component"] for m in made.mended]
    lived.leftovers = chaos_state.leftovers(place / "home")
    lived.processes = [" ".join(p.cmdline()) for p in chaos_state.processes_of(place)]
    return lived
