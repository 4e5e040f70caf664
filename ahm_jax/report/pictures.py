"""Pictures of held-out images, what the agent masked in them and what the U-Net made of it: the
panels of the report, and contact sheets.
"""

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ahm_jax.data import resize
from ahm_jax.report.class_pictures import class_overlay
from ahm_jax.runtime import durable

_FIRST_PANELS = ('image', 'policy', 'hidden', 'reconstruction')
PANELS = (*_FIRST_PANELS, 'outline')
CLASS_PANELS = (*_FIRST_PANELS, 'truth', 'prediction')  # Of an example whose masks have classes.
# A pair that every common kind of colour vision tells apart.
TRUTH_COLOUR = (0, 229, 255)
PREDICTION_COLOUR = (255, 159, 28)
HIDDEN_GREY = 128
OVERLAY = 0.65  # Share of the policy's colour; the rest is the image in grey.
COLOURS = 'viridis'


@dataclass(frozen=True, eq=False)
class Example:
  """One held-out image through the whole method.

  Attributes:
    image: uint8 [S, S, C], shown as `resize.picture` does.
    policy: float [g, g] in [0, 1], each patch's probability of being masked.
    hidden: bool [g, g], the patches that the sampled mask hides.
    reconstruction: uint8 [S, S, C].
    truth: bool [h, w], the lesion at the image's own resolution; with classes uint8 [h, w], 0 for
      background.
    prediction: as `truth`.
    id: the image's name.
    dice: of prediction and truth, with classes their mean; nan where both are empty.
    dice_by_class: by name, in the order of the masks' values; empty where there are no classes.
  """

  image: np.ndarray
  policy: np.ndarray
  hidden: np.ndarray
  reconstruction: np.ndarray
  truth: np.ndarray
  prediction: np.ndarray
  id: str
  dice: float
  dice_by_class: Mapping[str, float] = field(default_factory=dict)


def panels(example: Example, side: int = 320) -> dict[str, np.ndarray]:
  """The pictures of PANELS, of an example with classes those of CLASS_PANELS.

  Each is uint8 [H, W, 3] of the truth's aspect ratio with a longer side of `side` pixels.
  """
  shape = _shape(example.truth, side)
  image = resized(example.image, shape)
  grey = np.asarray(Image.fromarray(image).convert('L'), np.float32)[..., None]
  hidden = _per_pixel(example.hidden, shape)[..., None]
  shown = {
    'image': image,
    'policy': _overlay(grey, _per_pixel(example.policy, shape)),
    'hidden': np.where(hidden, np.uint8(HIDDEN_GREY), image),
    'reconstruction': resized(example.reconstruction, shape),
  }
  return shown | compared(example.image, example.truth, example.prediction, side)


def compared(
  image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, side: int = 320
) -> dict[str, np.ndarray]:
  """The pictures of `panels` that compare two masks: both borders, 'outline'; with classes 'truth'
  and 'prediction'.

  Args:
    image, truth, prediction: as an `Example` has them.
  """
  image = resized(image, _shape(truth, side))
  if truth.dtype != bool:
    return {'truth': class_overlay(image, truth), 'prediction': class_overlay(image, prediction)}
  return {'outline': _outlined(image, truth, prediction)}


def heat_map(image: np.ndarray, probability: np.ndarray, side: int) -> np.ndarray:
  """Probabilities of lesion in the colours of a policy, over an image in grey.

  Args:
    image: uint8 [S, S, C].
    probability: float [S, S].

  Returns:
    uint8 [side, side, 3].
  """
  grey = np.asarray(Image.fromarray(resized(image, (side, side))).convert('L'), np.float32)
  smooth = Image.fromarray(probability.astype(np.float32)).resize(
    (side, side), Image.Resampling.BILINEAR
  )
  return _overlay(grey[..., None], np.asarray(smooth))


def data_uri(picture: np.ndarray) -> str:
  """A uint8 [H, W, 3] picture as a JPEG data URI."""
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'JPEG', quality=88, subsampling=0, optimize=True)
  return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def figure(picture: np.ndarray, alt: str, caption: str) -> dict[str, str]:
  """A picture for a page: 'src', 'alt', what one sees in words, and 'caption'."""
  return {'src': data_uri(picture), 'alt': alt, 'caption': caption}


def colour_bar(width: int, height: int) -> np.ndarray:
  """Colours of the policy picture for probabilities 0 (left) to 1 (right), over mid-grey.

  Uint8 [height, width, 3].
  """
  return _overlay(
    np.full((height, width, 1), 128, np.float32), np.tile(np.linspace(0, 1, width), (height, 1))
  )


def write_masks_picture(examples: Sequence[Example], path: Path) -> None:
  """Writes a PNG contact sheet: one row an example, with image, policy, what the U-Net saw, and
  reconstruction.
  """
  titles = {
    'image': 'image',
    'policy': 'probability of being masked',
    'hidden': 'input of the U-Net',
    'reconstruction': 'reconstruction',
  }
  shown = [panels(example, 224) for example in examples]
  rows = [[row[name] for name in titles] for row in shown]
  write_sheet(contact_sheet(list(titles.values()), rows, tile=224), path)


def write_sheet(sheet: Image.Image, path: Path) -> None:
  """Writes a picture as PNG."""
  with durable.replacing(path) as scratch:
    sheet.save(scratch, 'PNG', optimize=True)


def policies_sheet(
  images: np.ndarray, policies: Mapping[str, np.ndarray], tile: int = 128
) -> Image.Image:
  """A contact sheet of where patches are likely to be masked: one row an image, one column a title.

  Args:
    images: uint8 [N, S, S, C].
    policies: by title, float [N, g, g] in [0, 1]; grids may differ.
  """
  rows = []
  for i, image in enumerate(images):
    picture = resized(image, (tile, tile))
    grey = np.asarray(Image.fromarray(picture).convert('L'), np.float32)[..., None]
    rows.append(
      [picture, *(_overlay(grey, _per_pixel(maps[i], (tile, tile))) for maps in policies.values())]
    )
  return contact_sheet(['image', *policies], rows, tile)


def contact_sheet(
  titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]], tile: int
) -> Image.Image:
  """Pictures uint8 [h, w, 3], no side above `tile`, in rows under titles.

  Below the second column the policy's colour scale.
  """
  gap, footer, line = 8, 30, 15
  names = [textwrap.wrap(title, max(8, tile // 8), break_on_hyphens=False) for title in titles]
  header = 15 + line * max(map(len, names))
  sheet = Image.new(
    'RGB', (gap + len(titles) * (tile + gap), header + len(rows) * (tile + gap) + footer), 'white'
  )
  draw = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(size=line if tile > 200 else 12)
  for column, words in enumerate(names):
    left = gap + column * (tile + gap)
    draw.multiline_text(
      (left + tile / 2, header / 2),
      '\n'.join(words),
      fill='#222',
      font=font,
      anchor='mm',
      align='center',
    )
    for row, pictures in enumerate(rows):
      picture = pictures[column]
      top = header + row * (tile + gap)
      sheet.paste(
        Image.fromarray(picture),
        (left + (tile - picture.shape[1]) // 2, top + (tile - picture.shape[0]) // 2),
      )
  left, top = 2 * gap + tile, sheet.height - footer
  sheet.paste(Image.fromarray(colour_bar(tile - 40, 12)), (left + 20, top + 4))
  draw.text((left + 8, top + 10), '0', fill='#222', font=font, anchor='mm')
  draw.text((left + tile - 8, top + 10), '1', fill='#222', font=font, anchor='mm')
  return sheet


def _shape(mask: np.ndarray, side: int) -> tuple[int, int]:
  """Of a picture of a mask [h, w], with a longer side of `side` pixels."""
  height, width = (max(1, round(side * length / max(mask.shape))) for length in mask.shape)
  return height, width


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """An image, uint8 [S, S, C], as a picture of a shape [H, W]: uint8 [H, W, 3]."""
  return np.asarray(resize.picture(image).resize(shape[::-1], Image.Resampling.BICUBIC))


def _per_pixel(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Each pixel's value of a patch grid: [g, g] -> [H, W]."""
  rows, columns = (
    np.arange(length) * cells // length for length, cells in zip(shape, grid.shape, strict=True)
  )
  return grid[np.ix_(rows, columns)]


def _overlay(grey: np.ndarray, probability: np.ndarray) -> np.ndarray:
  colours = matplotlib.colormaps[COLOURS](np.clip(probability, 0, 1))[..., :3] * 255
  return np.round(OVERLAY * colours + (1 - OVERLAY) * grey).astype(np.uint8)


def _outlined(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
  """The image with both borders.

  The truth's is the broader, so that it shows where the two coincide.
  """
  picture = image.copy()
  draw_border(picture, truth, TRUTH_COLOUR, 2)
  draw_border(picture, prediction, PREDICTION_COLOUR, 1)
  return picture


def draw_border(
  picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], half_width: int
) -> None:
  """Draws the border of a mask, bool [h, w], stretched over a picture, uint8 [H, W, 3], into it."""
  smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize(
    picture.shape[1::-1], Image.Resampling.BILINEAR
  )
  inside = np.asarray(smooth) >= 128
  if inside.any():
    distance = np.where(
      inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
    )
    picture[distance <= half_width] = colour
