"""Bare skin."""

import numpy as np

from ahm_jax.data.drawing.fields import BLOOD, MELANIN, coordinates, dots, mix, noise, step


def draw_skin(rng: np.random.Generator, size: int) -> np.ndarray:
  """Optical density of bare skin, float32 [3, size, size]."""
  melanin = 0.04 + 0.55 * rng.beta(1.2, 4.5)
  blood = 0.05 + 0.40 * rng.beta(1.6, 3.0)
  mottle = noise(rng, size, (4, 9, 20, 44, 90), 0.7)
  flush = noise(rng, size, (3, 7, 16, 40))
  melanin_map = melanin * (1 + rng.uniform(0.05, 0.2) * mottle) + rng.uniform(0.006, 0.022) * mottle
  melanin_map += rng.uniform(0.01, 0.1) * _furrows(rng, size)
  blood_map = np.maximum(blood * (1 + rng.uniform(0.08, 0.3) * flush), 0)
  if rng.random() < 0.35:  # Freckles and sun spots.
    count = int(rng.integers(4, 40))
    x, y = rng.uniform(0, 1, (2, count))
    melanin_map += rng.uniform(0.03, 0.16) * dots(
      size, x, y, rng.uniform(0.006, 0.025, count), rng.uniform(0.2, 1, count)
    )
  if rng.random() < 0.15:  # Fine vessels: ridges of noise.
    ridge = np.exp(-((noise(rng, size, 14) / 0.09) ** 2)) * step(flush, 0.2, 1.2)
    blood_map += rng.uniform(0.1, 0.3) * ridge
  return mix((np.maximum(melanin_map, 0.01), MELANIN), (blood_map, BLOOD))


def _furrows(rng: np.random.Generator, size: int) -> np.ndarray:
  """Skin lines in two crossing directions, float32 [size, size], about [0, 1]."""
  line = coordinates(size)
  warp = 0.03 * noise(rng, size, (5, 12, 26), 0.7)
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
