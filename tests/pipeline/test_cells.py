"""The runs that a grid's cells stand for."""

from pathlib import Path

from ahm_jax.config import Config, GridConfig, from_config_dict
from ahm_jax.pipeline.cells import all_cells, cell_of, cell_runs
from ahm_jax.pipeline.stages import CLASSIFY, PRETRAIN, SEGMENT

ROOT = Path('grid')


def runs(method, classify=False):
  cell = cell_of(ROOT, method, 20, 1, GridConfig())
  return list(cell_runs(cell, Config(init_from='elsewhere'), classify))


def test_a_cell_from_scratch_starts_from_nothing():
  (run,) = runs('scratch')
  assert run.stage is SEGMENT and run.workdir == ROOT / 'segment/scratch/labels20/seed1'
  assert (run.config.init_from, run.config.seed, run.config.data.labels) == ('', 1, 20)


def test_each_run_starts_from_the_one_before():
  pretraining, segmentation, classification = runs('ahm:rounds=2', classify=True)
  assert [run.stage for run in (pretraining, segmentation, classification)] == [
    PRETRAIN,
    SEGMENT,
    CLASSIFY,
  ]
  assert pretraining.workdir == ROOT / 'pretrain/ahm:rounds=2/seed1'
  assert segmentation.config.init_from == str(pretraining.workdir)
  assert classification.config.init_from == str(segmentation.workdir)
  assert classification.workdir == ROOT / 'classify/ahm:rounds=2/labels20/seed1'


def test_a_pretraining_does_not_depend_on_labels_or_fine_tuning():
  tuned = 'ahm:rounds=2+segment.learning_rate=0.5'
  plain, other = runs('ahm:rounds=2'), runs(tuned)
  assert plain[0] == other[0] and plain[0].config.data.labels == 0
  assert (plain[0].config.init_from, plain[0].config.masking.rounds) == ('', 2)
  assert other[1].config.segment.learning_rate == 0.5 != plain[1].config.segment.learning_rate
  assert other[1].config.masking == Config().masking  # A segmentation does not look at it.


def test_cells_come_by_seed_then_labels_then_method():
  grid = GridConfig(methods=('scratch', 'ahm'), labels=(20, 50), seeds=(0, 1))
  keys = [cell.key for cell in all_cells(Config(grid=grid), ROOT)]
  assert keys[:3] == [('scratch', 20, 0), ('ahm', 20, 0), ('scratch', 50, 0)] and len(keys) == 8


def test_some_methods_are_trained_with_all_labels_too():
  grid = {'methods': ('scratch', 'ahm'), 'labels': (20, 50), 'seeds': (3,)}
  cells = all_cells(from_config_dict({'grid': grid | {'all_labels': ('scratch',)}}), ROOT)
  both = [(method, labels, 3) for labels in (20, 50) for method in ('scratch', 'ahm')]
  assert [cell.key for cell in cells] == [*both, ('scratch', 0, 3)]
  grid |= {'all_labels': ('scratch',), 'labels': (20, 0)}
  keys = [cell.key for cell in all_cells(from_config_dict({'grid': grid}), ROOT)]
  assert keys[2:] == [('scratch', 0, 3), ('ahm', 0, 3)]


def test_variants_that_differ_in_fine_tuning_share_a_pretraining():
  variants = {
    'r2': {'strategy': 'ahm', 'rounds': 2},
    'r2_slow': {'strategy': 'ahm', 'rounds': 2, 'segment': {'learning_rate': 0.5}},
  }
  grid = {'methods': ('r2', 'r2_slow', 'ahm:rounds=2'), 'variants': variants, 'labels': (20,)}
  config = from_config_dict({'grid': grid | {'seeds': (0,)}})
  cells = all_cells(config, ROOT)
  assert {cell.directory(PRETRAIN) for cell in cells} == {ROOT / 'pretrain/ahm:rounds=2/seed0'}
  plain, slow, short = (list(cell_runs(cell, config, False)) for cell in cells)
  assert plain[0] == slow[0] == short[0] and plain[0].config.masking.rounds == 2
  assert slow[1].workdir == ROOT / 'segment/r2_slow/labels20/seed0'
  assert slow[1].config.segment.learning_rate == 0.5 != plain[1].config.segment.learning_rate


def test_methods_may_name_files_and_keep_folders_of_their_own():
  first, second = 'ahm:data.labelled_from=a/../b.csv', 'uniform:data.labelled_from=a/../b.csv'
  (pretraining, tuned), (_, other) = runs(first), runs(second)
  assert tuned.workdir == ROOT / 'segment/ahm:data.labelled_from=a%2F..%2Fb.csv/labels20/seed1'
  assert tuned.workdir.parent.parent.parent == other.workdir.parent.parent.parent
  assert tuned.workdir != other.workdir
  assert other.workdir != runs('uniform:data.labelled_from=a%2F../b.csv')[1].workdir
  assert pretraining == runs('ahm')[0] and pretraining.config.data.labelled_from == ''
  assert (tuned.config.data.labelled_from, tuned.config.data.labels) == ('a/../b.csv', 20)


def test_what_tells_diagnoses_itself_is_classified_by_no_other_network():
  told = runs('scratch:segment.diagnosis.batch_size=8', classify=True)
  assert [run.stage for run in told] == [SEGMENT]


def test_ways_to_classify_share_a_segmentation():
  variants = {
    'scratch_slow': {'strategy': 'scratch', 'segment': {'learning_rate': 0.5}},
    'scratch_whole': {
      'strategy': 'scratch',
      'segment': {'learning_rate': 0.5},
      'classify': {'input': 'image', 'labels': 40},
      'classifier': {'steps': 7},
    },
  }
  methods = ('scratch_slow', 'scratch_whole', 'ahm:classifier.steps=9')
  grid = {'methods': methods, 'variants': variants, 'labels': (20,), 'seeds': (0,)}
  config = from_config_dict({'grid': grid})
  cells = all_cells(config, ROOT)
  plain, whole, adaptive = (list(cell_runs(cell, config, True)) for cell in cells)
  assert plain[0].workdir == whole[0].workdir == ROOT / 'segment/scratch_slow/labels20/seed0'
  assert plain[0].config.segment == whole[0].config.segment
  assert whole[1].workdir == ROOT / 'classify/scratch_whole/labels20/seed0'
  assert whole[1].config.init_from == str(plain[0].workdir)
  classify = whole[1].config.classify
  assert (classify.input, classify.labels, whole[1].config.classifier.steps) == ('image', 40, 7)
  assert plain[1].config.classify.input == 'crop'
  assert [run.workdir for run in adaptive] == [
    ROOT / 'pretrain/ahm/seed0',
    ROOT / 'segment/ahm/labels20/seed0',
    ROOT / 'classify/ahm:classifier.steps=9/labels20/seed0',
  ]
