"""The demo's last chapter: what an auditor asks, answered by the commands that anybody can run, and one bundle that
somebody changed behind MLflow's back."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from perennial.errors import PerennialError
from perennial.local.story import Story, StoryError
from perennial.registry import tracking, versions

#: A file of every bundle, and the words that somebody changes in it: from now on nearly nobody is late.
_FILE = "perennial/facts.json"


def audit(story: Story, model: str, home: Path, *, at: str, key: str) -> None:
    """Show the record, check it, and change a file of the champion's bundle: nothing is published with it.

    :param at: a day whose champion is asked for. ``key``: a partition to score with the changed bundle.
    :raises StoryError: when the record is not whole, or the changed bundle is used.
    """
    champion = versions.require_champion(model)
    _say(story, "ledger", "show", model)
    _say(story, "ledger", "show", model, "--at", at)
    with _changed(home, champion.model_id) as path:
        story.tell.line(f"somebody changes one byte of {path}")
        _say(story, "verify", model, champion.version, expected=1)
        (run,) = story.follow([story.trigger(f"{model}.score", key=key)], need="failed")
        story.tell.line(f"{model}.score {key}: failed, and published nothing: {_sentence(story, run)}")
    story.follow([story.trigger(f"{model}.score", key=key)])
    story.tell.line(f"{model}.score {key}: with the file as it was, it is scored again")
    _say(story, "ledger", "verify")


def _say(story: Story, *command: str, expected: int = 0) -> None:
    """Run a command of ``perennial`` as a person would, and show what it says."""
    story.tell.line(f"$ perennial {' '.join(command)}")
    done = subprocess.run(
        [sys.executable, "-m", "perennial.cli", *command], stdout=subprocess.PIPE, text=True, check=False
    )
    story.tell.out.write("\n" + textwrap.indent(done.stdout, "    ") + "\n")
    if done.returncode != expected:
        raise StoryError(f"perennial {' '.join(command)} ended with {done.returncode}, and not with {expected}")


@contextmanager
def _changed(home: Path, model_id: str) -> Iterator[Path]:
    """One byte of a bundle is another one in MLflow's store, for as long as it lasts; local copies are dropped."""
    found = [p for p in (home / "mlflow" / "artifacts").rglob(_FILE) if model_id in p.parts]
    if len(found) != 1:
        raise PerennialError(f"the bundle {model_id} is not among MLflow's artifacts in {home}")
    path, copies = found[0], tracking.cache_folder().root / model_id
    before = path.read_bytes()
    shutil.rmtree(copies, ignore_errors=True)
    path.write_bytes(before.replace(b'"threshold":0', b'"threshold":9', 1))
    try:
        yield path.relative_to(home)
    finally:
        path.write_bytes(before)
        shutil.rmtree(copies, ignore_errors=True)


def _sentence(story: Story, run: Mapping[str, object]) -> str:
    """What the failed task says, without Airflow's wrapping."""
    found = re.search(r"RefusedError: (.*?)(;| \d{4}-\d\d-\d\dT|$)", story.why(run))
    return found[1] if found else story.why(run)
