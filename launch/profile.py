"""Shows where the time of a training step goes: traces whole steps with the JAX profiler, after warm-up, and sums them up.

  python -m launch.profile --config=configs/phantom.py --workdir=runs/profile
  python -m launch.profile --config=configs/phantom.py --workdir=runs/profile --stage=segment --config.profile.steps=20:40

Prints time by kind of operation, images/s, operations, memory and the costliest operations. The trace lies in WORKDIR/profile,
for XProf or TensorBoard (tensorboard --logdir=WORKDIR/profile) or Perfetto. Nothing is trained for keeps; to profile a run that
is, give its own command --config.profile.steps=a:b.

  --stage=NAME             pretrain (the default), segment or classify."""

import jax
from absl import flags

from ahm_jax import parallel, profiling, stages, trace
from ahm_jax.profiling import Profiler
from launch import app

_STAGE = flags.DEFINE_enum('stage', 'pretrain', ['pretrain', 'segment', 'classify'], 'Which training to profile.')
STEPS = '5:15'  # Where the config names none.


def main(config, workdir):
  steps = config.profile.steps or STEPS
  _, end = profiling.parse(steps)
  plan = {'pretrain': stages.plan_pretrain, 'segment': stages.plan_segment, 'classify': stages.plan_classify}[_STAGE.value](
    config, workdir
  )
  source = plan.source(config)
  advance = parallel.over_all(plan.task.step, source.devices)
  init_key, step_key = jax.random.split(jax.random.key(config.seed))
  key = parallel.replicate(step_key, source.devices)
  state = parallel.replicate(plan.task.init(init_key), source.devices)
  with Profiler(steps, workdir / 'profile') as profiler:
    for step, inputs in enumerate(source.inputs(0, end)):
      profiler.before(step, state)
      state, _ = advance(state, source.resident, inputs, key)
      capture = profiler.after(step, state)
  lowered = advance.lower(state, source.resident, inputs, key)
  print(trace.table(trace.summarise(capture, lowered, source.batch_size)))
  print(f'\n{capture.directory}')


if __name__ == '__main__':
  app.run(main)
