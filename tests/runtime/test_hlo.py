from ahm_jax.runtime import hlo

PROGRAM = """HloModule jit_step

%fused_move (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  %t = f32[8,4]{0,1} transpose(%p), dimensions={1,0}
  ROOT %c = f32[8,4]{1,0} copy(%t)
}

%fused_norm (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[4,8]{1,0} multiply(%p, %p)
  ROOT %c.1 = f32[8,4]{1,0} transpose(%q), dimensions={1,0}
}

%fused_conv (p: f32[4,8,8,1], k: f32[3,3,1,1]) -> f32[4,8,8,1] {
  %p = f32[4,8,8,1]{3,2,1,0} parameter(0)
  %k = f32[3,3,1,1]{3,2,1,0} parameter(1)
  ROOT %conv = f32[4,8,8,1]{3,2,1,0} convolution(%p, %k), window={size=3x3}
}

ENTRY %main (a: f32[4,8]) -> f32[8,4] {
  %a = f32[4,8]{1,0} parameter(0)
  %move = f32[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused_move
  %norm = f32[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused_norm, metadata={NORM}
  %conv.1 = f32[4,8,8,1]{3,2,1,0} fusion(%a, %a), calls=%fused_conv, metadata={CONV}
  %cudnn = (f32[4,8]{1,0}, u8[0]{0}) custom-call(%a, %a), custom_call_target="__cudnn$convForward"
  %gemm = (f32[4,4]{1,0}, s8[0]{0}) custom-call(%a, %a), custom_call_target="__cublas$gemm"
  %dot.2 = f32[4,4]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %sum = f32[4,8]{1,0} all-reduce(%a), to_apply=%add
  %loop = f32[4,8]{1,0} while(%a), condition=%cond, body=%body
  %bits = u32[4,8]{1,0} bitcast-convert(%a)
  ROOT %narrow = bf16[4,8]{1,0} convert(%a)
}
"""
PROGRAM = PROGRAM.replace('NORM', 'op_name="jit(step)/jvp(UNet)/encoder1/norm/mul"')
PROGRAM = PROGRAM.replace('CONV', 'op_name="jit(s)/transpose(jvp(U))/a/b/conv"')


def test_operations_have_their_kind_and_source():
  described = hlo.describe(PROGRAM)
  kinds = {
    name: described[name][0]
    for name in ('move', 'norm', 'conv.1', 'cudnn', 'gemm', 'dot.2', 'sum', 'bits', 'narrow')
  }
  assert kinds == {
    'move': 'copy',
    'norm': 'elementwise',
    'conv.1': 'convolution',
    'cudnn': 'convolution',
    'gemm': 'matrix',
    'dot.2': 'matrix',
    'sum': 'communication',
    'bits': 'elementwise',
    'narrow': 'elementwise',
  }
  assert 'loop' not in described
  assert described['conv.1'][1] == 'backward a/b/conv'
  assert described['norm'][1] == 'encoder1/norm/mul'
