"""An axial slice of a brain in several MRI sequences: one anatomy, whose tissues each of them shows
in other grey levels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ahm_jax.data.drawing.fields import coordinates, noise, step

# Signal of each tissue by sequence, of 1. A lesion is as bright as grey matter in FLAIR and T1, as
# fluid in T2: no sequence by itself tells it from both, T2 with another one does.
CONTRASTS: Mapping[str, Mapping[str, float]] = {
  'flair': {'scalp': 0.55, 'fluid': 0.12, 'grey': 0.65, 'white': 0.45, 'lesion': 0.65},
  't1': {'scalp': 0.80, 'fluid': 0.18, 'grey': 0.45, 'white': 0.70, 'lesion': 0.45},
  't2': {'scalp': 0.50, 'fluid': 0.90, 'grey': 0.60, 'white': 0.38, 'lesion': 0.90},
}
_EDGE = 0.015  # Half of the width over which a tissue fades into the next, of the side.
_BIAS = 0.12  # Of the coil's sensitivity, as a share of the signal.
_GAIN = 0.15  # By how much the signal of a sequence differs from patient to patient.
_NOISE = 0.03  # Standard deviation of each part of the complex signal.


class Ellipse(NamedTuple):
  """Lengths are shares of the image's side."""

  x: float
  y: float
  width: float  # Half axes.
  height: float
  angle: float = 0.0  # Radians.


class Anatomy(NamedTuple):
  """What lies where: by tissue, from below to above, how much of a pixel it covers where nothing is
  above it, float32 [S, S] in [0, 1].
  """

  layers: Sequence[tuple[str, np.ndarray]]
  lesion: np.ndarray  # The same of all lesions, which are the last layer.


def draw_anatomy(rng: np.random.Generator, size: int) -> Anatomy:
  """Head, brain, ventricles, and in the white matter islands of grey matter, pockets of fluid and
  lesions, one to three of each, of one kind of shape.
  """
  wave = noise(rng, size, (4, 7), 0.7) * 0.012
  folds = noise(rng, size, (9, 17), 0.8) * 0.02
  x, y = rng.normal(0.5, 0.01, 2)
  height = rng.uniform(0.42, 0.46)
  width = height * rng.uniform(0.78, 0.88)
  head = Ellipse(x, y, width, height, rng.normal(0, 0.04))
  layers = [
    ('scalp', _cover(head, size)),
    ('air', _cover(_within(head, 0.93), size)),  # Bone has no signal.
    ('fluid', _cover(_within(head, 0.86), size)),
    ('grey', _cover(_within(head, 0.83), size, wave)),
    ('white', _cover(_within(head, 0.70), size, wave + folds)),
  ]
  for side in (-1, 1):
    lean = side * rng.uniform(0.2, 0.4)
    ventricle = Ellipse(
      x + side * 0.055, y - 0.02, rng.uniform(0.018, 0.03), rng.uniform(0.08, 0.12), lean
    )
    layers.append(('fluid', _cover(ventricle, size)))
    nucleus = Ellipse(x + side * 0.13, y + 0.03, 0.035, rng.uniform(0.05, 0.07), -lean)
    layers.append(('grey', _cover(nucleus, size)))
  spots = _Spots(rng, head, size)
  layers += [('grey', spots.draw()) for _ in range(rng.integers(1, 4))]
  layers += [('fluid', spots.draw()) for _ in range(rng.integers(1, 4))]
  lesion = np.max([spots.draw() for _ in range(rng.integers(1, 4))], axis=0)
  return Anatomy([*layers, ('lesion', lesion)], lesion)


def show(rng: np.random.Generator, anatomy: Anatomy, sequence: str) -> np.ndarray:
  """The anatomy in one of CONTRASTS, as a magnitude image, float32 [S, S], about in [0, 1]: with a
  bias field, a gain and Rician noise of its own.
  """
  size = len(anatomy.lesion)
  signal = np.zeros((size, size), np.float32)
  for tissue, cover in anatomy.layers:
    signal += cover * (np.float32(CONTRASTS[sequence].get(tissue, 0.0)) - signal)
  bias = 1 + _BIAS * noise(rng, size, 3) / 2
  gain = rng.uniform(1 - _GAIN, 1)
  real, imaginary = rng.normal(0, _NOISE, (2, size, size))
  return np.hypot(gain * bias * signal + real, imaginary).astype(np.float32)


class _Spots:
  """Ellipses in the white matter: of whatever kind, of the same sizes and places."""

  def __init__(self, rng: np.random.Generator, head: Ellipse, size: int):
    self._rng, self._head, self._size = rng, head, size

  def draw(self) -> np.ndarray:
    """As of a layer."""
    rng, head = self._rng, self._head
    direction, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.58)
    spot = Ellipse(
      head.x + share * head.width * np.cos(direction),
      head.y + share * head.height * np.sin(direction),
      rng.uniform(0.035, 0.08),
      rng.uniform(0.035, 0.08),
      rng.uniform(0, np.pi),
    )
    ragged = np.clip(noise(rng, self._size, (8, 15), 0.7), -2, 2)  # So that no spot vanishes.
    return _cover(spot, self._size, 0.01 * ragged)


def _within(ellipse: Ellipse, share: float) -> Ellipse:
  """The same, smaller."""
  return ellipse._replace(width=share * ellipse.width, height=share * ellipse.height)


def _cover(ellipse: Ellipse, size: int, shift: np.ndarray | float = 0.0) -> np.ndarray:
  """How much of each pixel lies in an ellipse, whose border is `shift` [S, S] further out."""
  line = coordinates(size)
  right, down = line[None, :] - ellipse.x, line[:, None] - ellipse.y
  cos, sin = np.cos(ellipse.angle), np.sin(ellipse.angle)
  across = (right * cos + down * sin) / ellipse.width
  along = (down * cos - right * sin) / ellipse.height
  radius = min(ellipse.width, ellipse.height)
  inside = (1 - np.hypot(across, along)) * radius + shift  # About the distance from the border.
  return step(inside, -_EDGE, _EDGE).astype(np.float32)
