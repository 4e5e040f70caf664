"""Small transparent pictures that a web page lays over an image: PNG data URIs of few colours."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image
from scipy import ndimage

from ahm_jax.report.class_pictures import class_indices
from ahm_jax.report.pictures import COLOURS, HIDDEN_GREY, OVERLAY, PREDICTION_COLOUR, TRUTH_COLOUR

SIDE = 320  # Of a mask's longer side, pixels.
CONFUSED_COLOUR = (255, 64, 200)  # One class taken for another.
AGREED_COLOUR = (255, 255, 255)
_CLEAR = (0, 0, 0, 0)
_LIGHT, _STRONG = 70, 190  # Opacities of 255.


def policy_layer(policy: np.ndarray) -> str:
  """Probabilities of being masked, float [g, g] in [0, 1], a pixel a patch, in the colours of the
  report's scale.
  """
  colours = np.round(matplotlib.colormaps[COLOURS](np.arange(256))[:, :3] * 255).astype(np.uint8)
  opacity = np.full((256, 1), round(255 * OVERLAY), np.uint8)
  return _uri(np.round(np.clip(policy, 0, 1) * 255).astype(np.uint8), np.hstack([colours, opacity]))


def hidden_layer(hidden: np.ndarray) -> str:
  """Masked patches, bool [g, g], in grey, a pixel a patch."""
  return _uri(hidden.astype(np.uint8), [_CLEAR, (*[HIDDEN_GREY] * 3, 255)])


def mask_layer(mask: np.ndarray, colour: tuple[int, int, int]) -> str:
  """A mask, bool [h, w], tinted and with a border in `colour`.

  With classes, uint8 [h, w], each in its colour and pattern.
  """
  shown = at_shown_size(mask)
  if mask.dtype != bool:
    return _uri(*class_indices(shown))
  border = shown & ~ndimage.binary_erosion(shown, iterations=2, border_value=1)
  return _uri(shown.astype(np.uint8) + border, [_CLEAR, (*colour, _LIGHT), (*colour, 255)])


def error_layer(prediction: np.ndarray, truth: np.ndarray) -> str:
  """Where two masks differ, both bool or both classes, [h, w].

  The prediction's colour: found and not there; the truth's: missed; CONFUSED_COLOUR: another class;
  white tint: right.
  """
  found, there = at_shown_size(prediction), at_shown_size(truth)
  kinds = np.select(
    [found == there, ~there.astype(bool), ~found.astype(bool)], [found > 0, 2, 3], 4
  ).astype(np.uint8)
  strong = ((*colour, _STRONG) for colour in (PREDICTION_COLOUR, TRUTH_COLOUR, CONFUSED_COLOUR))
  return _uri(kinds, [_CLEAR, (*AGREED_COLOUR, _LIGHT), *strong])


def at_shown_size(mask: np.ndarray) -> np.ndarray:
  """A mask [h, w] with a longer side of SIDE pixels, from its nearest pixels."""
  rows, columns = (
    ((np.arange(count) + 0.5) * length / count).astype(int)
    for length, count in (
      (length, max(1, round(SIDE * length / max(mask.shape)))) for length in mask.shape
    )
  )
  return mask[np.ix_(rows, columns)]


def _uri(indices: np.ndarray, colours) -> str:
  """Pixels uint8 [h, w], each an index into RGBA colours [K, 4], as a PNG data URI."""
  colours = np.asarray(colours, np.uint8)
  picture = Image.fromarray(indices).convert('P')
  picture.putpalette(colours[:, :3].tobytes())
  file = io.BytesIO()
  picture.save(file, 'PNG', optimize=True, transparency=colours[:, 3].tobytes())
  return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()
