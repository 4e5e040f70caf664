"""Prepares a data set: checks every file, resizes, splits, and writes it as TFDS array records.

  python -m launch.prepare_data --config=configs/folder.py --config.data.root=DIR --workdir=runs/mine

Every other stage does this by itself where it was not done. Prepared data lies in WORKDIR/data, or in config.data.prepared_dir.
"""

from ahm_jax import stages
from launch import app


def main(config, workdir):
  data = stages.load_data(config, workdir)
  for name, split in data.splits.items():
    classes = ', '.join(f'{label} {int((split.labels == i).sum())}' for i, label in enumerate(data.class_names))
    print(f'{name}: {len(split)} images, {int(split.has_mask.sum())} with a mask; {classes or "no classes"}')


if __name__ == '__main__':
  app.run(main)
