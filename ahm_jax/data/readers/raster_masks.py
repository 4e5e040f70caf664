"""What a mask shows that Pillow has decoded: by its values, its palette, or its alpha."""

from pathlib import Path

import numpy as np
from PIL import Image

from ahm_jax.data.readers.base import Held, UnsupportedImage, shown

_INKS = ('CMYK', 'LAB')  # Their zeros are white, or no colour at all.


def labels(
  image: Image.Image, values: np.ndarray, is_deep: bool, by_colour: bool, path: Path | Held
) -> np.ndarray:
  """A mask's labels: bool or a number, [H, W].

  Args:
    image: what Pillow decoded.
    values: its numbers, [H, W] or [H, W, channels].
    is_deep: these are the high bytes of 16 bits.
    by_colour: the mask is binary: the colours of a palette count where they tell the lesion, and
      alpha where the colour is the same everywhere and alpha is not, or is 0.

  Raises:
    UnsupportedImage: the mask is a colour image, or drawn in an alpha channel that does not tell
      its labels, or contradicts its values.
  """
  alpha = _alpha(image, values)
  if values.ndim == 3:
    colours = values if alpha is None or image.mode == 'P' else values[..., :-1]
    if image.mode in _INKS or (colours != colours[..., :1]).any():
      raise UnsupportedImage(
        f'{shown(path)} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255, '
        'or of class indices'
      )
    values = colours[..., 0]
  if is_deep:
    _check_high_bytes(values, alpha, path)
  palette = (
    np.reshape(image.getpalette('RGB') or [], (-1, 3)) if image.mode in ('P', 'PA') else None
  )
  used = np.unique(values) if alpha is not None or palette is not None else values[:0]
  if alpha is not None and _is_one_colour(used, palette, by_colour):
    drawn = _drawn(alpha, by_colour, path)
    if drawn is not None:
      return drawn
  if not by_colour:
    return values
  found = values if palette is None else _by_colour(values, used, palette)
  if alpha is not None:
    _check_transparent(found, alpha, path)
  return found


def _check_transparent(found: np.ndarray, alpha: np.ndarray, path: Path | Held) -> None:
  """Refuses a binary mask that calls lesion what cannot be seen, where something else can: it may
  be drawn in a dark colour on a transparent light ground.
  """
  if alpha.any() and (found[alpha == 0] > 0).any():
    raise UnsupportedImage(
      f'{shown(path)} has lesion by its values where its alpha channel is transparent; save it as '
      'grey without alpha'
    )


def _alpha(image: Image.Image, values: np.ndarray) -> np.ndarray | None:
  """How opaque each pixel is, of 255: uint8 [H, W]."""
  if image.getbands()[-1] in ('A', 'a'):
    return values[..., -1]
  transparency = image.info.get('transparency') if image.mode == 'P' else None
  if transparency is None:
    return None
  table = np.full(256, 255, np.uint8)
  if isinstance(transparency, bytes):
    table[: len(transparency)] = np.frombuffer(transparency, np.uint8)[:256]
  else:  # The only transparent index.
    table[transparency] = 0
  return table[values]


def _is_one_colour(used: np.ndarray, palette: np.ndarray | None, by_colour: bool) -> bool:
  if len(used) == 1:
    return True
  if palette is None or not by_colour or used[-1] >= len(palette):
    return False
  return bool((palette[used] == palette[used[0]]).all())


def _drawn(alpha: np.ndarray, by_colour: bool, path: Path | Held) -> np.ndarray | None:
  """The lesion of a mask of one colour; None where its alpha is the same everywhere, but not 0."""
  found = np.unique(alpha).tolist()
  if len(found) == 1 and not (by_colour and found == [0]):
    return None
  if not by_colour:
    raise UnsupportedImage(
      f'{shown(path)} is of one colour, with its shape in the alpha channel, which tells no '
      'classes; save it as grey with class indices, without alpha'
    )
  if found not in ([0], [0, 1], [0, 255]):
    some = ', '.join(str(value) for value in found[:6]) + (', ...' if len(found) > 6 else '')
    raise UnsupportedImage(
      f'{shown(path)} is of one colour, with its shape in the alpha channel, whose values are '
      f'{some}; save it as grey of 0 and 255, without alpha'
    )
  return alpha > 0


def _check_high_bytes(values: np.ndarray, alpha: np.ndarray | None, path: Path | Held) -> None:
  """Refuses a mask whose low bytes, which Pillow leaves out, may hold its labels."""
  for part in (values, alpha):
    if part is not None and np.unique(part).tolist() not in ([255], [0, 255]):
      raise UnsupportedImage(
        f'{shown(path)} has 16 bits a channel, and colour or alpha, of which low values would be '
        'lost; save it as grey of 8 or 16 bits, without alpha'
      )


def _by_colour(indices: np.ndarray, used: np.ndarray, colours: np.ndarray) -> np.ndarray:
  """The lesion of a binary mask by its colours, bool [H, W].

  The indices themselves where the colours do not tell it.
  """
  if used[-1] > 1 or used[-1] >= len(colours):
    return indices
  light = colours.sum(1)
  is_grey = (colours == colours[:, :1]).all()
  if len(used) == 2 and light[0] != light[1] and (is_grey or 0 in light[:2]):
    return indices == light[:2].argmax()
  if len(used) == 1 and (
    (light[used[0]] == 3 * 255 and is_grey) or (light[used[0]] == 0 and light.any())
  ):
    return np.full(indices.shape, light[used[0]] > 0)
  return indices
