"""Scores a finished run on a split, at the images' own resolution; writes evaluation.json and per_image.csv beside it.

  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20
  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20 --config.evaluate.split=validation

WORKDIR is that of a pretrain, segment or classify run, whose own config holds but for the fields under evaluate.
"""

from ahm_jax import stages
from launch import app


def main(config, workdir):
  for name, value in stages.evaluate(config, workdir).items():
    for suffix, single in value.items() if isinstance(value, dict) else (('', value),):
      print(f'{name + (suffix and f" {suffix}"):28} ' + (f'{single:.4f}' if isinstance(single, float) else f'{single}'))


if __name__ == '__main__':
  app.run(main)
