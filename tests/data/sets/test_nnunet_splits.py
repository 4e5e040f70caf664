"""splits_final.json: honest splits, and every file that does not fit refused in a line."""

import pytest

from ahm_jax.config import DataConfig
from ahm_jax.data.sets import nnunet_splits
from ahm_jax.data.sets.items import Item
from ahm_jax.errors import UserError
from tests.data.sets.nnunet_set import NnUNet
from tests.hostile_json import DAMAGES

TWENTY = 'abcdefghijklmnopqrst'


def items(names):
  return [Item(name, 'train', '', name, image=None, mask=object()) for name in names]


def assign(root, names, test='', **fields):
  notes = []
  config = DataConfig(name='nnunet', root=str(root), **fields)
  found = nnunet_splits.assign(root, items(names), items(test), config, notes)
  splits = {name: [] for name in ('train', 'validation', 'test')}
  for item in found:
    splits[item.split].append(item.name)
  return {name: ''.join(sorted(cases)) for name, cases in splits.items()}, notes


@pytest.fixture
def made(tmp_path):
  return NnUNet(tmp_path / 'set')


def test_a_share_of_all_cases_is_held_out_of_those_trained_on(made):
  made.folds((TWENTY[:16], TWENTY[16:]), (TWENTY[4:], TWENTY[:4]))
  for fold, train in enumerate((TWENTY[:16], TWENTY[4:])):
    found, notes = assign(made.root, TWENTY, fold=fold)
    assert found['validation'] == ''.join(sorted(set(TWENTY) - set(train)))
    assert len(found['test']) == 4 and set(found['test']) < set(train)  # 0.2 of 20.
    assert sorted(found['train'] + found['test']) == list(train)
    assert f'cases of the train of fold {fold} that are held out as the test split: 4' in notes
  another, _ = assign(made.root, TWENTY, split_seed=3)
  assert another['test'] != assign(made.root, TWENTY)[0]['test']
  none, _ = assign(made.root, TWENTY, split_fractions=(0.9, 0.1, 0.0))
  assert none['test'] == '' and none['train'] == TWENTY[:16]


def test_a_test_set_takes_none_of_the_fold(made):
  made.folds((TWENTY[:16], TWENTY[16:]))
  found, _ = assign(made.root, TWENTY, 'xyz')
  assert found == {'train': TWENTY[:16], 'validation': TWENTY[16:], 'test': 'xyz'}


def test_without_folds_the_shares_are_those_of_the_config(made):
  found, notes = assign(made.root, TWENTY)
  assert {name: len(cases) for name, cases in found.items()} == {
    'train': 14,
    'validation': 2,
    'test': 4,
  }
  found, _ = assign(made.root, TWENTY, 'xyz', split_fractions=(0.6, 0.2, 0.2))
  assert [len(cases) for cases in found.values()] == [15, 5, 3] and found['test'] == 'xyz'
  assert str(made.root / 'splits_final.json') in notes[0]
  (made.root / 'splits_final.pkl').write_bytes(b'')
  assert 'splits_final.pkl, which is there, is not read' in assign(made.root, TWENTY)[1][0]


def test_cases_that_a_fold_does_not_name_are_left_out(made):
  made.folds(('abc', 'de'))
  found, notes = assign(made.root, 'abcdefg', 'x')
  assert found == {'train': 'abc', 'validation': 'de', 'test': 'x'}
  assert any("does not name them: 2 ('f', 'g')" in note for note in notes)


@pytest.mark.parametrize(
  ('folds', 'fields', 'said'),
  [
    ([('abc', 'cd')], {}, "fold 0 names case 'c' in train and in val"),
    ([('abb', 'cd')], {}, "train of fold 0 names 'b' twice"),
    ([('ab', 'cx')], {}, "val of fold 0 names case 'x', which is not among the 4 training cases"),
    ([('ab', '')], {}, 'val of fold 0 is empty'),
    ([('', 'ab')], {}, 'train of fold 0 is empty'),
    ([('ab', 'cd')], {'fold': 1}, 'has 1 folds, and config.data.fold is 1'),
    ([], {}, 'has 0 folds'),
    ([('ab', 'cd')], {'split_fractions': (0.4, 0.1, 0.5)}, 'would take all 2 cases that fold 0'),
  ],
)
def test_what_is_refused(made, folds, fields, said):
  made.folds(*folds)
  with pytest.raises(UserError) as caught:
    assign(made.root, 'abcd', **fields)
  assert said in str(caught.value) and '\n' not in str(caught.value)


def test_a_fold_of_no_file(made):
  with pytest.raises(
    UserError, match=r'config.data.fold is 2, but there is no .*splits_final.json'
  ):
    assign(made.root, 'abcd', fold=2)


def test_nothing_to_train_on(made):
  with pytest.raises(UserError, match='which leaves nothing to train on'):
    assign(made.root, 'abcd', split_fractions=(0.0, 0.0, 1.0))


@pytest.mark.parametrize('name', DAMAGES)
def test_damage(made, name):
  (made.root / 'splits_final.json').write_bytes(DAMAGES[name])
  with pytest.raises(UserError) as caught:
    assign(made.root, 'abcd')
  assert str(made.root / 'splits_final.json') in str(caught.value)
