"""Starts again what ended by itself, as systemd or Kubernetes would, and gives up on what ends too often."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from perennial.local.stack import Progress, Stack


@dataclass
class Keeper:
    """Looks after a running stack.

    :param say: hears of every restart.
    :param most: so many restarts of one component are tolerated ``within`` so many seconds.
    """

    stack: Stack
    say: Progress
    most: int = 3
    within: float = 600.0
    _restarts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def look(self) -> None:
        """Look once.

        :raises StackError: with the end of its log, when a component ends again and again.
        """
        now = time.monotonic()
        for component in self.stack.ended:
            recent = [t for t in self._restarts[component.name] if now - t < self.within]
            if len(recent) >= self.most:
                self.stack.check()
            self._restarts[component.name] = [*recent, now]
            self.say(
                f"the {component.name} ended by itself with code {component.exit_code} and is started again; "
                f"see {component.log}"
            )
        self.stack.mend()
