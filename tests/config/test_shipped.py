"""Where configs/ and launch/ lie, and which file a name stands for."""

import importlib
import sys
from pathlib import Path

import pytest

from ahm_jax.config import shipped
from ahm_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_in_a_checkout_they_lie_beside_the_package_and_in_an_installed_one_within(
  monkeypatch, tmp_path
):
  assert shipped.folder('configs') == ROOT / 'configs'
  assert shipped.folder('launch') == ROOT / 'launch'
  (tmp_path / 'ahm_jax/configs').mkdir(parents=True)
  (tmp_path / 'configs').mkdir()
  monkeypatch.setattr(shipped, '_PACKAGE', tmp_path / 'ahm_jax')
  assert shipped.folder('configs') == tmp_path / 'ahm_jax/configs'


def test_names_are_those_of_the_files():
  names = shipped.config_names()
  assert {'phantom', 'smoke', 'isic_cpu', 'folder'} <= set(names) and names == sorted(names)
  for name in names:
    assert shipped.config_file(name) == (str(ROOT / f'configs/{name}.py'), None)
  assert shipped.config_file('isic_cpu:few') == (str(ROOT / 'configs/isic_cpu.py'), 'few')


def test_files_are_found_by_their_paths(tmp_path, monkeypatch):
  (tmp_path / 'mine.py').write_text('')
  (tmp_path / 'phantom').write_text('')
  (tmp_path / 'bare').write_text('')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert shipped.config_file('mine.py:a:b') == ('mine.py', 'a:b')
  assert shipped.config_file('~/mine.py') == (str(tmp_path / 'mine.py'), None)
  assert shipped.config_file('bare') == ('bare', None)
  assert shipped.config_file('./phantom') == ('phantom', None)
  assert shipped.config_file('phantom')[0] == str(ROOT / 'configs/phantom.py')


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('phantm', '--config=phantm: there is no such config; did you mean phantom, phantom_mri?'),
    ('Phantom', 'there is no such config; did you mean phantom, phantom_mri?'),
    ('isic:', ''),
    ('isic_gpu:few', 'there is no such config; did you mean isic_cpu, isic'),
    ('zzz', 'there is no such config; there are busi_cpu, folder, isic, isic2018, isic_cpu, '),
    ('phantom.py', 'there is no such file; did you mean phantom, phantom_mri?'),
    ('elsewhere/phantom.py', 'there is no such file; did you mean phantom, phantom_mri?'),
    ('', '--config is empty; give a config file, or one of busi_cpu, '),
    (':few', '--config is empty; '),
    ('/', '--config=/ is a folder; give a config file, or one of busi_cpu, '),
    ('~no-such-user/x', 'there is no such file'),
    ('x' * 5000, 'there is no such config'),
    ('gs://bucket/x.py', "--config is 'gs://bucket/x.py', a URL"),
    ('a\0', '--config holds a NUL character'),
  ],
)
def test_other_names_are_refused_with_near_ones(given, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  if not message:
    assert shipped.config_file(given)[1] == ''
    return
  with pytest.raises(UserError) as refused:
    shipped.config_file(given)
  assert message in str(refused.value) and '\n' not in str(refused.value)


def test_what_cannot_be_looked_at_is_not_called_missing(monkeypatch):
  real = Path.stat

  def refuse(path, **options):
    if path.name == 'own.py':
      raise PermissionError(13, 'Permission denied')
    return real(path, **options)

  with monkeypatch.context() as patch:
    patch.setattr(Path, 'stat', refuse)
    found = shipped.config_file('locked/own.py')
  assert found == ('locked/own.py', None)


def test_configs_can_be_imported_whatever_else_is_called_so(tmp_path, monkeypatch):
  """Those of the package first, then those in folders of that name on the path."""
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs/__init__.py').write_text('')
  (tmp_path / 'configs/smoke.py').write_text('FOREIGN = True')
  (tmp_path / 'configs/own_base.py').write_text('FOREIGN = True')
  monkeypatch.syspath_prepend(tmp_path)
  before = {name for name in sys.modules if name.startswith('configs')}
  with shipped.importable_configs():
    smoke = importlib.import_module('configs.smoke')
    assert smoke.__file__ == str(ROOT / 'configs/smoke.py') and not hasattr(smoke, 'FOREIGN')
    assert importlib.import_module('configs.own_base').FOREIGN
  assert {name for name in sys.modules if name.startswith('configs')} == before
