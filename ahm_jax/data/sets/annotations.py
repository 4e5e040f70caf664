"""Masks of a folder that are drawn as shapes, in place of mask files.

  masks/NAME.json   of LabelMe: polygons, rectangles, circles
  coco.json         of COCO, beside images/: polygons, by pycocotools, and run lengths

Without config.data.mask_classes all shapes are the lesion; with them, each is drawn as the class of
its name. An image that coco.json lists without an annotation has an empty mask.
"""

import collections
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from ahm_jax.data.readers import shapes
from ahm_jax.data.readers.base import Case, Held, link_problem, shown
from ahm_jax.data.sets import table
from ahm_jax.errors import UserError
from ahm_jax.runtime import json_files, schema

COCO, LABELME = 'coco.json', '.json'
MAX_BYTES = 2**30
_ID = schema.count()
_CHECK = schema.record(
  {
    'images': schema.list_of(
      schema.record(
        {'id': _ID, 'file_name': schema.text, 'height': schema.count(1), 'width': schema.count(1)}
      )
    ),
    'categories': schema.list_of(schema.record({'id': _ID, 'name': schema.text})),
    'annotations': schema.list_of(schema.record({'id': _ID, 'image_id': _ID, 'category_id': _ID})),
  }
)


def files(root: Path) -> list[Path]:
  """The files that may hold such masks."""
  folder = root / 'masks'
  below = sorted(folder.iterdir()) if folder.is_dir() else []
  found = [path for path in below if _is_labelme(path)]
  return found + ([root / COCO] if (root / COCO).exists() else [])


def labelme(
  root: Path,
  images: Collection[str],
  masks: Collection[str],
  classes: Sequence[str],
  problems: list[str],
  notes: list[str],
) -> dict[str, Held]:
  """The masks of LabelMe, by composed name; not those of images with a mask of another kind.

  Args:
    images, masks: names of images, and of those that have a mask file.
  """
  found: dict[str, Held] = {}
  others = []
  for path in files(root):
    name = table.composed(path.name[: -len(LABELME)])
    if path == root / COCO or name not in images:
      continue
    if name in masks:
      others.append(path.name)
    elif problem := link_problem(path, root):
      problems.append(problem)
    elif name in found:
      problems.append(
        f'{shown(found[name])} and {shown(path)} have the same name; keep one of them'
      )
    elif path.is_file():
      found[name] = shapes.labelme(path, classes)
  if others:
    notes.append(
      f'files of LabelMe in masks/ that are NOT used, as their images have a mask there: '
      f'{len(others)} ({table.some(others)})'
    )
  return found


def coco(
  root: Path,
  images: Mapping[str, Path | Case],
  masks: Mapping[str, Path | Held],
  classes: Sequence[str],
  problems: list[str],
  notes: list[str],
) -> dict[str, Held]:
  """The masks of coco.json, by composed name; none where there is no such file.

  Args:
    images: by composed name; of a case, it may list any file.
    masks: those that are known otherwise.

  Raises:
    UserError: it is not COCO's, or pycocotools is missing, which draws polygons.
  """
  path = root / COCO
  if problem := link_problem(path, root):
    raise UserError(f'{root}: {problem}')
  tree = json_files.read_json(path, _CHECK, 'export it again', MAX_BYTES)
  if tree is None:
    return {}
  if any(isinstance(each.get('segmentation'), list) for each in tree['annotations']):
    shapes.require_coco(path)
  for kind in ('images', 'categories', 'annotations'):
    if twice := schema.repeated(part['id'] for part in tree[kind]):
      raise UserError(f'{path}: {kind} has the id {twice[0]} twice; export it again')
  drawn = _by_image(tree, classes, problems)
  by_file = {
    table.composed(path.name): name
    for name, image in images.items()
    for path in (image.present if isinstance(image, Case) else [image])
  }
  found: dict[str, Held] = {}
  bare = 0
  for image in tree['images']:
    bare_name = PureWindowsPath(image['file_name']).name  # Which knows of / and \.
    name = by_file.get(table.composed(bare_name))
    if name is None:
      problems.append(
        f'{COCO} names {table.quoted(image["file_name"])}, which is not in images/; add the image, '
        f'or take it out of {COCO}'
      )
    elif name in found or name in masks:
      other = shown(masks[name]) if name in masks else f'another entry of {COCO}'
      problems.append(
        f'{COCO} has a mask of {table.quoted(bare_name)}, and so has {other}; keep one of them'
      )
    else:
      size = image['height'], image['width']
      found[name] = shapes.coco(PurePath(COCO) / images[name].name, size, drawn[image['id']])
      bare += not drawn[image['id']]
  if bare:
    notes.append(
      f'images that {COCO} lists without an annotation, which count as images without lesion: '
      f'{bare}; where nobody has looked at them yet, take them out of it'
    )
  return found


def _by_image(
  tree: Mapping[str, Any], classes: Sequence[str], problems: list[str]
) -> Mapping[int, list[tuple[Mapping[str, Any], int]]]:
  """The annotations of each image, by its id, with the values that they are drawn with."""
  names = {category['id']: category['name'] for category in tree['categories']}
  known = {image['id'] for image in tree['images']}
  drawn = collections.defaultdict(list)
  wrong: set[str] = set()
  for annotation in tree['annotations']:
    name = names.get(annotation['category_id'])
    if annotation['image_id'] not in known or name is None:
      problems.append(
        f'{COCO}: annotation {annotation["id"]} is of an image or a category that is not listed; '
        'export it again'
      )
    elif (value := shapes.value_of(name, classes)) is None:
      if name not in wrong:
        problems.append(
          f'{COCO}: annotation {annotation["id"]} is of {shapes.unknown(name, classes)}'
        )
      wrong.add(name)
    else:
      drawn[annotation['image_id']].append((annotation, value))
  return drawn


def _is_labelme(path: Path) -> bool:
  return path.name.lower().endswith(LABELME) and not path.name.startswith('.')
