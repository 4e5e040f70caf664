import jax
import pytest


@pytest.fixture(autouse=True)
def quick_compilation():
  """Optimising the many programs here would take many times as long as running them."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
