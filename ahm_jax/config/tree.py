"""The fields of a config, section by section, with what stands beside them in `fields`."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from ahm_jax.config.fields import STAGES, UsedBy
from ahm_jax.config.ranges import one_of


class Leaf(NamedTuple):
  """A field that is not a section."""

  name: str  # With those of its sections, and dots between them.
  value: Any
  type: Any  # Without what `Annotated` adds to it,
  notes: tuple[Any, ...]  # which are these.
  stages: frozenset[str]  # Whose result depends on it.

  def fault(self) -> str:
    """What is wrong with its value, as `ranges` say it; '' where nothing is."""
    if self.value is None:
      return ''
    ranges = [note for note in self.notes if callable(note)]
    if typing.get_origin(self.type) is Literal:
      ranges.append(one_of(*typing.get_args(self.type)))
    return next(filter(None, (check(self.value) for check in ranges)), '')


def types(section: Any) -> Mapping[str, Any]:
  """The types of a section's fields, by name."""
  return typing.get_type_hints(type(section))


def _notes(section: Any) -> Mapping[str, tuple[Any, ...]]:
  annotated = typing.get_type_hints(type(section), include_extras=True)
  return {name: getattr(item, '__metadata__', ()) for name, item in annotated.items()}


def leaves(
  section: Any,
  prefix: str = '',
  stages: frozenset[str] = frozenset(STAGES),
) -> Iterator[Leaf]:
  """All fields of a config, or of a section that is called `prefix` and used by `stages`."""
  all_types, all_notes = types(section), _notes(section)
  for item in dataclasses.fields(section):
    name, value, notes = prefix + item.name, getattr(section, item.name), all_notes[item.name]
    used = stages.intersection(*(note.stages for note in notes if isinstance(note, UsedBy)))
    if dataclasses.is_dataclass(value):
      yield from leaves(value, f'{name}.', used)
    else:
      yield Leaf(name, value, all_types[item.name], notes, used)
