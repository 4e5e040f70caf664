"""What leaves this machine in an export: texts that are nothing but texts wherever a model card is
shown, and no path of this machine.
"""

import contextlib
import dataclasses
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import jax

from ahm_jax.config import Config, GridConfig

# Marks of Markdown and HTML; within a word, an underscore is none.
_MARKS = re.compile(r'[\\`*\[\]<>|&~$]|(?<![^\W_])_|_(?![^\W_])')
_SPACE = re.compile(r'\s+')
# Which show a text in another order than it is written in.
_TURNING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F), '�')


def plain(text: str) -> str:
  """A text on one line of Markdown, of which nothing is a mark, a table cell, a link or HTML."""
  line = _SPACE.sub(' ', text).strip().translate(_TURNING)
  shown = ''.join('�' if unicodedata.category(sign) in ('Cc', 'Cs') else sign for sign in line)
  return _MARKS.sub(lambda found: f'\\{found[0]}', shown)


def without_paths(config: Config) -> Config:
  """The config without folders of this machine: of what it learnt from, the names alone; and
  without its grid, whose methods may name others.
  """
  data, model, segment = config.data, config.model, config.segment
  unlabelled = dataclasses.replace(segment.unlabelled, teacher=_name(segment.unlabelled.teacher))
  labelled_from = _name(data.labelled_from)
  return dataclasses.replace(
    config,
    init_from=_name(config.init_from),
    data=dataclasses.replace(data, root='', prepared_dir='', labelled_from=labelled_from),
    model=dataclasses.replace(model, vgg_weights=_name(model.vgg_weights)),
    segment=dataclasses.replace(segment, unlabelled=unlabelled),
    grid=GridConfig(),
  )


def _name(path: str) -> str:
  return Path(path).name


@contextlib.contextmanager
def without_source_folders() -> Iterator[None]:
  """Programs that JAX lowers meanwhile name the files that they come from without their folders."""
  option = 'jax_hlo_source_file_canonicalization_regex'
  before = getattr(jax.config, option)
  jax.config.update(option, r'.*[/\\]')
  try:
    yield
  finally:
    jax.config.update(option, before)
