"""What `prepare_data --check` shows of a data set: a text, a JSON file, and a self-contained web
page.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ahm_jax.data import resize
from ahm_jax.data.audit.finding import LEVELS, Finding
from ahm_jax.data.audit.inspection import ImageRecord, Inspection
from ahm_jax.data.sets.items import SPLITS
from ahm_jax.errors import UserError, printable
from ahm_jax.evaluation.tables import aligned
from ahm_jax.report.pictures import TRUTH_COLOUR
from ahm_jax.report.render import render
from ahm_jax.runs import directory
from ahm_jax.runtime import durable, json_files, schema

JSON, HTML = directory.CHECKS
SIDE = 112  # Of a thumbnail's longer side, pixels.
SHEET = 48  # Images on the contact sheet.
PICTURED = 24  # Cases of a finding that the page shows with thumbnails.
LISTED = 500  # Cases of a finding that the page names.
# What tells a check.json of ours.
_OURS = schema.record({'format': schema.count(), 'findings': schema.list_of(schema.mapping())})
MOST_BYTES = 2**32  # Of check.json: of some six million images.
PRINTED = 5  # Cases of a finding that the text names.


def thumbnail(pixels: np.ndarray, mask: np.ndarray | None) -> bytes:
  """A small JPEG of an image, uint8 [H, W, C], with the outline of each class of its mask, uint8
  [H, W], where it has one.
  """
  scale = SIDE / max(pixels.shape[:2])
  size = tuple(max(1, round(scale * length)) for length in pixels.shape[1::-1])
  whole = resize.picture(pixels)
  picture = np.array(whole.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
  if mask is not None:
    for index in range(1, int(mask.max()) + 1):
      filled = Image.fromarray((mask == index).astype(np.uint8) * 255)
      inside = np.asarray(filled.resize(size, Image.Resampling.BOX)) >= 128
      picture[inside & ~ndimage.binary_erosion(inside)] = TRUTH_COLOUR
  stream = io.BytesIO()
  Image.fromarray(picture).save(stream, 'JPEG', quality=80)
  return stream.getvalue()


def text(name: str, numbers: dict, findings: Sequence[Finding]) -> str:
  """The summary for a terminal.

  Args:
    name: of the data set.
    numbers: as `inspection.numbers` has them.
    findings: worst first.
  """
  lines = [f'{name}: {sum(split["images"] for split in numbers["splits"].values())} images', '']
  lines += [*aligned(_table(numbers)), '', *_measures(numbers)]
  for finding in findings:
    lines += ['', f'{finding.level}: {finding.what} ({len(finding.cases)})']
    lines += [f'  {case.text}' for case in finding.cases[:PRINTED]]
    if len(finding.cases) > PRINTED:
      lines.append(f'  and {len(finding.cases) - PRINTED} more')
    lines.append(f'  -> {finding.do}')
  return '\n'.join(printable(line) for line in [*lines, '', headline(findings)])


def headline(findings: Sequence[Finding]) -> str:
  """How many findings of each level there are."""
  counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
  if not findings:
    return 'No problems found.'
  kinds = ', '.join(
    f'{count} {level}{"s" * (count != 1)}' for level, count in counts.items() if count
  )
  return f'{kinds}.'


def as_json(name: str, numbers: dict, findings: Sequence[Finding], inspection: Inspection) -> dict:
  """All that is known, for programs to read: the numbers, every finding with every case, and
  every image.
  """
  images = inspection.images
  return {
    'format': 1,
    'dataset': name,
    'numbers': numbers,
    'findings': [
      {
        'level': finding.level,
        'code': finding.code,
        'what': finding.what,
        'do': finding.do,
        'cases': [
          {'text': case.text, 'images': [images[i].name for i in case.images]}
          for case in finding.cases
        ],
      }
      for finding in findings
    ],
    'images': [_image_row(image) for image in images],
  }


def check_free(workdir: Path) -> None:
  """Makes sure that nothing but an earlier check is written over.

  Raises:
    UserError: check.json or check.html is none of ours.
  """
  cure = 'remove it, or choose another --workdir'
  held = json_files.read_json(workdir / JSON, _OURS, cure, MOST_BYTES)
  if held is None and (workdir / HTML).exists():
    raise UserError(
      f'{workdir / HTML} is there without {JSON}, and is not written over; choose another --workdir'
    )


def write(
  workdir: Path, name: str, numbers: dict, findings: Sequence[Finding], inspection: Inspection
) -> None:
  """Writes check.json and check.html into a folder, which is made if it is not there."""
  workdir.mkdir(parents=True, exist_ok=True)
  json_files.write_json(workdir / JSON, as_json(name, numbers, findings, inspection))
  page = render(
    'data.html',
    title=f'{name}: what is in this data set',
    name=name,
    headline=headline(findings),
    table=_table(numbers),
    measures=_measures(numbers),
    findings=[_finding_view(finding, inspection.images) for finding in findings],
    sheet=[_image_view(image) for image in _chosen(inspection.images)],
    count=len(inspection.images),
    json_file=JSON,
  )
  # File names may be no text.
  durable.write(workdir / HTML, page.encode(errors='backslashreplace'))


def _image_row(image: ImageRecord) -> dict:
  row = {
    key: getattr(image, key)
    for key in ('name', 'file', 'split', 'label', 'group', 'width', 'height', 'kind', 'contrast')
  }
  mask = image.mask
  return row | {
    'coverage': None if mask is None else list(mask.coverage),
    'borders_touched': None if mask is None else mask.borders,
    'sha256': image.print.file.hex() or None,
    'sha256_of_pixels': image.print.pixels.hex(),
    'perceptual_hash': f'{int(image.print.hashes[0]):016x}',
  }


def _table(numbers: dict) -> list[list[str]]:
  """Counts by split, under a row of titles."""
  splits = numbers['splits']
  classes = list(dict.fromkeys(name for split in splits.values() for name in split['classes']))
  lost = any(split['unreadable'] for split in splits.values())
  columns = ['images', 'masks', 'labels', 'groups'] + ['unreadable'] * lost
  rows = [['split', *columns, *classes]]
  for split in SPLITS:
    counts = splits[split]
    rows.append(
      [
        split,
        *(str(counts[name]) for name in columns),
        *(str(counts['classes'].get(name, 0)) for name in classes),
      ]
    )
  return rows


def _measures(numbers: dict) -> list[str]:
  """Lines of sizes, kinds of files, and mask coverage."""
  sizes = numbers['sizes']
  lines = []
  if sizes['width']:
    width, height, aspect = (
      _range(sizes[name], digits) for name, digits in (('width', 0), ('height', 0), ('aspect', 2))
    )
    lines.append(f'width {width}, height {height} px, aspect ratio {aspect}')
  lines += [f'{count} images: {kind}' for kind, count in numbers['kinds'].items()]
  for name, coverage in numbers['coverage'].items():
    if coverage['masks']:
      share = [100 * value for value in coverage['share']]
      lines.append(
        f'{name}: in {coverage["masks"]} masks, covering {_range(share, 1)} % of the image'
      )
  return lines


def _range(values: Sequence[float], digits: int) -> str:
  low, median, high = (f'{value:.{digits}f}' for value in values)
  return low if low == high else f'{low} to {high} (median {median})'


def _finding_view(finding: Finding, images: Sequence[ImageRecord]) -> dict:
  pictured = [case for case in finding.cases if case.images][:PICTURED]
  return {
    'level': finding.level,
    'code': finding.code,
    'what': finding.what,
    'do': finding.do,
    'count': len(finding.cases),
    'pictured': [
      {'text': case.text, 'images': [_image_view(images[i]) for i in case.images]}
      for case in pictured
    ],
    'rest': [case.text for case in finding.cases if case not in set(pictured)][:LISTED],
  }


def _image_view(image: ImageRecord) -> dict:
  size = f'{image.width} x {image.height}'
  lines = [
    *([image.label] if image.label else []),
    size if image.mask is None else f'{size}, {100 * image.mask.total:.1f} %',
  ]
  uri = 'data:image/jpeg;base64,' + base64.b64encode(image.thumbnail).decode()
  split, order = image.split, SPLITS.index(image.split)
  return {
    'name': image.name,
    'split': split,
    'order': order,
    'lines': lines,
    'about': ', '.join([split, *lines]),
    'uri': uri,
  }


def _chosen(images: Sequence[ImageRecord]) -> list[ImageRecord]:
  """Images for the contact sheet, evenly spaced in each split, those of each class in turn."""
  filled = [split for split in SPLITS if any(image.split == split for image in images)]
  chosen = []
  for split in filled:
    own = sorted(
      (image for image in images if image.split == split),
      key=lambda image: (image.label, image.name),
    )
    count = min(len(own), SHEET // len(filled))
    chosen += [own[index] for index in np.linspace(0, len(own) - 1, count).round().astype(int)]
  return chosen
