import jax
import pytest

jax.config.update('jax_num_cpu_devices', 4)

from ahm_jax import parallel  # noqa: E402


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Runs train on one of the four host devices, as on a user's CPU; tests of several devices name them."""
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:1]))
