"""Schemas of operators of com.microsoft, by tools/contrib_schemas.py.

An entry: name, inputs -> outputs | attributes | types. '?' is optional, '*' repeats with one type,
'**' with any, '!' is required.
"""

TEXT = """\
Attention input:T weights:T bias?:T mask_index?:M past?:T attention_bias?:T
  past_sequence_length?:M -> output:T present?:T | do_rotary:INT mask_filter_value:FLOAT
  num_heads!:INT past_present_share_buffer:INT qkv_hidden_sizes:INTS rotary_embedding_dim:INT
  scale:FLOAT unidirectional:INT=0 | T=float,float16,bfloat16 M=int32
BiasAdd X:T bias:T skip:T -> Y:T | | T=float16,float
BiasGelu A:T B:T -> C:T | | T=float16,float,double,bfloat16
BiasSoftmax data:T bias:T -> output:T | axis:INT=1 is_inner_broadcast!:INT |
  T=float16,float,double
BiasSplitGelu X:T bias:T -> Y:T | | T=float16,float
CDist A:T B:T -> C:T | metric:STRING=sqeuclidean | T=float,double
CausalConvWithState input:T weight:T bias?:T past_state?:T -> output:T present_state:T
  state_update?:T | activation:STRING=none channels_last:INT=0 dilation:INT=1
  input_channel_offset:INT=0 input_channels:INT=0 ndim:INT=1 state_channels_last:INT=-1
  state_length:INT=0 state_update_capacity:INT=0 state_window:INT=0 | T=float,float16,bfloat16
DecoderMaskedMultiHeadAttention query:T key?:T value?:T mask_index?:M attention_bias?:T
  past_key?:T past_value?:T past_sequence_length?:M beam_width?:M cache_indirection?:M bias?:T ->
  output:T present_key?:T present_value?:T qk?:QK | mask_filter_value:FLOAT num_heads!:INT
  output_qk:INT past_present_share_buffer:INT scale:FLOAT | T=float,float16 QK=float,float16
  M=int32
DequantizeLinear x:T1 x_scale:T2 x_zero_point?:T1 -> y:T2 | axis:INT |
  T1=int8,uint8,int16,uint16,int32,int4 T1=uint4 T2=float16,float
DynamicQuantizeLSTM X:T W:T2 R:T2 B?:T sequence_lens?:T1 initial_h?:T initial_c?:T P?:T W_scale:T
  W_zero_point:T2 R_scale:T R_zero_point:T2 -> Y?:T Y_h?:T Y_c?:T | activation_alpha:FLOATS
  activation_beta:FLOATS activations:STRINGS clip:FLOAT direction:STRING=forward hidden_size:INT
  input_forget:INT=0 | T=float T1=int32 T2=uint8,int8
DynamicQuantizeMatMul A:T1 B:T2 b_scale:T1 b_zero_point?:T2 bias?:T1 -> Y:T1 | | T1=float
  T2=int8,uint8
EmbedLayerNormalization input_ids:T1 segment_ids?:T1 word_embedding:T position_embedding:T
  segment_embedding?:T gamma:T beta:T mask?:T1 position_ids?:T1 -> output:T mask_index?:T1
  embedding_sum?:T | epsilon:FLOAT=1e-12 mask_index_type:INT | T1=int32 T=float,float16
ExpandDims X:T axis:int32 -> Y:T | | T=uint8,uint16,uint32,uint64,int8,int16
  T=int32,int64,float16,float,double,string T=bool,complex64,complex128
FastGelu X:T bias?:T -> Y:T | | T=float,double,float16,bfloat16
FusedConv X:T W:T B?:T Z?:T -> Y:T | activation:STRING activation_params:FLOATS
  auto_pad:STRING=NOTSET dilations:INTS group:INT=1 kernel_shape:INTS pads:INTS strides:INTS |
  T=float16,float,double
FusedGemm A:T B:T C?:T -> Y:T | activation:STRING activation_alpha:FLOAT activation_beta:FLOAT
  activation_gamma:FLOAT alpha:FLOAT=1.0 beta:FLOAT=1.0 transA:INT=0 transB:INT=0 |
  T=float16,float,double,uint32,uint64,int32 T=int64
FusedMatMul A:T B:T -> Y:T | alpha:FLOAT=1.0 transA:INT=0 transB:INT=0 transBatchA:INT=0
  transBatchB:INT=0 | T=float16,float,double,bfloat16
FusedMatMulActivation A:T B:T -> Y:T | activation!:STRING activation_alpha:FLOAT
  activation_axis:INT activation_beta:FLOAT activation_gamma:FLOAT alpha:FLOAT=1.0 transA:INT=0
  transB:INT=0 transBatchA:INT=0 transBatchB:INT=0 | T=float16,float,double,bfloat16
GatedAdd X:T Y:T gate:T gate_weight?:T -> output:T | | T=float,float16,bfloat16
GatedRMSNorm X:T scale:T gate:T -> Y:T | activation:STRING=silu epsilon:FLOAT=1e-05 |
  T=float,float16,bfloat16
GatherBlockQuantized data:T1 indices:Tind scales:T2 zero_points?:T1 -> output:T2 | bits:INT=4
  block_size:INT=128 gather_axis:INT=0 quantize_axis:INT=1 |
  T1=int4,uint4,uint8,float8e4m3fn,float8e4m3fnuz,float8e5m2 T1=float8e5m2fnuz,float4e2m1
  T2=float,float16,bfloat16 Tind=int32,int64
GatherND data:T indices:Tind -> output:T | | T=uint8,uint16,uint32,uint64,int8,int16
  T=int32,int64,float16,float,double,string T=bool,complex64,complex128 Tind=int32,int64
Gelu X:T -> Y:T | | T=float16,float,double,bfloat16
GemmFastGelu X:T W:T bias?:T -> Y:T | | T=float,float16,bfloat16
GridSample X:T1 Grid:T1 -> Y:T2 | align_corners:INT=0 mode:STRING=bilinear
  padding_mode:STRING=zeros | T1=uint8,uint16,uint32,uint64,int8,int16
  T1=int32,int64,float16,float,double,string T1=bool,complex64,complex128 T2=float16,float,double
GroupNorm X:T gamma:M beta:M -> Y:T | activation!:INT channels_last:INT=1 epsilon:FLOAT=1e-05
  groups!:INT | T=float16,float M=float16,float
GroupQueryAttention query:T key?:T value?:T past_key?:T_CACHE past_value?:T_CACHE seqlens_k:M
  total_sequence_length:M cos_cache?:T sin_cache?:T position_ids?:int64 attention_bias?:T
  head_sink?:T k_scale?:T_KV_SCALE v_scale?:T_KV_SCALE q_norm_weight?:T k_norm_weight?:T
  query_seqlens?:M -> output:T present_key?:T_CACHE present_value?:T_CACHE output_qk?:T |
  causal:INT=1 do_rotary:INT k_norm_epsilon:FLOAT k_quant_type:STRING=NONE kv_cache_bit_width:INT
  kv_num_heads!:INT local_window_size:INT=-1 num_heads!:INT q_norm_epsilon:FLOAT
  qk_norm_epsilon:FLOAT=1e-06 qk_output:INT=0 rotary_interleaved:INT scale:FLOAT
  sliding_window_cache:INT=0 smooth_softmax:INT=-1 softcap:FLOAT v_quant_type:STRING=NONE |
  T=float16,bfloat16,float T_CACHE=float,float16,bfloat16,uint8,int8,float8e4m3fn T_KV_SCALE=float
  M=int32
LinearAttention query:T key:T value:T past_state?:S decay?:T beta?:T -> output:T present_state:S |
  chunk_size:INT=64 kv_num_heads!:INT q_num_heads!:INT scale:FLOAT=0.0 state_window:INT=0
  update_rule:STRING=gated_delta | T=float,float16,bfloat16 S=float,float16,bfloat16
LinearAttentionGate a:T dt_bias:TF decay_scale:TF b?:T -> decay:T beta?:T | |
  T=float,float16,bfloat16 TF=float
MRotaryEmbedding input:T position_ids:M cos_cache:T sin_cache:T -> output:T | interleaved:INT
  is_packed_batching:INT mrope_layout:INT mrope_section!:INTS num_heads:INT
  rotary_embedding_dim:INT scale:FLOAT | T=float,float16,bfloat16 M=int64
MatMulBnb4 A:T1 B:T2 absmax:T1 -> Y:T1 | K!:INT N!:INT block_size!:INT quant_type!:INT
  training_mode:INT=0 transB:INT=1 | T1=float,float16,bfloat16 T2=uint8
MatMulIntegerToFloat A:T1 B:T2 a_scale:T3 b_scale:T3 a_zero_point?:T1 b_zero_point?:T2 bias?:T3 ->
  Y:T3 | | T1=int8,uint8 T2=int8,uint8 T3=float,float16
MatMulNBits A:T1 B:T2 scales:T1 zero_points?:T3 g_idx?:T4 bias?:T1 -> Y:T1 | K!:INT N!:INT
  accuracy_level:INT=0 bits:INT=4 block_size!:INT weight_prepacked:INT=0 |
  T1=float,float16,bfloat16 T2=uint8 T3=uint8,float16,float,bfloat16 T4=int32
MoE input:T router_probs:T fc1_experts_weights:T fc1_experts_bias?:T fc2_experts_weights:T
  fc2_experts_bias?:T fc3_experts_weights?:T fc3_experts_bias?:T -> output:T |
  activation_alpha:FLOAT=1.0 activation_beta:FLOAT=0.0 activation_type:STRING=relu k:INT=1
  normalize_routing_weights:INT=0 swiglu_fusion:INT=0 swiglu_limit:FLOAT
  swiglu_limit_after_activation:INT=0 use_sparse_mixer:INT=0 | T=float,float16,bfloat16
MulInteger A:T A_zero_point?:T B:T B_zero_point?:T -> C:T1 | | T=uint8,int8 T1=int32
MultiHeadAttention query:T key?:T value?:T bias?:T key_padding_mask?:M attention_bias?:T
  past_key?:T past_value?:T past_sequence_length?:M cache_indirection?:M -> output:T
  present_key?:T present_value?:T qk?:QK | mask_filter_value:FLOAT num_heads!:INT scale:FLOAT
  unidirectional:INT=0 | T=float,float16,bfloat16 QK=float,float16,bfloat16 M=int32
MurmurHash3 X:T1 -> Y:T2 | positive:INT=1 seed:INT=0 | T1=uint32,int32,uint64,int64,float,double
  T1=string T2=uint32,int32
NhwcConv X:T W:T B?:T -> Y:T | auto_pad:STRING=NOTSET dilations:INTS group:INT=1 kernel_shape:INTS
  pads:INTS strides:INTS | T=float16,float,double
NhwcFusedConv X:T W:T B?:T Z?:T -> Y:T | activation:STRING activation_params:FLOATS
  auto_pad:STRING=NOTSET dilations:INTS group:INT=1 kernel_shape:INTS pads:INTS strides:INTS |
  T=float16,float
NhwcMaxPool x:T -> y:T | auto_pad:STRING=NOTSET ceil_mode:INT=0 dilations:INTS kernel_shape!:INTS
  pads:INTS strides:INTS | T=int8,uint8
Pad data:T pads:int64 value?:T -> output:T | mode:STRING=constant | T=float16,float,double
QAttention input:T1 weight:T2 bias:T3 input_scale:T3 weight_scale:T3 mask_index?:T4
  input_zero_point?:T1 weight_zero_point?:T2 past?:T3 -> output:T3 present?:T3 | do_rotary:INT
  mask_filter_value:FLOAT num_heads!:INT past_present_share_buffer:INT scale:FLOAT
  unidirectional:INT=0 | T1=int8,uint8 T2=int8,uint8 T3=float,float16 T4=int32
QEmbedLayerNormalization input_ids:T1 segment_ids?:T1 word_embedding_quant:T2
  position_embedding_quant:T2 segment_embedding?:T2 gamma_quant:T2 beta_quant:T2 mask?:T1
  word_embedding_scale:T position_embedding_scale:T segment_embedding_scale?:T gamma_scale:T
  beta_scale:T word_embedding_zero_point:T2 position_embedding_zero_point:T2
  segment_embedding_zero_point?:T2 gamma_zero_point:T2 beta_zero_point:T2 -> layernorm_out:T
  mask_index_out:T1 | epsilon:FLOAT=1e-12 | T1=int32 T2=int8,uint8 T=float
QGemm A:TA a_scale:T a_zero_point:TA B:TB b_scale:T b_zero_point:TB C?:TC y_scale?:T
  y_zero_point?:TYZ -> Y:TY | alpha:FLOAT=1.0 transA:INT=0 transB:INT=0 | T=float TA=uint8,int8
  TB=uint8,int8 TC=int32 TYZ=uint8,int8 TY=float,uint8,int8
QLinearAdd A:T A_scale:float A_zero_point?:T B:T B_scale:float B_zero_point?:T C_scale:float
  C_zero_point?:T -> C:T | | T=uint8,int8
QLinearAveragePool X:T x_scale:float x_zero_point?:T y_scale:float y_zero_point?:T -> Y:T |
  auto_pad:STRING=NOTSET ceil_mode:INT=0 channels_last:INT=0 count_include_pad:INT=0
  kernel_shape!:INTS pads:INTS strides:INTS | T=uint8,int8
QLinearConcat Y_scale:TF Y_zero_point:T8 inputs**:TV -> Y:T8 | axis!:INT | T8=uint8,int8 TF=float
  TV=uint8,int8,float
QLinearConv x:T1 x_scale:float x_zero_point:T1 w:T2 w_scale:float w_zero_point:T2 y_scale:float
  y_zero_point:T3 B?:T4 -> y:T3 | auto_pad:STRING=NOTSET channels_last:INT=0 dilations:INTS
  group:INT=1 kernel_shape:INTS pads:INTS strides:INTS | T1=int8,uint8 T2=int8,uint8 T3=int8,uint8
  T4=int32
QLinearGlobalAveragePool X:T x_scale:float x_zero_point:T y_scale:float y_zero_point:T -> Y:T |
  channels_last:INT=0 | T=uint8,int8
QLinearLeakyRelu X:T X_scale:float X_zero_point?:T Y_scale:float Y_zero_point?:T -> Y:T |
  alpha:FLOAT=0.01 | T=uint8,int8
QLinearMul A:T A_scale:float A_zero_point?:T B:T B_scale:float B_zero_point?:T C_scale:float
  C_zero_point?:T -> C:T | | T=uint8,int8
QLinearReduceMean data:T data_scale:float data_zero_point?:T reduced_scale:float
  reduced_zero_point?:T -> reduced:T | axes!:INTS keepdims!:INT | T=uint8,int8
QLinearSigmoid X:T X_scale:float X_zero_point?:T Y_scale:float Y_zero_point?:T -> Y:T | |
  T=uint8,int8
QLinearSoftmax X:T X_scale:float x_zero_point?:T y_scale:float y_zero_point:T -> Y:T | axis:INT=-1
  opset!:INT | T=uint8,int8
QLinearWhere condition:B X:T x_scale:TF x_zero_point:T Y:T y_scale:TF y_zero_point:T z_scale:TF
  z_zero_point:T -> Z:T | | B=bool TF=float T=uint8,int8
QMoE input:T router_probs:T fc1_experts_weights:T1 fc1_scales?:T2 fc1_experts_bias?:T
  fc2_experts_weights:T1 fc2_scales?:T2 fc2_experts_bias?:T fc3_experts_weights?:T1 fc3_scales?:T2
  fc3_experts_bias?:T fc1_zero_points?:T1 fc2_zero_points?:T1 fc3_zero_points?:T1
  router_weights?:T fc1_global_scale?:T4 fc2_global_scale?:T4 fc1_act_scale?:T4 fc2_act_scale?:T4
  fc1_act_block_scale?:T2 fc2_act_block_scale?:T2 -> output:T | accuracy_level:INT=0
  activation_alpha:FLOAT=1.0 activation_beta:FLOAT=0.0 activation_type:STRING=relu block_size:INT
  expert_weight_bits:INT=4 fc1_expert_weight_bits:INT fc2_expert_weight_bits:INT
  fc3_expert_weight_bits:INT k:INT=1 normalize_routing_weights:INT=0 quant_type:STRING=int
  swiglu_fusion:INT=0 swiglu_limit:FLOAT swiglu_limit_after_activation:INT=0
  use_sparse_mixer:INT=0 weights_prepacked:INT=-1 | T=float,float16,bfloat16 T1=uint8,float8e4m3fn
  T2=float,float16,bfloat16,float8e8m0,float8e4m3fn T4=float
QuantizeLinear x:T1 y_scale:T1 y_zero_point?:T2 -> y:T2 | axis:INT | T1=float16,float
  T2=int8,uint8,int16,uint16,int4,uint4
QuickGelu X:T -> Y:T | alpha:FLOAT=1.702 | T=float16,float,double,bfloat16
Range start:T limit:T delta?:T -> Y:T | | T=float,double,int16,int32,int64
ReduceSumInteger data:T1 -> reduced:T2 | axes!:INTS keepdims!:INT | T1=int8,uint8 T2=int32,uint32
RelativePositionBias bias_table:T query_length:U key_length:U -> output:T | is_bidirectional:INT=0
  max_distance!:INT | T=float,float16 U=int64
RotaryEmbedding input:T position_ids:M cos_cache:T sin_cache:T -> output:T | interleaved:INT
  is_packed_batching:INT num_heads:INT rotary_embedding_dim:INT scale:FLOAT |
  T=float,float16,bfloat16 M=int64
ScaledSiLU X:T scale?:M -> Y:T | alpha:FLOAT=1.0 | T=float,float16,bfloat16
  M=float,float16,bfloat16
SkipGroupNorm X:T gamma:M beta:M skip:T bias?:T -> Y:T S?:T | activation!:INT channels_last:INT=1
  epsilon:FLOAT=1e-05 groups!:INT | T=float16,float M=float16,float
SkipLayerNormalization input:T skip:T gamma:T beta?:T bias?:T -> output:T mean?:U inv_std_var?:U
  input_skip_bias_sum?:T | epsilon:FLOAT=1e-12 | T=float,float16,bfloat16 U=float
SkipSimplifiedLayerNormalization input:T skip:T gamma:T bias?:T -> output:T mean?:U inv_std_var?:U
  input_skip_bias_sum?:T | epsilon:FLOAT=1e-12 | T=float,float16,bfloat16 U=float
SwiGLU gate:T up?:T -> output:T | activation_alpha:FLOAT=1.0 activation_beta:FLOAT=0.0
  limit:FLOAT=0.0 round_activation:INT=0 | T=float16,bfloat16,float
Tokenizer X:T -> Y:T | mark!:INT mincharnum!:INT pad_value!:STRING separators:STRINGS
  tokenexp:STRING | T=string
TransposeMatMul A:T B:T -> Y:T | alpha:FLOAT=1.0 transA:INT=0 transB:INT=0 |
  T=float16,float,double,bfloat16
Trilu X:T k?:int64 -> Y:T | upper:INT=1 | T=float16,float,double,bfloat16,uint8,uint16
  T=uint32,uint64,int8,int16,int32,int64 T=bool
"""
