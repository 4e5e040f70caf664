r"""Chooses training images to label, in order, from images without masks.

  python -m launch.select --config=configs/folder.py --config.data.root=DIR --count=20 \
    --init_from=runs/mine_ahm --method=typiclust --workdir=runs/mine_select
  python -m launch.select --config=configs/folder.py --config.data.root=DIR --count=20 \
    --from_labelled --workdir=runs/compared

Writes into WORKDIR selection.csv, with columns rank, image, cluster and score, and selection.html,
which shows the images to the person who labels them. The first 10 of 20 are the choice for 10;
typiclust chooses others by --count=10, as its clusters depend on it. Images with a mask count as
chosen already. Train on what was chosen by --config.data.labelled_from=WORKDIR/selection.csv, and
compare it with random draws in launch.reproduce (one list, or by {seed} in FILE one a seed):
  --config.grid.methods='("scratch","scratch:data.labelled_from=FILE")'

  --count=N                How many; 20.
  --init_from=DIR          Workdir of a pretrain or segment run, or an export of one: images are
                           compared by its U-Net's bottleneck, the mean over space. Without it, by
                           principal components of their pixels.
  --method=NAME            random, the default: a draw that keeps the shares of the classes; without
                           a list, config.data.labels draws the same from images with a mask.
                           k-centre: no image is far from a labelled one (arXiv 1708.00489).
                           typiclust: the most typical image of each of as many clusters as there
                           are labels (2202.02794).
                           probcover: the neighbourhoods of the labelled hold the most images, with
                           a radius at which 95 % of them lie in one of as many clusters as there
                           are classes, at least two (2205.11320).
                           difficulty: as probcover, but each image counts by its rank of the loss
                           where the agent of a pretrain run masks it.
  --from_labelled          Choose among the images that have a mask, as though none had one: to
                           compare methods.

config.seed is the seed of random draws and of k-means. The same command gives the same list;
another list is not written over."""

import dataclasses
from pathlib import Path

from absl import flags

from ahm_jax.config import Config
from ahm_jax.pipeline import selection
from launch import app

_INIT_FROM = app.define_path('init_from', '', 'Workdir of a pretrain or segment run.')
_COUNT = flags.DEFINE_integer('count', 20, 'Images to choose.', lower_bound=1)
_METHOD = flags.DEFINE_enum(
  'method', selection.Options().method, selection.METHODS, 'How they are chosen.'
)
_FROM_LABELLED = flags.DEFINE_bool('from_labelled', False, 'Choose among images with a mask.')


def main(config: Config, workdir: Path) -> None:
  config = dataclasses.replace(config, init_from=_INIT_FROM.value or config.init_from)
  options = selection.Options(_METHOD.value, _COUNT.value, _FROM_LABELLED.value)
  found = selection.select(config, workdir, options)
  path, sheet = workdir / selection.LIST, workdir / selection.PAGE
  beside = f', beside {found.labelled} that have a mask' if found.labelled else ''
  if options.from_labelled or not found.labelled:
    following = f'train on them by --config.data.labelled_from={path}'
  else:
    following = 'train on all that have a mask by --config.data.labels=0'
  if not options.from_labelled:
    following = f'label them ({sheet} shows them), then {following}'
  print(f'{len(found.names)} images chosen{beside}: {path}; {following}')


if __name__ == '__main__':
  app.run(main)
