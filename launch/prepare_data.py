r"""Checks, resizes and splits a data set, and writes it as TFDS array records.

  python -m launch.prepare_data --config=configs/folder.py --config.data.root=DIR \
    --workdir=runs/mine
  python -m launch.prepare_data --config=configs/folder.py --config.data.root=DIR \
    --workdir=runs/mine --check

Every other stage does this by itself where it was not done. Prepared data lies in WORKDIR/data, or
in config.data.prepared_dir.

  --check                  Prepares nothing: reads everything once and reports what is in the set,
                           and all that is wrong with it: counts, sizes, classes, mask coverage,
                           unreadable files, empty masks, duplicates across splits. Writes
                           check.json and check.html into WORKDIR. Exit code 3 where one of the
                           findings is an error.
"""

import sys
from pathlib import Path

from absl import flags

from ahm_jax.config import Config
from ahm_jax.pipeline.data import check_data
from ahm_jax.pipeline.setup import load_data
from ahm_jax.runs import ownership
from launch import app

ERRORS_FOUND = 3  # Exit code of --check.
_CHECK = flags.DEFINE_bool(
  'check', False, 'Say what is in the data set and what is wrong with it; prepare nothing.'
)


def main(config: Config, workdir: Path) -> None:
  if _CHECK.value:
    if check_data(config, workdir):
      sys.exit(ERRORS_FOUND)
    return
  ownership.check_kinds(workdir, ('data',), ())
  data = load_data(config, workdir)
  for name, split in data.splits.items():
    classes = ', '.join(
      f'{label} {int((split.labels == i).sum())}' for i, label in enumerate(data.class_names)
    )
    masks = int(split.has_mask.sum())
    print(f'{name}: {len(split)} images, {masks} with a mask; {classes or "no classes"}')


if __name__ == '__main__':
  app.run(main)
