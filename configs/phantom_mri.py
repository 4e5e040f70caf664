"""Brain phantoms in three MRI sequences, drawn from a seed, whose lesions no sequence shows by
itself: what data.modalities and masking.per_modality do, in a few minutes on 2 cores.

  launch/with_env python -m launch.reproduce --config=configs/phantom_mri.py --workdir=runs/mri

compares scratch, uniform masks, adaptive hard masks of patches of all sequences, and of patches of
each. Lesions have no classes, so there is no classification. Two seeds show that it runs; for a
difference take more, by --config.grid.seeds.
"""

from configs import phantom

MODALITIES = ('flair', 't1', 't2')
METHODS = ('scratch', 'uniform', 'ahm', 'ahm:per_modality=True')


def get_config():
  c = phantom.get_config()
  c.data.name, c.data.modalities = 'phantom_mri', MODALITIES
  c.data.phantom.update(train=400, validation=60, test=120)
  c.segment.update(steps=300, eval_every=60)  # After 150 some have found no lesion yet.
  c.grid.methods, c.grid.seeds, c.grid.classify = METHODS, (0, 1), False
  return c
