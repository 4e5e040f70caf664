"""What JSON of ours must hold: a check is a function that raises a ValueError, which says where and
what is wrong, unless a value is as it should be.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from ahm_jax.config.ranges import LARGEST

Check = Callable[[Any], None]
_SHOWN = 60  # Characters of a wrong value.


def anything(_: Any) -> None:
  """Whatever JSON may hold."""


def text(value: Any) -> None:
  """A text without NUL, which no path may hold."""
  _require(isinstance(value, str) and '\0' not in value, value, 'a text')


def number(low: float = -math.inf, high: float = math.inf) -> Check:
  """A finite number in [low, high]."""
  where = '' if math.isinf(low) and math.isinf(high) else f' in [{low}, {high}]'

  def check(value: Any) -> None:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    _require(fine and low <= value <= high and abs(value) < 1e300, value, f'a number{where}')

  return check


def count(low: int = 0) -> Check:
  """A whole number from `low` on, of at most 63 bits."""

  def check(value: Any) -> None:
    fine = isinstance(value, int) and not isinstance(value, bool) and low <= value <= LARGEST
    _require(fine, value, f'a whole number from {low} on')

  return check


def optional(inner: Check) -> Check:
  """As `inner`, or None."""

  def check(value: Any) -> None:
    if value is not None:
      inner(value)

  return check


def either(*inner: Check) -> Check:
  """As one of several checks; what is wrong is said by the last of them."""

  def check(value: Any) -> None:
    for item in inner[:-1]:
      try:
        return item(value)
      except ValueError:
        continue
    return inner[-1](value)

  return check


def list_of(inner: Check, unique: bool = False) -> Check:
  """A list, each item as `inner`, none of them twice where they are to be unique."""

  def check(value: Any) -> None:
    _require(isinstance(value, list), value, 'a list')
    for index, item in enumerate(value):
      _at(f'[{index}]', inner, item)
    if unique and (twice := repeated(value)):
      raise ValueError(f' holds {shown(twice[0])} twice')

  return check


def repeated(values: Iterable[Hashable]) -> list[Any]:
  """What is among some values more than once."""
  return [value for value, times in Counter(values).items() if times > 1]


def mapping(inner: Check = anything) -> Check:
  """An object, whatever its names are, each value as `inner`."""
  return named(lambda _: inner)


def named(of: Callable[[str], Check]) -> Check:
  """An object, each value as the check of its name."""

  def check(value: Any) -> None:
    _require(isinstance(value, dict), value, 'an object')
    for name, item in value.items():
      _at(f'[{shown(name)}]', of(name), item)

  return check


def both(*inner: Check) -> Check:
  """As each of several checks."""

  def check(value: Any) -> None:
    for item in inner:
      item(value)

  return check


def record(required: Mapping[str, Check], known: Mapping[str, Check] | None = None) -> Check:
  """An object with the required names, each as its check, and perhaps the known ones; others are
  not looked at.
  """

  def check(value: Any) -> None:
    _require(isinstance(value, dict), value, 'an object')
    for name, inner in required.items():
      if name not in value:
        raise ValueError(f': {name} is missing')
      _at(f'.{name}', inner, value[name])
    for name, inner in (known or {}).items():
      if name in value:
        _at(f'.{name}', inner, value[name])

  return check


def require(check: Check, value: Any) -> None:
  """Raises a ValueError of one line, such as 'cells[3].labels is -1, not a number in [0, 9]'."""
  try:
    check(value)
  except ValueError as error:
    said = str(error).lstrip('.: ')
    raise ValueError(f'it {said}' if said.startswith(('is ', 'holds ')) else said) from None


def _at(place: str, check: Check, value: Any) -> None:
  try:
    check(value)
  except ValueError as error:
    raise ValueError(f'{place}{error}') from None


def _require(fine: bool, value: Any, what: str) -> None:
  if not fine:
    raise ValueError(f' is {shown(value)}, not {what}')


def shown(value: Any) -> str:
  """A value in a line of a message."""
  if isinstance(value, dict | list):
    return 'an object' if isinstance(value, dict) else 'a list'
  told = ascii(value)
  return told if len(told) <= _SHOWN else f'{told[:_SHOWN]}...'
