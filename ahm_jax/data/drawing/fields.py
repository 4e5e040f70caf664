"""Fields of noise, dots and lines, and what pigments make of them.

Coordinates run over [0, 1] from the left and from the top.
"""

import functools

import numpy as np
import scipy

# Optical density per unit of pigment in red, green and blue.
MELANIN = np.array([0.42, 0.86, 1.30], np.float32)
BLOOD = np.array([0.10, 0.75, 0.62], np.float32)
VEIL = np.array([1.10, 0.85, 0.62], np.float32)  # Melanin deep in the dermis looks blue-grey.
KERATIN = np.array([0.10, 0.26, 0.62], np.float32)


@functools.lru_cache(maxsize=64)
def _interpolation(size: int, grid: int) -> np.ndarray:
  """Matrix float32 [size, grid] that carries `grid` values to `size` pixels by cubic splines."""
  spread = scipy.ndimage.zoom(
    np.eye(grid, dtype=np.float32), (size / grid, 1), order=3, mode='mirror', grid_mode=False
  )
  return np.ascontiguousarray(spread, np.float32)


@functools.lru_cache(maxsize=8)
def coordinates(size: int) -> np.ndarray:
  return (np.arange(size, dtype=np.float32) + 0.5) / size


def noise(
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


def dots(size: int, x: np.ndarray, y: np.ndarray, radius: np.ndarray, weight=1.0) -> np.ndarray:
  """Sum of Gaussian dots, float32 [size, size].

  X, y and radius (a deviation) in shares of the side.
  """
  line = coordinates(size)[:, None]
  radius = np.maximum(radius, 0.35 / size)  # A thinner dot would fall between the pixels.
  across = np.exp(-0.5 * ((line - x) / radius) ** 2).astype(np.float32)
  down = np.exp(-0.5 * ((line - y) / radius) ** 2).astype(np.float32) * np.float32(weight)
  return down @ across.T


def step(x: np.ndarray, low: float, high: float) -> np.ndarray:
  """Smooth step, 0 at `low` and 1 at `high`."""
  t = np.clip((x - low) / (high - low), 0, 1)
  return t * t * (3 - 2 * t)


def network(rng: np.random.Generator, size: int, period: float, disorder: float) -> np.ndarray:
  """Pigment network, float32 [size, size]: 1 on the lines of a warped honeycomb, 0 in its holes.

  Three plane waves at 60 degrees have their crests on a hexagonal lattice; what lies between the
  crests is the network.
  """
  period = max(period, 2.6 / size)  # Finer waves would alias.
  wave = 2 * np.pi / period
  turn = rng.uniform(0, np.pi)
  line = coordinates(size)
  shift_x = disorder * period * noise(rng, size, (8, 17), 0.7)
  shift_y = disorder * period * noise(rng, size, (8, 17), 0.7)
  x, y = line[None, :] + shift_x, line[:, None] + shift_y
  total = np.zeros((size, size), np.float32)
  for k in range(3):
    angle = turn + k * np.pi / 3 * 2
    total = total + np.cos(
      np.float32(wave * np.cos(angle)) * x + np.float32(wave * np.sin(angle)) * y
    )
  return 1 - step(total, -1.1, 1.9)


def mix(*pigments: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
  """Optical density, float32 [3, S, S], of pigments: each an amount [S, S] and its density in
  red, green and blue, [3].
  """
  amounts = np.stack([np.maximum(amount, 0, dtype=np.float32) for amount, _ in pigments])
  return np.tensordot(np.stack([spectrum for _, spectrum in pigments], 1), amounts, 1)
