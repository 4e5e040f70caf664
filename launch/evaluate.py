"""Scores a finished run on a split, at the images' own resolution; writes evaluation.json and per_image.csv beside it.

  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20
  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20 --config.evaluate.split=validation

WORKDIR is that of a pretrain, segment or classify run, whose own config holds but for the fields under evaluate.
"""

from ahm_jax import stages
from launch import app


def main(config, workdir):
  for name, value in stages.evaluate(config, workdir).items():
    print(f'{name:28} {value:.4f}' if isinstance(value, float) else f'{name:28} {value}')


if __name__ == '__main__':
  app.run(main)
