import jax
import pytest

from ahm_jax import compilation


@pytest.fixture(autouse=True)
def restored_config():
  names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_programs_are_kept_below_the_users_cache(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  compilation.keep_programs()
  folder = tmp_path / 'ahm_jax'
  assert jax.config.jax_compilation_cache_dir.startswith(str(folder / 'jaxlib-'))
  assert len(list(folder.iterdir())) == 1


def test_without_xdg_they_are_below_the_home(monkeypatch, tmp_path):
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  compilation.keep_programs()
  assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / '.cache' / 'ahm_jax'))


def test_another_place_is_left_alone(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', '/elsewhere')
  compilation.keep_programs()
  assert jax.config.jax_compilation_cache_dir == '/elsewhere'
  assert not list(tmp_path.iterdir())


def test_without_room_nothing_is_kept(monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  compilation.keep_programs()
  assert jax.config.jax_compilation_cache_dir is None


def test_processors_are_told_apart(monkeypatch):
  here = compilation._processor()
  assert here == compilation._processor() and len(here) == 12
  monkeypatch.setattr(compilation.platform, 'machine', lambda: 'other')
  assert compilation._processor() != here
