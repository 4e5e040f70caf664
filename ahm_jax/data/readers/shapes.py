"""Masks that are drawn as shapes, in JSON: annotations of COCO, and files of LabelMe.

Shapes are drawn in the order of the file, the later over the earlier. Nothing that the JSON says is
handed to compiled code before it was checked.
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ahm_jax.config.ranges import class_names
from ahm_jax.data.readers.base import Held, UnsupportedImage, check_size, shown
from ahm_jax.errors import UserError
from ahm_jax.runtime import json_files, schema

MAX_BYTES = 2**28  # Of a file of LabelMe, which may hold its image too.
_POINT = schema.list_of(schema.number())
_SHAPE = schema.record(
  {'label': schema.text, 'points': schema.list_of(_POINT)},
  {'shape_type': schema.optional(schema.text)},
)
_LABELME = schema.record(
  {
    'shapes': schema.list_of(_SHAPE),
    'imageHeight': schema.count(1),
    'imageWidth': schema.count(1),
  }
)
_CORNERS = {'rectangle': 2, 'circle': 2}  # Points of shapes; a polygon has three or more.

Painter = Callable[[np.ndarray, int], None]  # Draws a shape with a value, in uint8 [h, w].


def value_of(name: str, classes: Sequence[str]) -> int | None:
  """What a shape of a class is drawn with: 1 where masks are binary; None: there is no such."""
  if not classes:
    return 1
  return classes.index(name) + 1 if name in classes else None


def unknown(name: str, classes: Sequence[str]) -> str:
  """That there is no such class, to end a sentence."""
  if class_names((name,)):
    return (
      f'{schema.shown(name)}, as no class in config.data.mask_classes can be called; rename it in '
      'the file, with letters, digits, _ and - alone, or take it out'
    )
  return (
    f'{schema.shown(name)}, which is not in config.data.mask_classes, {",".join(classes)}; add it '
    'there, or correct it'
  )


def labelme(path: Path, classes: Sequence[str]) -> Held:
  """A file of LabelMe as a mask, which is drawn when it is read."""
  return Held(path, lambda: _labelme_png(path, classes))


def _labelme_png(path: Path, classes: Sequence[str]) -> bytes:
  try:
    if path.stat().st_size > MAX_BYTES:
      raise ValueError(f'it holds more than {MAX_BYTES} bytes')
    tree = json_files.parse(path.read_bytes())
    schema.require(_LABELME, tree)
  except ValueError as error:
    raise UnsupportedImage(f'{shown(path)} is no file of LabelMe: {error}; replace it') from error
  size = tree['imageHeight'], tree['imageWidth']
  layers = []
  for number, shape in enumerate(tree['shapes']):
    value = value_of(shape['label'], classes)
    if value is None:
      raise UnsupportedImage(
        f'{shown(path)}: shape {number} is of {unknown(shape["label"], classes)}'
      )
    try:
      layers.append((_labelme_painter(shape, size), value))
    except ValueError as error:
      raise UnsupportedImage(f'{shown(path)}: shape {number} {error}; correct it') from error
  return png(path, size, layers)


def _labelme_painter(shape: Mapping[str, Any], size: tuple[int, int]) -> Painter:
  """As LabelMe itself draws a shape. Raises a ValueError, to end a sentence."""
  kind, points = shape.get('shape_type') or 'polygon', shape['points']
  if kind not in ('polygon', *_CORNERS):
    raise ValueError(f'is a {kind[:40]!r}, and polygons, rectangles and circles are read')
  if any(len(point) != 2 for point in points):
    raise ValueError('has a point that is no [x, y]')
  if len(points) != _CORNERS.get(kind, max(3, len(points))):
    raise ValueError(f'is a {kind} of {len(points)} points')
  _check_bounds([number for point in points for number in point], size)

  def paint(mask: np.ndarray, value: int) -> None:
    picture = Image.fromarray(mask)
    draw = ImageDraw.Draw(picture)
    if kind == 'polygon':
      draw.polygon([tuple(point) for point in points], fill=value, outline=value)
    elif kind == 'rectangle':
      (left, top), (right, bottom) = np.sort(np.array(points, np.float64), 0).tolist()
      draw.rectangle((left, top, right, bottom), fill=value, outline=value)
    else:
      (x, y), edge = points
      radius = math.dist((x, y), edge)
      draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value, outline=value)
    mask[:] = np.asarray(picture)

  return paint


def coco(
  place: PurePath, size: tuple[int, int], annotations: Iterable[tuple[Mapping[str, Any], int]]
) -> Held:
  """An image's annotations of COCO as a mask, which is drawn when it is read.

  Args:
    place: for messages.
    size: (height, width) of the image, as the file says.
    annotations: with the value that each is drawn with.
  """

  def draw() -> bytes:
    layers = []
    for annotation, value in annotations:
      try:
        layers.append((_coco_painter(annotation.get('segmentation'), size), value))
      except ValueError as error:
        raise UnsupportedImage(
          f'{shown(place_held)}: annotation {annotation["id"]} {error}; correct it'
        ) from error
    return png(place_held, size, layers)

  place_held = Held(place, draw)
  return place_held


def _coco_painter(segmentation: Any, size: tuple[int, int]) -> Painter:
  """Polygons, which pycocotools draws, or run lengths. Raises a ValueError, to end a sentence."""
  if isinstance(segmentation, dict):
    counts = _checked_runs(segmentation, size)
  elif isinstance(segmentation, list) and segmentation:
    for polygon in segmentation:
      _check_polygon(polygon, size)
  else:
    raise ValueError('has no segmentation: no polygon and no run lengths')

  def paint(mask: np.ndarray, value: int) -> None:
    runs = counts if isinstance(segmentation, dict) else _polygon_runs(segmentation, size)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size, order='F')
    mask[inside] = value

  return paint


def _check_polygon(polygon: Any, size: tuple[int, int]) -> None:
  try:
    schema.require(_POINT, polygon)
  except ValueError as error:
    raise ValueError(f'has a polygon of which {error}') from error
  if len(polygon) < 6 or len(polygon) % 2:
    raise ValueError(f'has a polygon of {len(polygon)} numbers; it takes x, y of 3 points')
  _check_bounds(polygon, size)


def _polygon_runs(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> list[int]:
  """Run lengths of all that lies in one of some polygons."""
  from pycocotools import mask as reader

  # Decoded here: its `decode` warns of what NumPy will not take in future.
  return _uncompressed(reader.merge(reader.frPyObjects(polygons, *size))['counts'].decode())


def require_coco(path: Path) -> None:
  """Raises a UserError where the package that draws COCO's polygons is not installed."""
  try:
    import pycocotools.mask  # noqa: F401
  except ImportError as error:
    raise UserError(
      f"{path} needs the package pycocotools; pip install 'ahm_jax[coco]' (in a checkout: "
      ".venv/bin/pip install -e '.[coco]')"
    ) from error


def _checked_runs(runs: Mapping[str, Any], size: tuple[int, int]) -> list[int]:
  """How many pixels in turn are outside and inside, down the columns."""
  counts: Any = runs.get('counts')
  if runs.get('size') != list(size):
    raise ValueError(f'has run lengths of size {str(runs.get("size"))[:40]}, not {list(size)}')
  if isinstance(counts, str):
    counts = _uncompressed(counts)
  try:
    schema.require(schema.list_of(schema.count()), counts)
  except ValueError as error:
    raise ValueError(f'has run lengths of which {error}') from error
  if sum(counts) != size[0] * size[1]:
    raise ValueError(f'has run lengths of {sum(counts)} pixels in all, not {size[0] * size[1]}')
  return counts


def _uncompressed(text: str) -> list[int]:
  """COCO's compressed run lengths: 5 bits a letter from '0' on, a sixth where more follow, and from
  the fourth number on the difference to the last but one.
  """
  found: list[int] = []
  value = shift = 0
  for letter in text:
    bits = ord(letter) - 48
    if not 0 <= bits < 64 or shift > 60:
      raise ValueError('has compressed run lengths that are none')
    value |= (bits & 31) << shift
    shift += 5
    if not bits & 32:
      value -= (1 << shift) if bits & 16 else 0
      found.append(value + (found[-2] if len(found) > 2 else 0))
      value = shift = 0
  if shift:
    raise ValueError('has compressed run lengths that are cut')
  return found


def _check_bounds(numbers: Sequence[float], size: tuple[int, int]) -> None:
  """Refuses what lies further from the image than it is long."""
  for index, number in enumerate(numbers):
    length = size[1 - index % 2]
    if not -length <= number <= 2 * length:
      raise ValueError(f'has a point at {number:g}, far from the image of {size[1]}x{size[0]}')


def png(path: Path | Held, size: tuple[int, int], layers: Iterable[tuple[Painter, int]]) -> bytes:
  """A mask as the bytes of a grey PNG."""
  check_size(path, *size)
  mask = np.zeros(size, np.uint8)
  for paint, value in layers:
    paint(mask, value)
  stream = io.BytesIO()
  Image.fromarray(mask).save(stream, 'PNG', compress_level=1)
  return stream.getvalue()
