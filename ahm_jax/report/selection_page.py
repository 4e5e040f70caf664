"""selection.html: the images that were chosen to be labelled, for the person who labels them."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ahm_jax.data import resize
from ahm_jax.report.pictures import data_uri
from ahm_jax.report.render import render
from ahm_jax.selection.pick import Pick

PICTURED = 200  # Images that the page shows at most.
_SIDE = 320  # Of a picture's longer side, pixels.
_SCORES = {  # What the score of a method is.
  'random': '',
  'k-centre': 'distance to the nearest image that was labelled or chosen before',
  'typiclust': 'typicality, 1 / the mean distance to the nearest images of its cluster',
  'probcover': 'share of all images that it is the first to cover',
  'difficulty': "share of all images' difficulty that it is the first to cover",
}


def page(
  method: str,
  names: Sequence[str],
  picks: Sequence[Pick],
  pictures: Mapping[int, np.ndarray],
  list_name: str,
  modalities: Sequence[str] = (),
) -> bytes:
  """The page.

  Args:
    names, picks: of the images, in the order to label them in.
    pictures: by place in that order, from 0, uint8 [h, w, C]; of some of them.
    list_name: the file beside the page that lists them.
    modalities: names of the images' channels, where they have them.
  """
  images = [
    {'rank': i + 1, 'name': names[i], 'lines': _lines(picks[i]), 'uri': _picture(pictures[i])}
    for i in sorted(pictures)
  ]
  text = render(
    'selection.html',
    title=f'{len(names)} images to label',
    method=method,
    count=len(names),
    score=_SCORES[method],
    images=images,
    list_name=list_name,
    colours=resize.colours_of(modalities),
  )
  return text.encode(errors='backslashreplace')  # File names may be no text.


def _lines(pick: Pick) -> list[str]:
  cluster = [] if pick.cluster is None else [f'cluster {pick.cluster}']
  return cluster + ([] if pick.score is None else [f'score {pick.score:.3g}'])


def _picture(pixels: np.ndarray) -> str:
  scale = _SIDE / max(pixels.shape[:2])
  size = tuple(max(1, round(scale * length)) for length in pixels.shape[1::-1])
  whole = resize.picture(pixels)
  return data_uri(np.asarray(whole.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)))
