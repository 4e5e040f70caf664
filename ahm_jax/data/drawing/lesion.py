"""A lesion: its traits, its outline, and how each class is painted."""

from typing import NamedTuple

import numpy as np

from ahm_jax.data.drawing.fields import (
  BLOOD,
  KERATIN,
  MELANIN,
  VEIL,
  coordinates,
  dots,
  mix,
  network,
  noise,
  step,
)


class Traits(NamedTuple):
  """What one lesion is like; lengths are shares of the image's side."""

  radius: float
  asymmetry: float  # Relative size of the border's harmonics 1 to 3.
  irregularity: float  # Relative size of its harmonics 4 to 14.
  edge: float  # Width over which the lesion fades into the skin.
  density: float  # Amount of melanin; about 0.25 is faint, 2 is nearly black.
  colours: float  # 0: one colour, 1: many.


class Outline(NamedTuple):
  """Where a lesion lies, by pixel."""

  alpha: np.ndarray  # float32 [size, size] in [0, 1], 0.5 on the border.
  depth: np.ndarray  # float32 [size, size], 0 at the centre, 1 on the border, above 1 outside.
  angle: np.ndarray  # float32 [size, size], radians.


def draw_traits(rng: np.random.Generator, label: int) -> Traits:
  # Of what makes a lesion suspicious.
  severity = rng.beta(*((1.6, 4.5), (4.2, 2.0), (2.2, 4.0))[label])

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


def draw_outline(rng: np.random.Generator, size: int, traits: Traits) -> Outline:
  """The lesion's border as a Fourier series in polar coordinates, roughened a little."""
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
  dx = (coordinates(size) - centre_x)[None, :].astype(np.float32)
  dy = (coordinates(size) - centre_y)[:, None].astype(np.float32)
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
  rough = (0.006 + 0.07 * traits.irregularity) * noise(rng, size, (12, 26, 54), 0.75)
  distance = radius - border_map + rough
  alpha = 1 / (1 + np.exp(np.clip(distance / softness[index], -30, 30)))
  return Outline(alpha, np.maximum(1 + distance / border_map, 0), angle)


def _globules(
  rng: np.random.Generator,
  depth: np.ndarray,
  count: int,
  depths: tuple[float, float],
  radii: tuple[float, float],
) -> np.ndarray:
  """Round clumps, float32 [size, size] in [0, 1]; depths and radii as (least, most)."""
  size = len(depth)
  rows, columns = np.nonzero((depth >= depths[0]) & (depth <= depths[1]))
  chosen, radius, jitter = (
    rng.uniform(0, 1, count),
    rng.uniform(radii[0], radii[1], count),
    rng.uniform(0, 1, (2, count)),
  )
  if not len(rows):
    return np.zeros_like(depth)
  index = (chosen * len(rows)).astype(int)
  return step(
    dots(size, (columns[index] + jitter[0]) / size, (rows[index] + jitter[1]) / size, radius),
    0.25,
    0.8,
  )


def paint_nevus(rng: np.random.Generator, traits: Traits, outline: Outline) -> np.ndarray:
  size, depth = len(outline.depth), outline.depth
  body = 1 + rng.uniform(0.15, 0.3) * noise(rng, size, (5, 11, 24, 50), 0.8)
  profile = rng.uniform(-0.55, 0.75)  # Above 0: darker in the centre; below: at the rim.
  body = body + profile * (0.55 - np.minimum(depth, 1.2))
  pattern = rng.random()
  if pattern < 0.6:
    fade = 1 - 0.6 * step(depth, 0.5, 1.1)
    lines = network(rng, size, rng.uniform(0.032, 0.052), 0.22 + 0.3 * traits.colours)
    body = body * (1 + rng.uniform(0.3, 1.0) * fade * (lines - 0.6))
  elif pattern < 0.85:
    count = int(rng.integers(40, 120) * (traits.radius / 0.2) ** 1.2)
    low = rng.choice([0.0, 0.6])
    body = body * 0.8 + rng.uniform(0.4, 0.8) * _globules(
      rng, depth, count, (low, 0.95), (0.005, 0.011)
    )
  if traits.colours > 0.4:
    body = body + 0.6 * traits.colours * step(noise(rng, size, 5), 0.4, 1.2)
  blood = rng.uniform(0.0, 0.45) * (1 + 0.3 * noise(rng, size, 5))
  return mix((traits.density * body, MELANIN), (traits.density * blood, BLOOD))


def paint_melanoma(rng: np.random.Generator, traits: Traits, outline: Outline) -> np.ndarray:
  size, depth = len(outline.depth), outline.depth
  patches = noise(rng, size, (3, 6, 13, 28, 60), 0.75)
  body = 0.75 + (0.25 + 0.4 * traits.colours) * patches
  turn = rng.uniform(-np.pi, np.pi)
  body = body * (
    1
    + 0.5
    * traits.asymmetry
    / 0.2
    * np.minimum(depth, 1.3)
    * np.cos(outline.angle - np.float32(turn))
    * 0.5
  )
  uneven = step(noise(rng, size, 4), -0.6, 0.8)
  lines = network(rng, size, rng.uniform(0.036, 0.065), 0.28 + 0.3 * traits.colours)
  body = body * (1 + rng.uniform(0.4, 1.1) * uneven * (lines - 0.55))
  count = int(rng.integers(10, 60) * traits.radius / 0.25)
  body = body + rng.uniform(0.3, 0.8) * _globules(rng, depth, count, (0.1, 1.0), (0.004, 0.013))
  if rng.random() < 0.2 + 0.5 * traits.colours:
    body = body + _streaks(rng, size, outline)
  # Blotches, almost black.
  body = body + 1.3 * traits.colours * step(noise(rng, size, 5), 0.7, 1.5)
  regression = step(noise(rng, size, 4), 0.5, 1.3) * (rng.random() < 0.1 + 0.5 * traits.colours)
  veil = step(noise(rng, size, 4), 0.2, 1.1) * (rng.random() < 0.15 + 0.6 * traits.colours)
  blood = rng.uniform(0.05, 0.5) * (0.6 + 0.6 * noise(rng, size, 4)) + 0.25 * regression
  melanin = np.maximum(body, 0.08) * (1 - 0.8 * regression) * (1 - 0.5 * veil)
  veil = rng.uniform(0.5, 1.1) * traits.density**0.5 * veil
  return mix((traits.density * melanin, MELANIN), (blood, BLOOD), (veil, VEIL))


def _streaks(rng: np.random.Generator, size: int, outline: Outline) -> np.ndarray:
  """Radial lines near the border along a part of it, float32 [size, size]."""
  depth, angle = outline.depth, outline.angle
  spokes = np.cos(np.float32(rng.integers(24, 44)) * angle + 1.2 * noise(rng, size, 6))
  sector = step(np.cos(angle - np.float32(rng.uniform(-np.pi, np.pi))), rng.uniform(-0.6, 0.5), 0.9)
  rim = step(depth, 0.55, 0.85) * (1 - step(depth, 1.1, 1.3))
  return rng.uniform(0.5, 1.2) * step(spokes, -0.2, 0.9) * sector * rim


def paint_keratosis(rng: np.random.Generator, traits: Traits, outline: Outline) -> np.ndarray:
  size, depth = len(outline.depth), outline.depth
  body = 0.75 + rng.uniform(0.15, 0.35) * noise(rng, size, (6, 14, 32, 64), 0.85)
  ridge = np.exp(-((noise(rng, size, int(rng.integers(8, 14))) / 0.22) ** 2))  # Fissures.
  body = body + rng.uniform(0.0, 0.7) * ridge
  count = int(rng.integers(4, 30) * (traits.radius / 0.22) ** 1.5)
  openings = _globules(rng, depth, count, (0.0, 0.85), (0.006, 0.016))
  count = int(rng.integers(3, 30) * (traits.radius / 0.22) ** 1.5)
  cysts = _globules(rng, depth, count, (0.0, 0.85), (0.004, 0.009))
  body = (body + rng.uniform(0.4, 1.2) * openings) * (1 - rng.uniform(0.3, 0.85) * cysts)
  keratin = rng.uniform(0.1, 0.8) * (1 + 0.4 * noise(rng, size, 6)) * (1 - 0.8 * cysts)
  grey = rng.uniform(0.0, 0.4) * step(noise(rng, size, 5), -0.5, 1.0)
  blood = rng.uniform(0.0, 0.3) * (1 + 0.4 * noise(rng, size, 5))
  density = traits.density
  return mix(
    (density * body, MELANIN),
    (density**0.5 * keratin, KERATIN),
    (density * grey, VEIL),
    (density * blood, BLOOD),
  )
