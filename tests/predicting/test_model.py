import dataclasses

import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.predicting.model import checked, load_segmenter


def test_weights_of_another_width_are_refused(segmenter):
  model = dataclasses.replace(segmenter.config.model, unet_width=4)
  other = dataclasses.replace(segmenter, config=dataclasses.replace(segmenter.config, model=model))
  assert checked(segmenter) is segmenter
  with pytest.raises(
    UserError, match=r'^run: batch_stats/decoder1/first/norm/mean is 2 in its weights but 4 by its config \(width'
  ):
    checked(other)


def test_weights_that_are_missing_are_refused(segmenter):
  variables = {**segmenter.variables, 'params': {k: v for k, v in segmenter.variables['params'].items() if k != 'head'}}
  with pytest.raises(UserError, match='params/head/bias is not there in its weights but 1 by its config'):
    checked(dataclasses.replace(segmenter, variables=variables))


def test_the_digest_is_that_of_the_weights(segmenter, make_segmenter):
  assert make_segmenter().digest == segmenter.digest != make_segmenter(seed=1).digest


def test_what_it_says_of_itself(make_segmenter):
  binary, classes = make_segmenter(), make_segmenter(('a', 'b'), channels=1)
  assert (binary.image_size, binary.channels, binary.mask_classes, binary.class_names) == (16, 3, (), ('lesion',))
  assert (classes.channels, classes.class_names) == (1, ('a', 'b'))
  assert binary.probabilities(binary.variables, np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 16, 16)
  found = np.asarray(classes.probabilities(classes.variables, np.zeros((2, 16, 16, 1), np.uint8)))
  np.testing.assert_allclose(found.sum(-1), np.ones((2, 16, 16)), atol=1e-5)


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(UserError, match='there is no such folder'):
    load_segmenter(tmp_path / 'nowhere')
  with pytest.raises(UserError, match=r'holds no run\.json'):
    load_segmenter(tmp_path)
