r"""Trains a U-Net to segment lesions from a few labels, from scratch or pre-trained.

  python -m launch.segment --config=configs/phantom.py --config.data.labels=20 \
    --workdir=runs/scratch20
  python -m launch.segment --config=configs/phantom.py --config.data.labels=20 \
    --config.init_from=runs/ahm --workdir=runs/ahm20

The best checkpoint by the Dice of the validation split is kept; launch.evaluate scores it.

With --config.segment.diagnosis.batch_size=N the U-Net learns the diagnosis too, from N images a
step that have a label, with or without a mask; the mean of Dice and AUC chooses then.
"""

from ahm_jax.pipeline import stages
from launch import app

if __name__ == '__main__':
  app.run(stages.segment, several=True, following=stages.SEGMENT.following)
