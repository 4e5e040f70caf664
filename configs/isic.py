r"""ISIC dermoscopy at full size: 224 px, base width 64, bfloat16; a GPU's work.

  launch/with_env python -m launch.reproduce --config=configs/isic.py --config.data.root=DIR \
    --workdir=runs/isic

DIR is laid out as configs/folder.py says.

Not run as it stands. The recipe is the best that was found on validation at the size of
configs/isic_cpu.py (BUILD_NOTES.md says how). Of this size there is one short look on an H200, with
half of the pre-training, 1,200 steps of segmentation, 10 epochs where all labels are used, and four
times the rate. That was too short: from scratch with all labels it reached 0.804 [0.775, 0.833] on
test (3 seeds), less than 64 px do. Seed 0 of scratch, uniform and adaptive hard masks had 0.679,
0.716, 0.719 with 20 labels and 0.726, 0.772, 0.764 with 50; adaptive - scratch +0.040 [+0.018,
+0.062] and +0.038 [+0.022, +0.054], over images alone. Three seeds from scratch spread over 6
points, so this shows nothing yet. Four times as many steps are set here, at a quarter of the rate,
which was better at base width 32 and 128 px with all labels (one seed, validation).

The variant isic.py:paper, not run either, has the hyper-parameters of the report that this project
answers to, which had one seed, no test set and private images: Dice 0.6000 from scratch, 0.6345
with AHM.
"""

from ahm_jax import config

VARIANTS = ('', 'paper')


def get_config(variant=''):
  config.check_variant(__file__, variant, VARIANTS)
  c = config.default()
  c.data.name = 'folder'
  c.grid.labels = (20, 50, 100)
  if variant == 'paper':
    return c
  best(c)
  with_consistency(c)
  c.model.dtype, c.model.agent_trunk = 'bfloat16', 'light'
  c.pretrain.batch_size, c.pretrain.epochs = 32, 100.0
  c.segment.learning_rate, c.segment.steps, c.segment.min_epochs = 5e-4, 4800, 40.0
  return c


def best(c):
  """Puts in the best recipe found: how masks are placed, and how each task is trained.

  Sizes and lengths are the caller's.
  """
  c.masking.learning_rate = 1e-3
  c.masking.restore_colour = True
  c.masking.warmup_by, c.masking.hard_share = 'share', 0.5
  for recipe in (c.pretrain, c.segment, c.classifier):
    recipe.update(optimizer='adamw', weight_decay=1e-4, schedule='cosine', warmup=0.1)
    recipe.learning_rate = 1e-3
    recipe.augment.update(brightness=0.2, contrast=0.2, hue=0.05)
  c.pretrain.clip = c.classifier.clip = 1.0
  c.pretrain.augment.update(brightness=0.3, contrast=0.3, hue=0.08)
  c.segment.update(learning_rate=2e-3, batch_size=4, patience=0)
  c.segment.update(steps=1200, epochs=None, min_epochs=10.0)
  c.model.vgg_norm, c.classify.balanced = 'batch', True
  c.classifier.update(batch_size=16, patience=0, steps=600, epochs=None)


def control():
  """`consistency` without unlabelled images: zooming out, and an average of the network."""
  return {'augment': {'zoom_out': 0.5}, 'ema_decay': 0.99}


def consistency():
  """For a segmentation from few labels: unlabelled images are used again, eight a step, where the
  teacher agrees with itself.
  """
  unlabelled = {'batch_size': 8, 'agreement': 0.9, 'augment': {'zoom_out': 0.5}}
  return {**control(), 'unlabelled': unlabelled}


def with_consistency(c):
  """Names methods that use unlabelled images again while they segment, and `scratch_control`, from
  which `scratch_consistency` differs in that alone.
  """
  c.grid.variants = {
    'scratch_control': {'strategy': 'scratch', 'segment': control()},
    **{
      f'{strategy}_consistency': {'strategy': strategy, 'segment': consistency()}
      for strategy in ('scratch', 'uniform', 'ahm')
    },
  }
