"""Dermoscopy phantoms: skin lesions drawn from a seed, with exact masks and classes.

An image is built as light meets skin (Beer-Lambert law): each pigment adds optical density to what
lies below it, and the picture is exp(-density). First comes a lesion on bare skin, of which the
mask is exact, then what else a dermatoscope sees: hairs, a ruler, bubbles, a vignette.

The classes differ as clinicians read them (ABCD rule: Asymmetry, Border, Colours, Diameter; Stolz
et al. 1994) and by their structures: nevi are round, even, of one or two colours, with a regular
network or globules; melanomas are lopsided, ragged, of many colours, with an uneven network,
streaks, a veil or regression; seborrheic keratoses are sharply cut, waxy, with milia-like cysts
(bright dots), comedo-like openings (dark dots) and ridges. The traits overlap: there are odd nevi
and early melanomas.
"""

import functools
from typing import NamedTuple

import numpy as np
import scipy
from PIL import Image, ImageDraw

CLASS_NAMES = ('nevus', 'melanoma', 'seborrheic_keratosis')
CLASS_SHARES = (0.5, 0.3, 0.2)
SPLIT_CODES = {'train': 0, 'validation': 1, 'test': 2}

# Optical density per unit of pigment in red, green and blue.
MELANIN = np.array([0.42, 0.86, 1.30], np.float32)
BLOOD = np.array([0.10, 0.75, 0.62], np.float32)
VEIL = np.array([1.10, 0.85, 0.62], np.float32)  # Melanin deep in the dermis looks blue-grey.
KERATIN = np.array([0.10, 0.26, 0.62], np.float32)

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Traits(NamedTuple):
  """What one lesion is like; lengths are shares of the image's side."""

  radius: float
  asymmetry: float  # Relative size of the border's harmonics 1 to 3.
  irregularity: float  # Relative size of its harmonics 4 to 14.
  edge: float  # Width over which the lesion fades into the skin.
  density: float  # Amount of melanin; about 0.25 is faint, 2 is nearly black.
  colours: float  # 0: one colour, 1: many.


class Layers(NamedTuple):
  """A lesion on bare skin."""

  skin: np.ndarray  # Optical density of the skin, float32 [3, S, S].
  lesion: np.ndarray  # Optical density that the lesion adds, per unit of alpha, float32 [3, S, S].
  alpha: np.ndarray  # float32 [S, S] in [0, 1].
  label: int


def generator(seed: int, split: str, index: int) -> np.random.Generator:
  """The source of randomness of phantom `index` of a split; a function of its arguments alone."""
  return np.random.Generator(
    np.random.Philox(np.random.SeedSequence([seed, SPLIT_CODES[split], index]))
  )


def draw(
  rng: np.random.Generator, size: int, channels: int = 3
) -> tuple[np.ndarray, np.ndarray, int]:
  """Draws one phantom.

  Args:
    rng: source of all its randomness.
    size: side in pixels, at least 16.
    channels: 3 for RGB, 1 for grey.

  Returns:
    image: uint8 [size, size, channels].
    mask: uint8 [size, size], 1 where the lesion was laid on the skin with an alpha of at least 0.5.
    label: index into `CLASS_NAMES`.
  """
  layers = draw_layers(rng, size)
  picture = _photograph(rng, np.exp(-_lay_over(rng, layers.skin + layers.alpha * layers.lesion)))
  if channels == 1:
    picture = np.tensordot(LUMA, picture, 1)[None]
  image = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
  mask = (layers.alpha >= 0.5).astype(np.uint8)
  return np.ascontiguousarray(image.transpose(1, 2, 0)), mask, layers.label


def draw_layers(rng: np.random.Generator, size: int) -> Layers:
  """Draws the skin and the lesion of one phantom; `draw` continues from here."""
  label = int(rng.choice(len(CLASS_NAMES), p=CLASS_SHARES))
  traits = _traits(rng, label)
  skin = _skin(rng, size)
  alpha, depth, angle = _outline(rng, size, traits)
  paint = (_nevus, _melanoma, _keratosis)[label]
  return Layers(skin, paint(rng, size, traits, depth, angle), alpha, label)


# Fields of noise and dots. Coordinates run over [0, 1] from the left and from the top.


@functools.lru_cache(maxsize=64)
def _interpolation(size: int, grid: int) -> np.ndarray:
  """Matrix float32 [size, grid] that carries `grid` values to `size` pixels by cubic splines."""
  spread = scipy.ndimage.zoom(
    np.eye(grid, dtype=np.float32), (size / grid, 1), order=3, mode='mirror', grid_mode=False
  )
  return np.ascontiguousarray(spread, np.float32)


@functools.lru_cache(maxsize=8)
def _coordinates(size: int) -> np.ndarray:
  return (np.arange(size, dtype=np.float32) + 0.5) / size


def _noise(
  rng: np.random.Generator, size: int, grids: int | tuple[int, ...], fall: float = 0.6
) -> np.ndarray:
  """Smooth noise, float32 [size, size], mean about 0 and deviation about 1.

  It is a sum of noises, one for each of `grids`, with features 1/grid of the side wide, each `fall`
  times the one before.
  """
  grids = (grids,) if isinstance(grids, int) else grids
  weights = fall ** np.arange(len(grids))
  weights *= 1.25 / np.sqrt((weights**2).sum())
  matrices = [_interpolation(size, grid) for grid in grids]
  values = [
    np.float32(w) * rng.standard_normal((grid, grid), np.float32)
    for w, grid in zip(weights, grids, strict=True)
  ]
  down = np.concatenate([matrix @ value for matrix, value in zip(matrices, values, strict=True)], 1)
  return down @ np.concatenate(matrices, 1).T


def _dots(size: int, x: np.ndarray, y: np.ndarray, radius: np.ndarray, weight=1.0) -> np.ndarray:
  """Sum of Gaussian dots, float32 [size, size].

  X, y and radius (a deviation) in shares of the side.
  """
  line = _coordinates(size)[:, None]
  radius = np.maximum(radius, 0.35 / size)  # A thinner dot would fall between the pixels.
  across = np.exp(-0.5 * ((line - x) / radius) ** 2).astype(np.float32)
  down = np.exp(-0.5 * ((line - y) / radius) ** 2).astype(np.float32) * np.float32(weight)
  return down @ across.T


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
  """Smooth step, 0 at `low` and 1 at `high`."""
  t = np.clip((x - low) / (high - low), 0, 1)
  return t * t * (3 - 2 * t)


def _network(rng: np.random.Generator, size: int, period: float, disorder: float) -> np.ndarray:
  """Pigment network, float32 [size, size]: 1 on the lines of a warped honeycomb, 0 in its holes.

  Three plane waves at 60 degrees have their crests on a hexagonal lattice; what lies between the
  crests is the network.
  """
  period = max(period, 2.6 / size)  # Finer waves would alias.
  wave = 2 * np.pi / period
  turn = rng.uniform(0, np.pi)
  line = _coordinates(size)
  shift_x = disorder * period * _noise(rng, size, (8, 17), 0.7)
  shift_y = disorder * period * _noise(rng, size, (8, 17), 0.7)
  x, y = line[None, :] + shift_x, line[:, None] + shift_y
  total = 0
  for k in range(3):
    angle = turn + k * np.pi / 3 * 2
    total = total + np.cos(
      np.float32(wave * np.cos(angle)) * x + np.float32(wave * np.sin(angle)) * y
    )
  return 1 - _step(total, -1.1, 1.9)


def _mix(*pigments: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """Optical density, float32 [3, S, S], of pigments: each an amount [S, S] and its density in
  red, green and blue, [3].
  """
  amounts = np.stack([np.maximum(amount, 0, dtype=np.float32) for amount, _ in pigments])
  return np.tensordot(np.stack([spectrum for _, spectrum in pigments], 1), amounts, 1)


# Skin.


def _skin(rng: np.random.Generator, size: int) -> np.ndarray:
  """Optical density of bare skin, float32 [3, size, size]."""
  melanin = 0.04 + 0.55 * rng.beta(1.2, 4.5)
  blood = 0.05 + 0.40 * rng.beta(1.6, 3.0)
  mottle = _noise(rng, size, (4, 9, 20, 44, 90), 0.7)
  flush = _noise(rng, size, (3, 7, 16, 40))
  melanin_map = melanin * (1 + rng.uniform(0.05, 0.2) * mottle) + rng.uniform(0.006, 0.022) * mottle
  melanin_map += rng.uniform(0.01, 0.1) * _furrows(rng, size)
  blood_map = np.maximum(blood * (1 + rng.uniform(0.08, 0.3) * flush), 0)
  if rng.random() < 0.35:  # Freckles and sun spots.
    count = int(rng.integers(4, 40))
    x, y = rng.uniform(0, 1, (2, count))
    melanin_map += rng.uniform(0.03, 0.16) * _dots(
      size, x, y, rng.uniform(0.006, 0.025, count), rng.uniform(0.2, 1, count)
    )
  if rng.random() < 0.15:  # Fine vessels: ridges of noise.
    ridge = np.exp(-((_noise(rng, size, 14) / 0.09) ** 2)) * _step(flush, 0.2, 1.2)
    blood_map += rng.uniform(0.1, 0.3) * ridge
  return _mix((np.maximum(melanin_map, 0.01), MELANIN), (blood_map, BLOOD))


def _furrows(rng: np.random.Generator, size: int) -> np.ndarray:
  """Skin lines in two crossing directions, float32 [size, size], about [0, 1]."""
  line = _coordinates(size)
  warp = 0.03 * _noise(rng, size, (5, 12, 26), 0.7)
  total = np.zeros((size, size), np.float32)
  angle = rng.uniform(0, np.pi)
  for turn in (0, rng.uniform(0.9, 1.5)):
    wave = 2 * np.pi * rng.uniform(10, 26)
    position = (
      np.float32(np.cos(angle + turn)) * line[None, :]
      + np.float32(np.sin(angle + turn)) * line[:, None]
      + warp
    )
    total += 0.5 * np.sqrt(np.abs(np.sin(np.float32(wave / 2) * position)))
  return 1 - total


# Lesion: traits, outline, paint.


def _traits(rng: np.random.Generator, label: int) -> Traits:
  severity = rng.beta(
    *((1.6, 4.5), (4.2, 2.0), (2.2, 4.0))[label]
  )  # Of what makes a lesion suspicious.

  def vary(low: float, high: float, spread: float = 0.25) -> float:
    return float((low + (high - low) * severity) * np.exp(spread * rng.standard_normal()))

  faint = rng.random() < 0.15
  density = rng.uniform(0.22, 0.4) if faint else vary(0.75, 1.35, 0.35)
  soft = (0.030, 0.026, 0.010)[label]
  return Traits(
    radius=float(np.clip(vary(0.13, 0.34), 0.07, 0.42)),
    asymmetry=vary(0.05, 0.26),
    irregularity=vary(0.02, 0.13),
    edge=float(np.clip(soft * np.exp(0.5 * rng.standard_normal()), 0.004, 0.08)),
    density=float(np.clip(density * (0.8 if label == 2 else 1.0), 0.2, 2.0)),
    colours=float(np.clip(severity + 0.15 * rng.standard_normal(), 0, 1)),
  )


def _outline(
  rng: np.random.Generator, size: int, traits: Traits
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The lesion's border as a Fourier series in polar coordinates, roughened a little.

  Returns:
    alpha: float32 [size, size] in [0, 1], 0.5 on the border.
    depth: float32 [size, size], 0 at the centre, 1 on the border, above 1 outside.
    angle: float32 [size, size], radians.
  """
  harmonics = np.arange(1, 15)
  amplitude = np.where(
    harmonics <= 3, traits.asymmetry / harmonics**0.5, traits.irregularity / (harmonics / 4) ** 0.8
  )
  amplitude *= rng.standard_normal(14) * np.where(harmonics <= 3, 0.8, 0.45)
  theta = np.linspace(-np.pi, np.pi, 513)
  wobble = (
    amplitude[:, None] * np.cos(harmonics[:, None] * theta + rng.uniform(0, 2 * np.pi, (14, 1)))
  ).sum(0)
  border = np.maximum(traits.radius * np.exp(np.clip(wobble, -1.0, 0.6)), 0.045)
  softness = traits.edge * np.exp(
    0.7 * np.cos(theta + rng.uniform(0, 2 * np.pi)) * min(1.0, 3 * traits.asymmetry)
  )

  reach = max(0.5 - 0.9 * traits.radius, 0.06)
  centre_x, centre_y = 0.5 + np.clip(0.09 * rng.standard_normal(2), -reach, reach)
  stretch, turn = np.exp(0.18 * rng.standard_normal()), rng.uniform(0, np.pi)
  dx = (_coordinates(size) - centre_x)[None, :].astype(np.float32)
  dy = (_coordinates(size) - centre_y)[:, None].astype(np.float32)
  cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
  u, v = (
    (cosine * dx + sine * dy) * np.float32(stretch),
    (cosine * dy - sine * dx) / np.float32(stretch),
  )
  radius, angle = np.sqrt(u * u + v * v), np.arctan2(v, u)

  place = (angle + np.float32(np.pi)) * np.float32(512 / (2 * np.pi))
  index = np.clip(place.astype(np.int32), 0, 511)
  share = place - index.astype(np.float32)
  border, softness = border.astype(np.float32), softness.astype(np.float32)
  border_map = border[index] * (1 - share) + border[index + 1] * share
  rough = (0.006 + 0.07 * traits.irregularity) * _noise(rng, size, (12, 26, 54), 0.75)
  distance = radius - border_map + rough
  alpha = 1 / (1 + np.exp(np.clip(distance / softness[index], -30, 30)))
  return alpha, np.maximum(1 + distance / border_map, 0), angle


def _globules(
  rng: np.random.Generator, depth: np.ndarray, count: int, depths: tuple, radii: tuple
) -> np.ndarray:
  """Round clumps, float32 [size, size] in [0, 1]; depths and radii as (least, most)."""
  size = len(depth)
  rows, columns = np.nonzero((depth >= depths[0]) & (depth <= depths[1]))
  chosen, radius, jitter = (
    rng.uniform(0, 1, count),
    rng.uniform(*radii, count),
    rng.uniform(0, 1, (2, count)),
  )
  if not len(rows):
    return np.zeros_like(depth)
  index = (chosen * len(rows)).astype(int)
  return _step(
    _dots(size, (columns[index] + jitter[0]) / size, (rows[index] + jitter[1]) / size, radius),
    0.25,
    0.8,
  )


def _nevus(
  rng: np.random.Generator, size: int, traits: Traits, depth: np.ndarray, angle: np.ndarray
) -> np.ndarray:
  body = 1 + rng.uniform(0.15, 0.3) * _noise(rng, size, (5, 11, 24, 50), 0.8)
  profile = rng.uniform(-0.55, 0.75)  # Above 0: darker in the centre; below: at the rim.
  body = body + profile * (0.55 - np.minimum(depth, 1.2))
  pattern = rng.random()
  if pattern < 0.6:
    fade = 1 - 0.6 * _step(depth, 0.5, 1.1)
    lines = _network(rng, size, rng.uniform(0.032, 0.052), 0.22 + 0.3 * traits.colours)
    body = body * (1 + rng.uniform(0.3, 1.0) * fade * (lines - 0.6))
  elif pattern < 0.85:
    count = int(rng.integers(40, 120) * (traits.radius / 0.2) ** 1.2)
    low = rng.choice([0.0, 0.6])
    body = body * 0.8 + rng.uniform(0.4, 0.8) * _globules(
      rng, depth, count, (low, 0.95), (0.005, 0.011)
    )
  if traits.colours > 0.4:
    body = body + 0.6 * traits.colours * _step(_noise(rng, size, 5), 0.4, 1.2)
  blood = rng.uniform(0.0, 0.45) * (1 + 0.3 * _noise(rng, size, 5))
  return _mix((traits.density * body, MELANIN), (traits.density * blood, BLOOD))


def _melanoma(
  rng: np.random.Generator, size: int, traits: Traits, depth: np.ndarray, angle: np.ndarray
) -> np.ndarray:
  patches = _noise(rng, size, (3, 6, 13, 28, 60), 0.75)
  body = 0.75 + (0.25 + 0.4 * traits.colours) * patches
  turn = rng.uniform(-np.pi, np.pi)
  body = body * (
    1
    + 0.5 * traits.asymmetry / 0.2 * np.minimum(depth, 1.3) * np.cos(angle - np.float32(turn)) * 0.5
  )
  uneven = _step(_noise(rng, size, 4), -0.6, 0.8)
  lines = _network(rng, size, rng.uniform(0.036, 0.065), 0.28 + 0.3 * traits.colours)
  body = body * (1 + rng.uniform(0.4, 1.1) * uneven * (lines - 0.55))
  count = int(rng.integers(10, 60) * traits.radius / 0.25)
  body = body + rng.uniform(0.3, 0.8) * _globules(rng, depth, count, (0.1, 1.0), (0.004, 0.013))
  if rng.random() < 0.2 + 0.5 * traits.colours:
    body = body + _streaks(rng, size, depth, angle)
  body = body + 1.3 * traits.colours * _step(
    _noise(rng, size, 5), 0.7, 1.5
  )  # Blotches, almost black.
  regression = _step(_noise(rng, size, 4), 0.5, 1.3) * (rng.random() < 0.1 + 0.5 * traits.colours)
  veil = _step(_noise(rng, size, 4), 0.2, 1.1) * (rng.random() < 0.15 + 0.6 * traits.colours)
  blood = rng.uniform(0.05, 0.5) * (0.6 + 0.6 * _noise(rng, size, 4)) + 0.25 * regression
  melanin = np.maximum(body, 0.08) * (1 - 0.8 * regression) * (1 - 0.5 * veil)
  veil = rng.uniform(0.5, 1.1) * traits.density**0.5 * veil
  return _mix((traits.density * melanin, MELANIN), (blood, BLOOD), (veil, VEIL))


def _streaks(
  rng: np.random.Generator, size: int, depth: np.ndarray, angle: np.ndarray
) -> np.ndarray:
  """Radial lines near the border along a part of it, float32 [size, size]."""
  spokes = np.cos(np.float32(rng.integers(24, 44)) * angle + 1.2 * _noise(rng, size, 6))
  sector = _step(
    np.cos(angle - np.float32(rng.uniform(-np.pi, np.pi))), rng.uniform(-0.6, 0.5), 0.9
  )
  rim = _step(depth, 0.55, 0.85) * (1 - _step(depth, 1.1, 1.3))
  return rng.uniform(0.5, 1.2) * _step(spokes, -0.2, 0.9) * sector * rim


def _keratosis(
  rng: np.random.Generator, size: int, traits: Traits, depth: np.ndarray, angle: np.ndarray
) -> np.ndarray:
  body = 0.75 + rng.uniform(0.15, 0.35) * _noise(rng, size, (6, 14, 32, 64), 0.85)
  ridge = np.exp(-((_noise(rng, size, int(rng.integers(8, 14))) / 0.22) ** 2))  # Fissures.
  body = body + rng.uniform(0.0, 0.7) * ridge
  count = int(rng.integers(4, 30) * (traits.radius / 0.22) ** 1.5)
  openings = _globules(rng, depth, count, (0.0, 0.85), (0.006, 0.016))
  count = int(rng.integers(3, 30) * (traits.radius / 0.22) ** 1.5)
  cysts = _globules(rng, depth, count, (0.0, 0.85), (0.004, 0.009))
  body = (body + rng.uniform(0.4, 1.2) * openings) * (1 - rng.uniform(0.3, 0.85) * cysts)
  keratin = rng.uniform(0.1, 0.8) * (1 + 0.4 * _noise(rng, size, 6)) * (1 - 0.8 * cysts)
  grey = rng.uniform(0.0, 0.4) * _step(_noise(rng, size, 5), -0.5, 1.0)
  blood = rng.uniform(0.0, 0.3) * (1 + 0.4 * _noise(rng, size, 5))
  density = traits.density
  return _mix(
    (density * body, MELANIN),
    (density**0.5 * keratin, KERATIN),
    (density * grey, VEIL),
    (density * blood, BLOOD),
  )


# What lies on the skin, and the camera.


def _lay_over(rng: np.random.Generator, density: np.ndarray) -> np.ndarray:
  """Lays hairs and a ruler, each sometimes, over densities float32 [3, S, S]."""
  size = density.shape[1]
  ink = Image.new('L', (3 * size, 3 * size))  # Drawn three times as large, then averaged.
  pen = ImageDraw.Draw(ink)
  amount = rng.random()
  if amount > 0.45:
    _draw_hairs(
      rng, pen, 3 * size, int(rng.integers(1, 9) if amount < 0.8 else rng.integers(10, 36))
    )
  if rng.random() < 0.25:
    _draw_ruler(rng, pen, 3 * size)
  if ink.getbbox() is None:
    return density
  cover = np.asarray(ink.reduce(3), np.float32) / 255
  dark = (rng.uniform(1.2, 2.6) * np.array([0.85, 1.0, 1.1])).astype(np.float32)
  return density + cover * np.maximum(dark[:, None, None] - np.float32(0.7) * density, 0)


def _draw_hairs(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: int, count: int) -> None:
  """Quadratic curves that lie roughly one way, `size` pixels a side."""
  lie = rng.uniform(0, np.pi)
  curl = rng.uniform(0.02, 0.25)
  thickness = rng.uniform(0.0025, 0.008) * size
  t = np.linspace(0, 1, 14)[:, None]
  for _ in range(count):
    start = rng.uniform(-0.1, 1.1, 2)
    angle = lie + 0.45 * rng.standard_normal() + (np.pi if rng.random() < 0.5 else 0)
    along = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.2, 1.0)
    aside = np.array([-along[1], along[0]]) * curl * rng.standard_normal() * 2
    points = start + t * along + 4 * t * (1 - t) * aside / 2
    width = max(1, round(thickness * rng.uniform(0.6, 1.2)))
    pen.line((points * size).ravel().tolist(), fill=int(rng.integers(110, 256)), width=width)


def _draw_ruler(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: int) -> None:
  """A graduated line near one side of the image."""
  angle = rng.integers(4) * np.pi / 2 + 0.2 * rng.standard_normal()
  along, inward = (
    np.array([np.cos(angle), np.sin(angle)]),
    np.array([-np.sin(angle), np.cos(angle)]),
  )
  length, ticks = rng.uniform(0.4, 0.8), int(rng.integers(8, 24))
  middle = np.array([0.5, 0.5]) - inward * rng.uniform(0.34, 0.44) + along * rng.uniform(-0.1, 0.1)
  start = middle - along * length / 2
  fill, width = int(rng.integers(140, 256)), max(1, round(size / 160))
  pen.line([*(start * size), *((start + along * length) * size)], fill=fill, width=width)
  for tick in range(ticks + 1):
    foot = start + along * length * tick / ticks
    head = foot - inward * (0.035 if tick % 5 == 0 else 0.02)
    pen.line([*(foot * size), *(head * size)], fill=fill, width=width)


def _photograph(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
  """Lens and camera: uneven light, bubbles, vignette, white balance, blur, grain.

  Float32 [3, S, S], about [0, 1].
  """
  size = picture.shape[1]
  line = _coordinates(size) - np.float32(0.5)
  slope = rng.normal(0, 0.14, 2).astype(np.float32)
  light = (
    1
    + slope[0] * line[None, :]
    + slope[1] * line[:, None]
    + np.float32(0.03) * _noise(rng, size, 3)
  )
  light -= np.float32(max(0.0, rng.normal(0.2, 0.25))) * (line[None, :] ** 2 + line[:, None] ** 2)
  balance = rng.uniform(0.82, 1.16) * np.exp(np.array([0.03, 0.02, 0.07]) * rng.standard_normal(3))
  if rng.random() < 0.12:
    balance *= (0.82, 0.92, 1.02)  # A bluish camera.
  picture = picture * light * balance.astype(np.float32)[:, None, None]
  if rng.random() < 0.2:
    picture += _bubbles(rng, size)
  if rng.random() < 0.1:  # The dark rim of the dermatoscope.
    offset = rng.normal(0, 0.02, 2).astype(np.float32)
    distance = np.sqrt((line[None, :] - offset[0]) ** 2 + (line[:, None] - offset[1]) ** 2)
    edge = rng.uniform(0.48, 0.62)
    picture *= 1 - _step(distance, edge, edge + 0.02)
  blur = rng.uniform(0.0, 0.006) * size
  if blur > 0.3:
    picture = scipy.ndimage.gaussian_filter(picture, (0, blur, blur), truncate=2.5)
  return picture + np.float32(rng.uniform(0.003, 0.014)) * rng.standard_normal(
    (size, size), np.float32
  )


def _bubbles(rng: np.random.Generator, size: int) -> np.ndarray:
  """Bright rims and glints of bubbles in the immersion fluid, float32 [size, size]."""
  count = int(rng.integers(1, 14))
  x, y = rng.uniform(0, 1, (2, count))
  radius = rng.uniform(0.005, 0.016, count) * rng.choice([1.0, 1.8])
  rim = _dots(size, x, y, radius) - 1.02 * _dots(size, x, y, radius * 0.85)
  glint = _dots(size, x - radius * 0.6, y - radius * 0.6, radius * 0.25)
  return rng.uniform(0.3, 0.9) * (np.clip(rim, -0.04, 1) * 1.8 + 0.8 * np.clip(glint, 0, 1))
