"""The methods that a grid compares: entries of `grid.methods`.

A method is a masking strategy, or 'scratch', and after a colon the fields that are changed for it,
joined by '+'. Those of `masking` go by their name: 'ahm:mask_ratio=0.75+rounds=2'. Those of
`pretrain`, and the agent's of `model`, by their path: 'ahm:pretrain.clip=2'; those of fine-tuning
too: 'scratch:segment.learning_rate=1e-3', 'ahm:transfer.encoder_rate=0.3'; those of classification:
'scratch:classify.input=image+classifier.steps=900'; and which images are labelled:
'ahm:data.labelled_from=FILE'. A key of `grid.variants` is another name of such a text.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ahm_jax.config.build import from_config_dict, to_dict
from ahm_jax.config.fields import Config, GridConfig
from ahm_jax.config.ranges import SCRATCH, SCRATCH_
from ahm_jax.errors import UserError

_NONE: Mapping[str, Any] = MappingProxyType({})
# What a method may change beside fields of `masking`.
_PRE_TRAINING = ('masking', 'pretrain')
_SEGMENTATION = ('segment', 'transfer')
_CLASSIFICATION = ('classify', 'classifier')
_LABELLED = 'data.labelled_from'
_AGENT = ('model.agent_trunk', 'model.agent_width')


class Change(NamedTuple):
  """FIELD=VALUE of a method; `value` is None where there is no '='."""

  field: str
  value: str | None

  @property
  def path(self) -> str:
    """Of the field, in the config."""
    return self.field if '.' in self.field else f'masking.{self.field}'

  @property
  def section(self) -> str:
    """The outermost one that holds the field."""
    return self.path.partition('.')[0]

  def __str__(self) -> str:
    return self.field if self.value is None else f'{self.field}={self.value}'


class Method(NamedTuple):
  """A method, taken apart."""

  strategy: str  # That places the masks of its pre-training; SCRATCH where it has none.
  changes: tuple[Change, ...]

  def __str__(self) -> str:
    return ':'.join(filter(None, [self.strategy, '+'.join(map(str, self.changes))]))


def parse(method: str, variants: Mapping[str, Any] = _NONE) -> Method:
  """Takes an entry of `grid.methods` apart, whether or not there is what it names."""
  if method in variants:
    fields = dict(variants[method])
    strategy = fields.pop('strategy')
    return Method(strategy, tuple(Change(path, _text(value)) for path, value in _flat(fields)))
  strategy, _, text = method.partition(':')
  # A '+' before a digit belongs to a number.
  changes = re.split(r'\+(?!\d)', text) if text else ()
  parts = (change.partition('=') for change in changes)
  return Method(
    strategy, tuple(Change(name, value if equals else None) for name, equals, value in parts)
  )


def with_method(config: Config, method: str) -> Config:
  """The config of the runs that an entry of `grid.methods` names; its `grid` is without one.

  Whether there is such a strategy is left to `ahm_jax.masking.registry`.

  Raises:
    UserError: there is no such field, it may not differ within a grid, or its value is out of its
      range.
  """
  strategy, changes = parse(method, config.grid.variants)
  tree = to_dict(dataclasses.replace(config, grid=GridConfig(methods=(SCRATCH,))))
  if strategy != SCRATCH:
    tree['masking']['strategy'] = strategy
  for change in changes:
    _check(method, strategy, change)
    _put(tree, change.path, _literal(change.value))
  changed = from_config_dict(tree)
  if changed.segment.diagnosis.batch_size and any(map(_is_classification, changes)):
    raise UserError(
      f'config.grid holds {method!r}, whose segmentation tells the diagnosis itself; leave out '
      'segment.diagnosis, or what it changes of classify and classifier'
    )
  return changed


def pretraining_of(method: str, variants: Mapping[str, Any] = _NONE) -> str:
  """The method that pre-trains for `method`: without what it changes of fine-tuning, in the short
  form; '' for 'scratch'.

  Without `variants` this still tells whether one of their names pre-trains.
  """
  strategy, changes = parse(method, variants)
  if strategy.startswith(SCRATCH_):
    return ''
  kept = tuple(change for change in changes if not _is_fine_tuning(change))
  return '' if strategy == SCRATCH else str(Method(strategy, kept))


def segmentation_of(method: str, grid: GridConfig) -> str:
  """The method whose segmentation `method` classifies by: without what it changes of
  classification, by the grid's name for it where there is one.
  """
  strategy, changes = parse(method, grid.variants)
  kept = tuple(change for change in changes if not _is_classification(change))
  return method if kept == changes else _named(str(Method(strategy, kept)), grid)


def pretraining_name(pretraining: str, grid: GridConfig) -> str:
  """How results call a pre-training: as the grid's method that is nothing else, where there is
  one.
  """
  return _named(pretraining, grid)


def _named(short: str, grid: GridConfig) -> str:
  """A method of the grid by its short form, which stands for itself where there is none."""
  same = (name for name in grid.methods if str(parse(name, grid.variants)) == short)
  return next(same, short)


def folder_name(method: str) -> str:
  """A method as a part of a path; its text may name a file."""
  return method.replace('%', '%25').replace('/', '%2F')


def is_tuned(method: str, variants: Mapping[str, Any] = _NONE) -> bool:
  """Whether a method changes how it is fine-tuned."""
  return any(map(_is_fine_tuning, parse(method, variants).changes))


def _check(method: str, strategy: str, change: Change) -> None:
  refused = f'config.grid holds {method!r}, where {str(change)!r} is not'
  of_scratch = change.section in ('segment', *_CLASSIFICATION) or change.path == _LABELLED
  if strategy == SCRATCH and not of_scratch:
    raise UserError(
      f'{refused} segment.FIELD=VALUE, {_LABELLED}=FILE, classify.FIELD=VALUE or '
      'classifier.FIELD=VALUE'
    )
  allowed = change.section in (*_PRE_TRAINING, *_SEGMENTATION, *_CLASSIFICATION)
  allowed |= change.path in (*_AGENT, _LABELLED)
  allowed &= change.path != 'masking.strategy'
  if not change.field or change.value is None or not allowed:
    raise UserError(
      f'{refused} FIELD=VALUE with a field of masking, pretrain.FIELD, segment.FIELD, '
      f'transfer.FIELD, classify.FIELD, classifier.FIELD, {_LABELLED}, model.agent_trunk or '
      'model.agent_width'
    )


def _is_fine_tuning(change: Change) -> bool:
  of_segmentation = change.section in _SEGMENTATION or change.path == _LABELLED
  return of_segmentation or _is_classification(change)


def _is_classification(change: Change) -> bool:
  return change.section in _CLASSIFICATION


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
  """Sets a field by its path; raises a UserError where a section of that name is a field."""
  *sections, name = path.split('.')
  for section in sections:
    tree = tree.setdefault(section, {})
    if not isinstance(tree, dict):
      raise UserError(f'config has no field {path}: {section} is no section')
  tree[name] = value


def _flat(fields: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Fields of nested sections by their path, in alphabetical order."""
  for name, value in sorted(fields.items()):
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _text(value: Any) -> str:
  """A value as the short form has it, where '+' begins another field."""
  return str(value).replace('e+', 'e') if isinstance(value, float) else str(value)


def _literal(text: str | None) -> Any:
  """A number, truth value or tuple as Python writes it; else the text itself."""
  try:
    return ast.literal_eval(str(text))
  except (SyntaxError, ValueError):
    return text
