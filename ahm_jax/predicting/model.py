"""A trained U-Net, ready to be used, from whatever a folder holds one in."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from ahm_jax import checkpoint, checkpoint_files, rundir
from ahm_jax.config import Config
from ahm_jax.errors import UserError
from ahm_jax.interop import trained as exported
from ahm_jax.models.layers import init_variables
from ahm_jax.training import segment

LESION = 'lesion'  # The one class of binary masks.


@dataclass(frozen=True, eq=False)
class Segmenter:
  """A trained U-Net with all that using it needs.

  Attributes:
    path: the folder that it came from.
    kind: what that is, for messages: 'segment run', or 'export'.
    config: that it was trained with.
    step: of its training.
    variables: {'params', 'batch_stats'}, float32 arrays in nested dicts.
  """

  path: Path
  kind: str
  config: Config
  step: int
  variables: Any

  @property
  def image_size(self) -> int:
    """Side S in pixels of the square that it sees."""
    return self.config.data.image_size

  @property
  def channels(self) -> int:
    """3: RGB; 1: grey."""
    return self.config.data.channels

  @property
  def mask_classes(self) -> tuple[str, ...]:
    """Names of the K classes of its masks, whose values are 1, 2, ...; empty: its masks are binary."""
    return self.config.data.mask_classes

  @property
  def class_names(self) -> tuple[str, ...]:
    """As `mask_classes`, with LESION for the one of binary masks."""
    return self.mask_classes or (LESION,)

  @functools.cached_property
  def probabilities(self) -> Callable[[Any, jax.Array], jax.Array]:
    """A pure function (variables, images uint8 [B, S, S, C]) -> float32 [B, S, S]; with K classes [B, S, S, K + 1]."""
    return functools.partial(segment.probabilities, segment.network(self.config.model, len(self.mask_classes)))

  @functools.cached_property
  def digest(self) -> str:
    """A SHA-256 over all its weights."""
    return checkpoint_files.digest(self.variables)


def load_segmenter(path: Path) -> Segmenter:
  """Loads a U-Net that was trained to segment.

  Args:
    path: the workdir of a segmentation run, of which the best checkpoint is taken, or what another of `LOADERS` knows.

  Raises:
    UserError: it holds none, one of another task, or weights that do not fit its config.
  """
  path = Path(path).expanduser()
  if not path.is_dir():
    raise UserError(f'--checkpoint={path}: there is no such folder; give the workdir of a segment run')
  for file, load in LOADERS.items():
    if (path / file).exists():
      return checked(load(path))
  raise UserError(f'--checkpoint={path} holds no {" and no ".join(LOADERS)}; give the workdir of a segment run')


def checked(segmenter: Segmenter) -> Segmenter:
  """The segmenter itself; raises a UserError where its weights have other shapes than its config asks for."""
  config = segmenter.config
  wanted, held = _shapes(_expected(config)), _shapes(segmenter.variables)
  for name in sorted(wanted.keys() | held.keys()):
    if wanted.get(name) != held.get(name):
      raise UserError(
        f'{segmenter.path}: {name} is {_said(held.get(name))} in its weights but {_said(wanted.get(name))} by its config '
        f'(width {config.model.unet_width}, {segmenter.channels} channels, {len(segmenter.class_names)} mask classes); '
        f'give a {segmenter.kind} whose weights and config belong together'
      )
  return segmenter


def _expected(config: Config) -> Any:
  """Shapes of the variables of a config's U-Net."""
  unet = segment.network(config.model, len(config.data.mask_classes))
  side = config.data.image_size
  variables = jax.eval_shape(lambda: init_variables(unet, jax.random.key(0), (1, side, side, config.data.channels)))
  return {name: variables[name] for name in ('params', 'batch_stats')}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape) for path, leaf in leaves}


def _said(shape: tuple[int, ...] | None) -> str:
  return 'not there' if shape is None else 'x'.join(map(str, shape)) or 'a number'


def _from_run(path: Path) -> Segmenter:
  _, config = rundir.read(path, ('segment',))
  best = checkpoint.load_variables(path, best=True)
  variables = {name: best[name] for name in ('params', 'batch_stats')}
  return Segmenter(path, 'segment run', config, int(best['step']), variables)


def _from_export(path: Path) -> Segmenter:
  trained = exported.load_export(path, ('segment',), '--checkpoint')
  return Segmenter(path, 'export', trained.config, trained.step, trained.variables)


# What a folder is known by, and how it is loaded.
LOADERS: dict[str, Callable[[Path], Segmenter]] = {rundir.FILE: _from_run, exported.FILE: _from_export}
