"""How things are timed: several sides in turn, so that whatever else the machine does meets all
of them alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

ROUNDS = 9  # At most.
FEWEST_ROUNDS = 3


class Figure(NamedTuple):
  """One measured quantity: its median, and the lowest and highest of its samples."""

  workload: str
  name: str
  unit: str
  median: float
  low: float
  high: float
  samples: int


def figure(workload: str, name: str, unit: str, samples: list[float]) -> Figure:
  return Figure(
    workload, name, unit, statistics.median(samples), min(samples), max(samples), len(samples)
  )


def alternate(sides: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
  """Runs every side once to warm it up, then all of them in turn, round after round.

  A turn is two calls, of which the second is timed: the first finds caches and memory as another
  side left them, which a run of its own would not. A side that is alone has one call a turn.

  Args:
    sides: functions that return when their work is done.
    seconds: no new round begins after that long, once there were FEWEST_ROUNDS; there are at most
      ROUNDS.

  Returns:
    The seconds that each side took in each round: sample i of every side was taken in the same
      round.
  """
  for side in sides.values():
    side()
  taken: dict[str, list[float]] = {name: [] for name in sides}
  started = time.perf_counter()
  for number in range(ROUNDS):
    if number >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
      break
    for name, side in sides.items():
      if len(sides) > 1:
        side()
      begun = time.perf_counter()
      side()
      taken[name].append(time.perf_counter() - begun)
  return taken


def ratios(numerator: list[float], denominator: list[float]) -> list[float]:
  """Of every round, one side's number over another's."""
  return [a / b for a, b in zip(numerator, denominator, strict=True)]
