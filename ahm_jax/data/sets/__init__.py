"""The data sets that config.data.name may name."""

import difflib

from ahm_jax.config import DataConfig
from ahm_jax.data.sets import folder, isic2018, nnunet, phantom, phantom_mri
from ahm_jax.data.sets.source import DatasetSource
from ahm_jax.errors import UserError

SOURCES: tuple[DatasetSource, ...] = (
  phantom.SOURCE,
  phantom_mri.SOURCE,
  folder.SOURCE,
  isic2018.SOURCE,
  nnunet.SOURCE,
)


def find(config: DataConfig) -> DatasetSource:
  """The data set that a config names, which has what that needs.

  Raises:
    UserError: there is none of this name, or the config does not fit it.
  """
  by_name = {source.name: source for source in SOURCES}
  if config.name not in by_name:
    near = difflib.get_close_matches(str(config.name), by_name, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise UserError(f'config.data.name is {config.name!r}; it may be {", ".join(by_name)}{hint}')
  source = by_name[config.name]
  source.check(config)
  return source


def check(config: DataConfig) -> None:
  """Raises a UserError where `find` does."""
  find(config)
