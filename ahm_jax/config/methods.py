"""The methods that a grid compares: entries of `grid.methods`."""

import ast
import dataclasses

from ahm_jax.config.build import from_config_dict, to_dict
from ahm_jax.config.fields import SCRATCH, Config, GridConfig
from ahm_jax.errors import UserError

_CHANGED_BY_METHOD = (
  '',
  'masking',
  'pretrain',
  'segment',
  'transfer',
)  # Parts of the config, see `with_method`.
_FINE_TUNING = ('segment.', 'transfer.')


def with_method(config: Config, method: str) -> Config:
  """The config of the runs that an entry of `grid.methods` names; its `grid` is without one.

  Args:
    method: a masking strategy, or 'scratch'; after a colon, fields that are changed for it, joined
      by '+'. Those of `masking` go by their name: 'ahm:mask_ratio=0.75+rounds=2'; those of
      `pretrain`, and the agent's of `model`, by their path: 'ahm:pretrain.clip=2'; those of
      fine-tuning too: 'scratch:segment.learning_rate=1e-3', 'ahm:transfer.encoder_rate=0.3'.

  Raises:
    UserError: there is no such strategy or field, the field may not differ within a grid, or its
      value is out of its range.
  """
  strategy, _, changes = method.partition(':')
  tree = to_dict(dataclasses.replace(config, grid=GridConfig(methods=(SCRATCH,))))
  if strategy != SCRATCH:
    tree['masking']['strategy'] = strategy
  for change in changes.split('+') if changes else ():
    name, equals, text = change.partition('=')
    part, _, field_name = name.rpartition('.')
    if strategy == SCRATCH and part != 'segment':
      raise UserError(
        f'config.grid.methods holds {method!r}, where {change!r} is not segment.FIELD=VALUE'
      )
    if not equals or not (
      part in _CHANGED_BY_METHOD or name in ('model.agent_trunk', 'model.agent_width')
    ):
      raise UserError(
        f'config.grid.methods holds {method!r}, where {change!r} is not FIELD=VALUE with a field of masking, pretrain.FIELD, '
        'segment.FIELD, transfer.FIELD, model.agent_trunk or model.agent_width'
      )
    tree[part or 'masking'][field_name] = _literal(text)
  return from_config_dict(tree)


def pretraining_of(method: str) -> str:
  """The entry of `grid.methods` that pre-trains for `method`: without what `method` changes of
  fine-tuning; '' for 'scratch'.
  """
  strategy, _, changes = method.partition(':')
  kept = [change for change in changes.split('+') if not change.startswith(_FINE_TUNING)]
  return '' if strategy == SCRATCH else ':'.join([strategy, *filter(None, ['+'.join(kept)])])


def is_tuned(method: str) -> bool:
  """Whether an entry of `grid.methods` changes how it is fine-tuned."""
  return any(change.startswith(_FINE_TUNING) for change in method.partition(':')[2].split('+'))


def _literal(text: str):
  """A number, truth value or tuple as Python writes it; else the text itself."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text
