"""What lies on the skin, and the camera."""

import numpy as np
import scipy
from PIL import Image, ImageDraw

from ahm_jax.data.drawing.fields import coordinates, dots, noise, step


def lay_over(rng: np.random.Generator, density: np.ndarray) -> np.ndarray:
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


def photograph(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
  """Lens and camera: uneven light, bubbles, vignette, white balance, blur, grain.

  Float32 [3, S, S], about [0, 1].
  """
  size = picture.shape[1]
  line = coordinates(size) - np.float32(0.5)
  slope = rng.normal(0, 0.14, 2).astype(np.float32)
  light = (
    1 + slope[0] * line[None, :] + slope[1] * line[:, None] + np.float32(0.03) * noise(rng, size, 3)
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
    picture *= 1 - step(distance, edge, edge + 0.02)
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
  rim = dots(size, x, y, radius) - 1.02 * dots(size, x, y, radius * 0.85)
  glint = dots(size, x - radius * 0.6, y - radius * 0.6, radius * 0.25)
  return rng.uniform(0.3, 0.9) * (np.clip(rim, -0.04, 1) * 1.8 + 0.8 * np.clip(glint, 0, 1))
