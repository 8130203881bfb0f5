"""Kill -9 by the dozen: ``make chaos N=20 SEED=1``. Lives a life undisturbed, then as many with kills as it takes, and
compares how each ended. The kills come from the seed, so that a life can be lived again: ``--life 3``.

Exit code 1 when any life ended otherwise than the undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import chaos_state
from chaos_arena import PROJECT, Arena, arena, free_port
from chaos_plan import Strike, plan

from perennial.errors import PerennialError

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds since the beginning."""
    sys.stdout.write(f"[{time.monotonic() - _BEGAN:6.0f} s] {text}\n")
    sys.stdout.flush()


def undisturbed(root: Path, ports: tuple[int, int]) -> dict[str, Any]:
    """The end state that every other life is compared with."""
    with arena(root, free_port(*ports)) as made:
        began = time.monotonic()
        made.life.live()
        say(f"undisturbed: {made.life.done} runs in {time.monotonic() - began:.0f} s")
        state = chaos_state.collect()
    left = chaos_state.leftovers(root / "home")
    if left:
        raise PerennialError(f"even the undisturbed life leaves {left}")
    shutil.rmtree(root)
    return state


def disturbed(root: Path, ports: tuple[int, int], strikes: list[Strike], expected: dict[str, Any]) -> dict[str, Any]:
    """A life with kills: what each hit, and what was otherwise at the end."""
    problems: list[str] = []
    with arena(root, free_port(*ports)) as made:
        began = time.monotonic()
        made.life.say = lambda text: say(f"  {text}") if "cleared" in text else None
        for strike in strikes:
            if strike["kind"] != "any moment":
                made.arm(strike)
        over = threading.Event()
        outside = [threading.Thread(target=_from_outside, args=(made, s, over)) for s in strikes if "runs" in s]
        for thread in outside:
            thread.start()
        try:
            made.life.live()
            problems += chaos_state.differences(expected, chaos_state.collect())
        except (PerennialError, AssertionError) as e:
            problems.append(f"the life did not end: {e}")
        finally:
            over.set()
            for thread in outside:
                thread.join()
        kills = _kills(made, {s["id"]: s for s in strikes})
        seconds = round(time.monotonic() - began)
    problems += [f"left behind: {name}" for name in chaos_state.leftovers(root / "home")]
    problems += [f"still running: {' '.join(p.cmdline())[:200]}" for p in chaos_state.processes_of(root)]
    for kill in kills:
        kill["outcome"] = "different" if problems else "same"
    return {"kills": kills, "problems": problems, "cleared": made.life.cleared, "seconds": seconds}


def _from_outside(made: Arena, strike: Strike, over: threading.Event) -> None:
    """Kill when so many runs have ended, and a little later."""
    while made.life.done < strike["runs"]:
        if over.wait(0.05):
            return
    if not over.wait(strike["delay"]):
        made.kill(strike)


def _kills(made: Arena, planned: dict[str, Strike]) -> list[dict[str, Any]]:
    """What was hit, and how long it took to be as before: the task done, or the component answering."""
    found = []
    struck = [{**planned[k], **v} for k, v in made.struck().items()] + made.outside
    for s in sorted(struck, key=lambda s: float(s["at"])):
        kill = {k: s.get(k) for k in ("id", "kind", "place", "dag", "task", "when", "victim", "about") if s.get(k)}
        if s.get("run"):
            kill |= {"attempt": s["attempt"], "task_seconds": _recovered(made, s)}
            how = made.ended(s["id"])
            if s["victim"] == "worker" and how:
                kill["orphan"] = how
            name = f"{s['dag']} "
            kill["cleared"] = any(c.startswith(name) for c in made.life.cleared)
        if s.get("running"):
            kill["running"] = s["running"]
        if s["victim"] not in ("task", "worker"):
            for again in [m for m in made.mended if m["component"] == s["victim"] and m["at"] >= s["at"] - 1][:1]:
                kill["component_seconds"] = round(again["at"] - s["at"] + again.get("seconds", 0), 1)
        found.append(kill)
    return found


def _recovered(made: Arena, struck: dict[str, Any]) -> float | None:
    """Seconds from the kill to the success of the task that was hit; 0 when it had just ended."""
    for t in made.life.client.task_instances(struck["dag"], struck["run"]):
        if t["task_id"] == struck["task"] and t["state"] == "success" and t["end_date"]:
            return max(0.0, round(datetime.fromisoformat(t["end_date"]).timestamp() - struck["at"], 1))
    return None


def table(lives: list[dict[str, Any]]) -> str:
    """What was hit, how often, and how long it took."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for kill in (k for life in lives for k in life["kills"]):
        rows[kill["kind"], kill.get("place", ""), kill["victim"]].append(kill)
    lines = [f"{'hit':12} {'place':36} {'killed':14} {'n':>3} {'same':>5} {'cleared':>8} {'median s':>9} {'max s':>6}"]
    for (kind, place, victim), kills in sorted(rows.items()):
        took = [s for k in kills for s in [k.get("task_seconds") or k.get("component_seconds")] if s is not None]
        same, cleared = sum(k["outcome"] == "same" for k in kills), sum(bool(k.get("cleared")) for k in kills)
        middle, longest = (f"{median(took):.1f}", f"{max(took):.1f}") if took else ("", "")
        lines.append(f"{kind:12} {place:36} {victim:14} {len(kills):3} {same:5} {cleared:8} {middle:>9} {longest:>6}")
    return "\n".join(lines)


def summary(lives: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole in figures."""
    kills = [k for life in lives for k in life["kills"]]
    took = sorted(k["task_seconds"] for k in kills if k.get("task_seconds") is not None and k["victim"] == "task")
    return {
        "kills": len(kills),
        "lives": len(lives),
        "at a write, registration or alias move": sum(k["kind"] != "any moment" for k in kills),
        "by kind": dict(Counter(k["kind"] for k in kills)),
        "by victim": dict(Counter(k["victim"] for k in kills)),
        "orphans": dict(Counter(k["orphan"] for k in kills if "orphan" in k)),
        "lives that ended otherwise": sum(bool(life["problems"]) for life in lives),
        "runs cleared by an operator": sum(len(life["cleared"]) for life in lives),
        "seconds until a killed task was done": {"median": median(took), "max": took[-1]} if took else None,
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(PROJECT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is said")
    parser.add_argument("--life", type=int, default=None, help="only this life of the seed")
    parser.add_argument("--resume", action="store_true", help="go on after the lives in the result file")
    parser.add_argument("--minutes", type=float, default=600, help="begin no life after so many")
    parser.add_argument("--ports", default="27000-28000")
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks" / "results" / "chaos.json")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randint(1, 10**6)
    first, last = (int(p) for p in asked.ports.split("-"))
    work = Path(tempfile.mkdtemp(prefix="chaos-"))
    lives: list[dict[str, Any]] = []
    if asked.resume:
        before = json.loads(asked.out.read_text("utf-8"))
        seed, lives = before["seed"], before["lives"]
    say(f"seed {seed}")
    try:
        expected = json.loads(json.dumps(undisturbed(work / "life", (first, last))))
        numbers = iter([asked.life]) if asked.life is not None else iter(range(len(lives) + 1, 10**6))
        for n in numbers:
            strikes = plan(seed, n)
            lived = {"life": n, "commit": _commit(), **disturbed(work / "life", (first, last), strikes, expected)}
            lives.append(lived)
            for kill in lived["kills"]:
                what = kill.get("place") or f"while {', '.join(kill.get('running', [])) or 'idle'}"
                took = kill.get("task_seconds") or kill.get("component_seconds")
                where = f"{kill.get('dag', '')} {kill.get('task', '')} {kill.get('when', '')}"
                say(f"  {kill['id']} {kill['victim']}: {what} {where}: {took} s: {kill['outcome']}")
            for problem in lived["problems"]:
                say(f"  DIFFERENT: {problem}")
            total = sum(len(life["kills"]) for life in lives)
            say(f"life {n} in {lived['seconds']} s; {total} of {asked.kills} kills")
            if lived["problems"]:
                kept = work / f"life-{n}"
                (work / "life").rename(kept)
                say(f"  kept in {kept}")
            else:
                shutil.rmtree(work / "life")
            if total >= asked.kills or time.monotonic() - _BEGAN > 60 * asked.minutes:
                break
    finally:
        if lives:
            whole = {
                "what": "kill -9 at named places and at any moment; the end state compared with an undisturbed life",
                "date": datetime.now(UTC).date().isoformat(),
                "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
                f"Python {platform.python_version()}",
                "seed": seed,
                "summary": summary(lives),
                "lives": lives,
            }
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(whole, indent=1, sort_keys=False) + "\n", "utf-8")
            sys.stdout.write("\n" + table(lives) + "\n\n" + json.dumps(summary(lives), indent=1) + f"\n{asked.out}\n")
        if not any(work.iterdir()):
            work.rmdir()
    return int(any(life["problems"] for life in lives))


if __name__ == "__main__":
    sys.exit(main())
