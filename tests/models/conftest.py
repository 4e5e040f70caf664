import jax
import pytest


@pytest.fixture(autouse=True, scope='module')
def compile_fast():
  """These tests compile large networks to run them once on tiny images; code generation is most of their time."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
