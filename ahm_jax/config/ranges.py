"""Ranges, as they stand at the fields of a config.

A range is a function of a value: what is wrong with it, as the end of the sentence that the field's
name begins, or '' where nothing is.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

SCRATCH = 'scratch'  # The method without pre-training.
SCRATCH_ = f'{SCRATCH}_'  # What names of others begin with.
LARGEST = 2**63 - 1  # Of whole numbers, in JAX and in NumPy.
MODALITIES = 16  # At most so many.
PERCENTILE, ZSCORE, WINDOW = 'percentile', 'zscore', 'window'  # Kinds of `data.intensity`.
MASK_CLASSES = 255  # At most so many: with background, what 8 bits can tell apart.

Range = Callable[[Any], str]


def at_least(low: float) -> Range:
  """From `low` on, and finite."""

  def fault(value: float) -> str:
    inside = low <= value < math.inf
    return '' if inside else f'is {value}; it must be at least {low}{_and_finite(value)}'

  return fault


def above(low: float) -> Range:
  """Above `low`, and finite."""

  def fault(value: float) -> str:
    inside = low < value < math.inf
    return '' if inside else f'is {value}; it must be above {low}{_and_finite(value)}'

  return fault


def between(low: float, high: float) -> Range:
  """In [low, high]."""

  def fault(value: float) -> str:
    return '' if low <= value <= high else f'is {value}; it must lie between {low} and {high}'

  return fault


def strictly_between(low: float, high: float) -> Range:
  """In (low, high)."""

  def fault(value: float) -> str:
    inside = low < value < high
    return '' if inside else f'is {value}; it must lie strictly between {low} and {high}'

  return fault


def one_of(*allowed: Any) -> Range:
  """One of a few values."""

  def fault(value: Any) -> str:
    if value in allowed:
      return ''
    near = difflib.get_close_matches(str(value), [str(item) for item in allowed], n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    return f'is {value!r}; it may be {", ".join(str(item) or repr(item) for item in allowed)}{hint}'

  return fault


def each(inner: Range) -> Range:
  """Every item in a range."""
  return lambda items: next(filter(None, map(inner, items)), '')


def not_empty(items: tuple) -> str:
  """At least one item."""
  return '' if items else 'is empty; name at least one'


def part_of_a_name(text: str) -> str:
  """Of a file; may be empty."""
  odd = [letter for letter in text if letter in '/\\' or not letter.isprintable()]
  return f'is {text!r}; a part of a file name has no {odd[0]!r}' if odd else ''


def three_shares(values: tuple[float, ...]) -> str:
  """Of train, validation and test: from 0 on, with a sum of 1."""
  if len(values) == 3 and min(values) >= 0 and abs(sum(values) - 1) <= 1e-6:
    return ''
  return f'is {values}; give three shares (train, validation, test) that sum to 1'


def two_shares(values: tuple[float, ...]) -> str:
  """The smaller and the larger, above 0 and at most 1."""
  if len(values) == 2 and 0 < values[0] <= values[1] <= 1:
    return ''
  return f'is {values}; give two shares above 0 and at most 1, the smaller first'


def centre_and_width(values: tuple[float, ...]) -> str:
  """Of a window: two finite numbers, the second above 0; or none."""
  if not values or (len(values) == 2 and all(map(math.isfinite, values)) and values[1] > 0):
    return ''
  return f'is {values}; give a centre and a width above 0'


def modality_names(names: tuple[str, ...]) -> str:
  """Names that differ, also where upper and lower case are one, and that can be parts of names."""
  for name in names:
    if not re.fullmatch('[A-Za-z][A-Za-z0-9_-]{,31}', name):
      return (
        f'holds {name!r}; a name has up to 32 letters, digits, _ and -, and begins with a letter'
      )
    if [other.lower() for other in names].count(name.lower()) > 1:
      return f'holds {name} twice; give every modality a name of its own'
  if len(names) > MODALITIES:
    return f'holds {len(names)} names; there may be {MODALITIES}'
  return ''


def intensities(entries: tuple[str, ...]) -> str:
  """Each PERCENTILE, ZSCORE or 'window/CENTRE/WIDTH'; at least one."""
  for entry in entries:
    kind, *numbers = entry.split('/')
    is_window = kind == WINDOW and len(numbers) == 2
    if is_window and not centre_and_width(tuple(map(_number, numbers))):
      continue
    if entry not in (PERCENTILE, ZSCORE):
      return (
        f'holds {entry!r}; an entry may be {PERCENTILE}, {ZSCORE} or {WINDOW}/CENTRE/WIDTH, two '
        f'numbers of which the second is above 0, as {WINDOW}/40/400'
      )
  return not_empty(entries)


def _number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return math.nan


def class_names(names: tuple[str, ...]) -> str:
  """Names of mask values from 1 on that differ, and that files and columns can be named by."""
  for name in names:
    if not re.fullmatch('[A-Za-z0-9_-]+', name):
      return f'holds {name!r}; a name may have letters, digits, _ and -'
    if name.lower() == 'background':
      return 'holds background, which is value 0 by itself; name the values from 1 on'
    if name == 'mm':
      return "holds 'mm', but hd95_mm is the distance in millimetres; choose another name"
    if names.count(name) > 1:
      return f'holds {name!r} twice; give every value a name of its own'
  if len(names) > MASK_CLASSES:
    return f'holds {len(names)} names; masks of 8 bits have room for {MASK_CLASSES}'
  return ''


def named_methods(variants: Mapping[str, Any]) -> str:
  """Methods by names that folders can have, each with a strategy and what it changes.

  That of one without pre-training begins with SCRATCH_, so that its name alone tells it.
  """
  for name, fields in variants.items():
    fits = isinstance(name, str) and re.fullmatch('[A-Za-z0-9_][A-Za-z0-9_-]{,99}', name)
    if not fits or name == SCRATCH:
      return (
        f'holds {name!r}; a name may have up to 100 letters, digits, _ and -, and not be {SCRATCH}'
      )
    strategy = fields.get('strategy') if isinstance(fields, Mapping) else None
    if not isinstance(strategy, str):
      return (
        f'holds {name!r}, which has no strategy; give dict(strategy=..., FIELD=VALUE), the name of '
        f'a masking strategy or {SCRATCH}'
      )
    if (strategy == SCRATCH) != name.startswith(SCRATCH_):
      return (
        f'holds {name!r} with strategy={strategy}; names that begin with {SCRATCH_} are those of '
        f'methods without pre-training, whose strategy is {SCRATCH}, and of no others'
      )
  return ''


def _and_finite(value: float) -> str:
  return '' if math.isfinite(value) else ', and finite'
