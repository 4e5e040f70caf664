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

from ahm_jax.config import Config

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
  """The config without folders of this machine: of what it started from, the name alone."""
  return dataclasses.replace(
    config,
    init_from=Path(config.init_from).name,
    data=dataclasses.replace(config.data, root='', prepared_dir=''),
    model=dataclasses.replace(config.model, vgg_weights=Path(config.model.vgg_weights).name),
    grid=dataclasses.replace(config.grid, results=()),
  )


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
