from pathlib import Path

import pytest

from ahm_jax.config import Config, from_config_dict, to_dict
from ahm_jax.config.paths import PREPARING, SAVING, check_named, local
from ahm_jax.config.tree import leaves
from ahm_jax.errors import UserError

URLS = ['gs://bucket/run', 's3://b', 'https://host/a', 'file:///tmp/a', 'hdfs://n:1/a', 'a+b://c']
FIELDS = (
  *('init_from', 'data.root', 'data.labelled_from', 'data.prepared_dir'),
  *('model.vgg_weights', 'segment.unlabelled.teacher', 'grid.results'),
)


@pytest.mark.parametrize('url', URLS)
def test_a_url_is_no_path(url):
  assert 'a URL; give a path of this machine' in local(url)
  with pytest.raises(UserError, match=r'--out is .*, a URL'):
    check_named(Path(url), '--out', SAVING)  # Which `Path` makes shorter.


@pytest.mark.parametrize('path', ['', 'runs/a', '/a:b/c', '~/a', './gs:/a', 'a b', '..', 'C:'])
def test_paths_are_let_pass(path):
  assert local(path) == ''


@pytest.mark.parametrize('field', FIELDS)
def test_every_field_that_is_a_path_refuses_urls(field):
  tree = value = {}
  *sections, name = field.split('.')
  for section in sections:
    value = value.setdefault(section, {})
  value[name] = ['gs://b/results.json'] if field == 'grid.results' else 'gs://b/a'
  with pytest.raises(UserError, match=rf'config\.{field} is .*, a URL'):
    from_config_dict(tree)
  value[name] = 'a\0b'
  with pytest.raises(UserError, match=rf'config\.{field} holds a NUL character'):
    from_config_dict(tree)


def test_no_field_that_is_a_path_is_forgotten():
  """Texts that are no paths are names of something."""
  texts = {leaf.name for leaf in leaves(Config()) if leaf.type in (str, tuple[str, ...])}
  names = {'data.name', 'data.mask_classes', 'masking.strategy', 'grid.methods', 'profile.steps'}
  names |= {
    'segment.unlabelled.masking.strategy',
    'segment.reconstruction.masking.strategy',
    'data.mask_suffix',
    'grid.baselines',
    'grid.all_labels',
    'data.modalities',
    'data.intensity',
  }
  assert texts - names == set(FIELDS)


def test_a_library_has_its_own_patterns(tmp_path):
  check_named(tmp_path / 'a[b]', '--config.data.prepared_dir', PREPARING)
  with pytest.raises(UserError, match=r'--config\.data\.prepared_dir leads to .* holds \*\*'):
    check_named(tmp_path / 'a**b', '--config.data.prepared_dir', PREPARING)


WRONG = [None, True, 7, 0.5, 10**30, 10**400, -(10**30), '', 'x', [], [[1]], [{'a': 1}], {'a': 1}]


@pytest.mark.parametrize('value', WRONG, ids=lambda value: repr(value)[:12])
def test_a_config_of_wrong_types_is_refused_in_one_line(value):
  """As a run.json that was changed may have it: whatever is put in whatever place."""

  def places(tree, path=()):
    for name, item in tree.items():
      yield (*path, name)
      if isinstance(item, dict):
        yield from places(item, (*path, name))

  for place in places(to_dict(Config())):
    tree = {}
    node = tree
    for name in place[:-1]:
      node = node.setdefault(name, {})
    node[place[-1]] = value
    try:
      from_config_dict(tree)
    except UserError as error:
      assert '\n' not in str(error)
  if not isinstance(value, dict):
    with pytest.raises(UserError, match='must hold fields'):
      from_config_dict(value)
