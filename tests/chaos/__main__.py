"""The soak, run by hand: ``python -m tests.chaos --minutes 10 --seed 1``, from the top of the repository."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from .soak import restarts_told, soak

DEFAULT_MINUTES, N_RESTARTS = 10.0, 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description="Break lmsyz in every way there is, and count what was lost.")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="how long rounds are begun")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000, help="draws all that happens")
    parser.add_argument("--round", type=int, default=None, help="play this one round only")
    parser.add_argument("--restarts", type=int, default=N_RESTARTS, help="of the batch engine, in simulation")
    wanted = parser.parse_args()
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "ANTHROPIC_", "LMSYZ_"))]:
        del os.environ[name]
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment] # an optional helper that takes seconds to import
    with tempfile.TemporaryDirectory(prefix="lmsyz-chaos-") as folder:
        restarts = restarts_told(wanted.restarts, wanted.seed, Path(folder)) if wanted.round is None else None
        told = soak(wanted.seed, Path(folder), minutes=wanted.minutes, only_round=wanted.round, say=_say)
    print(told.summary(restarts))
    return 0 if told.is_good and (restarts is None or restarts.is_good) else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
