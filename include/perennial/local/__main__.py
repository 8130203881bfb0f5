"""``python -m perennial.local up``: start the embedded stack, say where it is, wait, and stop it cleanly."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from perennial.errors import PerennialError, UsageError
from perennial.local.keeper import Keeper
from perennial.local.stack import Stack
from perennial.settings import settings

Verb = Callable[[argparse.Namespace], int]


class _Interrupted(BaseException):
    """Somebody asked us to stop. Not an Exception, so that no handler on the way mistakes it for a failure."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal end the block; further ones cannot break into the cleaning up."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for s in before:
            signal.signal(s, signal.SIG_IGN)
        raise _Interrupted

    for s in before:
        signal.signal(s, interrupt)
    try:
        yield
    except _Interrupted:
        pass
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def running_stack(project: Path, progress: Callable[[str], None]) -> Iterator[Stack]:
    """The stack of this process's settings, started, and stopped at the end of the block whatever happens."""
    configured = settings()
    stack = Stack(configured.home, configured.port, project=project)
    stack.start(progress)
    try:
        yield stack
    finally:
        progress("stopping")
        stack.stop()
        progress("stopped; nothing is left running")


def say(message: str) -> None:
    """A line for the person who waits, with the seconds since the program began."""
    sys.stdout.write(f"[{time.monotonic() - _BEGAN:5.1f} s] {message}\n")
    sys.stdout.flush()


def up(arguments: argparse.Namespace) -> int:
    """Start the stack and keep it until somebody stops it."""
    with interruptible(), running_stack(arguments.project, say) as stack:
        sys.stdout.write(
            f"\n  Airflow  {stack.urls['airflow']}   user {stack.username}, password {stack.password}\n"
            f"  MLflow   {stack.urls['mlflow']}\n\n"
            f"State lies in {stack.home}. Ctrl-C stops everything.\n"
        )
        sys.stdout.flush()
        _watch(stack)
    return 0


def play_demo(arguments: argparse.Namespace) -> int:
    """Run the whole story on a fresh state: minutes, with a table and a plot at its end."""
    from perennial.local.demo import demo

    code = 130  # what a shell says of a program that was interrupted
    with interruptible():
        code = demo(arguments.project)
    return code


def play_year(arguments: argparse.Namespace) -> int:
    """Replay the whole year 2013: every day, every month's decision."""
    from perennial.local.replay import replay

    code = 130
    with interruptible():
        code = replay(arguments.project)
    return code


def land(arguments: argparse.Namespace) -> int:
    """Let years of the census land; then ingest them with census_persons.ingest and census_employment.ingest."""
    from perennial.local.census import land_census

    landing = settings().landing
    if not landing.startswith("file://"):
        raise UsageError(f"The census lands in a local folder only, and files land in {landing}")
    persons = land_census(Path(landing.removeprefix("file://")), arguments.first, arguments.last)
    say(f"{persons:,} persons of {arguments.first} to {arguments.last} landed in {landing}")
    return 0


def _watch(stack: Stack) -> None:
    """For ever; a component that ends by itself is started again, unless it does so too often."""
    keeper = Keeper(stack, say)
    while True:
        time.sleep(1)
        keeper.look()


def parser() -> argparse.ArgumentParser:
    """The verbs; each sets ``run`` to a function of the parsed arguments that returns the exit code."""
    top = argparse.ArgumentParser(prog="python -m perennial.local", description=__doc__)
    top.add_argument("--project", type=Path, default=Path.cwd(), help="the checkout (default: here)")
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help=up.__doc__).set_defaults(run=up)
    verbs.add_parser("demo", help=play_demo.__doc__).set_defaults(run=play_demo)
    verbs.add_parser("replay", help=play_year.__doc__).set_defaults(run=play_year)
    census = verbs.add_parser("census", help=land.__doc__)
    census.add_argument("--first", type=int, default=2015, help="first year (default: 2015)")
    census.add_argument("--last", type=int, default=2018, help="last year (default: 2018)")
    census.set_defaults(run=land)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when all went well, 1 when something went wrong, 2 for a call that cannot be."""
    arguments = parser().parse_args(argv)
    run: Verb = arguments.run
    try:
        return run(arguments)
    except PerennialError as error:
        sys.stderr.write(f"{error}\n")
        return 1


_BEGAN = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
