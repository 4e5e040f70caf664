"""Learnt masks of others, on the same U-Net: AnatoMask, hard patches mining, AdaMAE, ADIOS.

Each is the paper's way of placing a mask. The papers' networks are transformers or sparse
convolutions with heads of their own; here the U-Net reconstructs for all of them, and where a
network looks at the image, it is our agent's trunk and policy head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.masking.learner import (
  State,
  TaughtState,
  by_policy,
  fresh_agent,
  improved,
  mean_over_workers,
  raw_logits,
  trunk_loader,
  variables_of,
  with_trunk,
)
from ahm_jax.masking.patches import (
  budget_shift,
  draw_exact,
  mask_patches,
  over_images,
  patch_losses,
)
from ahm_jax.masking.policy import policy_logits
from ahm_jax.masking.rollout import Proposal, Rollout
from ahm_jax.masking.strategy import (
  Context,
  Strategy,
  grid_shape,
  growing_share,
  hardest_first,
  moving_average,
)
from ahm_jax.models.layers import infer
from ahm_jax.runtime.averages import average_of
from ahm_jax.runtime.trees import replaced

HARD_SHARE = 0.5  # Of the masked patches, at the end of training, for AnatoMask and HPM.


def anatomask(context: Context) -> Strategy:
  """AnatoMask (Li et al., arXiv 2407.06468): what a teacher reconstructs worst is masked for the
  student.

  The teacher, a moving average of the U-Net, reconstructs images under a uniform mask of the same
  ratio. Of the patches masked for it, those of highest loss are masked for the student, as a share
  of the mask that grows from 0 to 0.5. The rest is uniform.
  """
  masking = context.masking

  def init(key, images, variables):
    del key, images
    return average_of(variables)

  def propose(state, images, key, progress, train):
    del train
    first_key, second_key = jax.random.split(key)
    tried = jax.random.bernoulli(first_key, masking.mask_ratio, grid_shape(images, masking)).astype(
      jnp.float32
    )
    masked = mask_patches(images, tried, masking.patch_size)
    reconstruction = context.reconstruct(state.value, masked)
    losses = patch_losses(reconstruction, images, masking.patch_size, masking.per_modality)
    share = growing_share(progress, masking, HARD_SHARE)
    return hardest_first(second_key, losses * tried, share, masking)

  def learn(state, rollouts, variables, progress):
    del rollouts
    return moving_average(state, variables, progress), {}

  return Strategy(init, propose, learn)


def hpm(context: Context) -> Strategy:
  """Hard patches mining (Wang et al., arXiv 2304.05919): what a teacher predicts to be hard is
  masked.

  A predictor learns to rank the patches of an image by their loss, from pairs of masked ones. Its
  moving average looks at the whole image, and those it ranks highest are masked, as a share of the
  mask that grows from 0 to 0.5. The rest is uniform. In the paper the predictor is a second decoder
  on the encoder's features; here it is a network of its own.
  """
  masking = context.masking
  optimizer = optax.adam(masking.learning_rate)

  def init(key, images, variables):
    del variables
    state = fresh_agent(context, optimizer, key, images)
    return TaughtState(*state, average_of(variables_of(state)))

  def propose(state, images, key, progress, train):
    del train
    predicted, _ = infer(context.agent, state.teacher.value, images)
    return hardest_first(key, predicted, growing_share(progress, masking, HARD_SHARE), masking)

  def learn(state, rollouts, variables, progress):
    del variables
    state, loss = _improved(context, optimizer, state, rollouts, _of_each_round(ranking_loss))
    teacher = moving_average(state.teacher, variables_of(state), progress)
    return state._replace(teacher=teacher), {'ranking_loss': loss}

  def load_trunk(state, params):
    teacher = state.teacher._replace(value=replaced(state.teacher.value, {'params': params}))
    return with_trunk(state, params)._replace(teacher=teacher)

  return Strategy(init, propose, learn, trunk_loader(context, load_trunk))


def ranking_loss(predicted: jax.Array, losses: jax.Array, hidden: jax.Array) -> jax.Array:
  """Mean of -log sigmoid(predicted_i - predicted_j) over all pairs of masked patches of an image
  with losses_i > losses_j.

  Args:
    predicted, losses, hidden: [b, g, g].

  Returns:
    A scalar; 0 where there is no such pair.
  """
  predicted, losses, hidden = (x.reshape(x.shape[0], -1) for x in (predicted, losses, hidden))
  pairs = (losses[:, :, None] > losses[:, None]) * hidden[:, :, None] * hidden[:, None]
  terms = jax.nn.softplus(predicted[:, None] - predicted[:, :, None])
  return (pairs * terms).sum() / jnp.maximum(pairs.sum(), 1)


def adamae(context: Context) -> Strategy:
  """AdaMAE (Bandara et al., arXiv 2211.09120): what is hard to reconstruct is kept visible, by
  REINFORCE over a softmax.

  The visible patches, an exact number of them, are drawn from a categorical distribution without
  replacement. It learns by -mean over masked patches of log P * loss, so that patches with a high
  loss are shown more often. There is no critic, no mask warm-up, and `probability` is near the true
  chance of being masked, not equal to it.
  """
  masking = context.masking
  optimizer = optax.adam(masking.learning_rate)

  def init(key, images, variables):
    del variables
    return fresh_agent(context, optimizer, key, images)

  def propose(state, images, key, progress, train):
    del progress
    logits = raw_logits(context, state, images, train)
    patches = logits.shape[-2] * logits.shape[-1]
    visible = draw_exact(key, logits, patches - round(masking.mask_ratio * patches))
    probability = jax.nn.sigmoid(-logits + budget_shift(-logits, masking.mask_ratio))
    return Proposal(1 - visible, probability)

  def learn(state, rollouts, variables, progress):
    del variables, progress
    state, loss = _improved(context, optimizer, state, rollouts, _of_each_round(sampling_loss))
    return state, {'sampling_loss': loss}

  return Strategy(init, propose, learn, trunk_loader(context))


def sampling_loss(logits: jax.Array, losses: jax.Array, hidden: jax.Array) -> jax.Array:
  """-mean over masked patches of log softmax(logits) * losses, over the patches of each image.

  All [b, g, g], a scalar.
  """
  log_probability = jax.nn.log_softmax(logits.reshape(logits.shape[0], -1)).reshape(logits.shape)
  return -(hidden * log_probability * losses).sum() / jnp.maximum(hidden.sum(), 1)


def adios(context: Context) -> Strategy:
  """After ADIOS (Shi et al., arXiv 2201.13100): the mask is placed by the U-Net's adversary, which
  has its gradient.

  What the U-Net minimises, the loss over the masked patches, is maximised by the policy, through
  the U-Net: so it is told what masking a patch does to the reconstruction of the others, which no
  reward of a patch says. It costs the U-Net a pass forward and one back. ADIOS masks pixels softly,
  from a contrastive learner, and penalises sparse masks; here patches are drawn within the budget,
  and the gradient goes straight through the draw to its probability (Bengio et al., arXiv
  1308.3432).
  """
  masking = context.masking
  optimizer = optax.adam(masking.learning_rate)
  sign = 1 if masking.polarity == 'hard' else -1

  def init(key, images, variables):
    del variables
    return fresh_agent(context, optimizer, key, images)

  def learn(state, rollouts, variables, progress):
    def loss_of(raw, rollout):
      probability = jax.nn.sigmoid(policy_logits(raw, progress, masking))
      # In this order, so that the sum is exactly what was masked: rounding would decide between the
      # equal values of a pool.
      hidden = rollout.hidden + (probability - lax.stop_gradient(probability))
      return -sign * adversarial_loss(context, variables, rollout, hidden)

    state, loss = _improved(context, optimizer, state, rollouts, loss_of)
    return state, {'adversarial_loss': -sign * loss}

  return Strategy(init, by_policy(context), learn, trunk_loader(context))


def adversarial_loss(context: Context, variables, rollout: Rollout, hidden: jax.Array) -> jax.Array:
  """The loss of the U-Net in inference over the masked patches of one worker, differentiable by
  what is masked.

  Args:
    hidden: [T, b, g, g], the rollout's own, from which its gradient may go on. A patch masked by a
      little is a blend of what the U-Net would have seen there and mid-grey, and its loss counts by
      as much.

  Returns:
    sum over patches of hidden * loss / number of masked patches, a scalar.
  """
  patch_size, per_modality = context.masking.patch_size, context.masking.per_modality
  # 0, but for the gradient.
  more = over_images(hidden - rollout.hidden, rollout.masked, patch_size)
  masked = rollout.masked - more * rollout.unmasked
  flat = masked.reshape(-1, *masked.shape[2:])
  reconstruction = context.reconstruct(variables, flat).reshape(masked.shape)
  losses = patch_losses(reconstruction, rollout.observations[:1], patch_size, per_modality)
  return (hidden * losses).sum() / jnp.maximum(rollout.hidden.sum(), 1)


def _of_each_round(loss_of: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """`loss_of`(logits, losses, hidden), each [b, g, g], as a function of the rounds' logits [T,
  b, g, g] and a rollout.
  """
  return lambda logits, rollout: jax.vmap(loss_of)(logits, rollout.losses, rollout.hidden).mean()


def _improved(
  context: Context,
  optimizer: optax.GradientTransformation,
  state: State,
  rollouts: Rollout,
  loss_of: Callable[[jax.Array, Rollout], jax.Array],
) -> tuple[State, jax.Array]:
  """One step on the mean over workers of `loss_of`(logits of the rounds [T, b, g, g], the
  worker's rollout), and that mean.
  """

  def loss_of_worker(logits, values, rollout):
    del values
    return loss_of(logits, rollout)

  def objective(params):
    loss, batch_stats = mean_over_workers(
      context, params, state.batch_stats, loss_of_worker, rollouts
    )
    return loss, (loss, batch_stats)

  return improved(context, optimizer, state, objective)
