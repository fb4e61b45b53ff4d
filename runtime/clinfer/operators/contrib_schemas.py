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
DequantizeLinear x:T1 x_scale:T2 x_zero_point?:T1 -> y:T2 | axis:INT |
  T1=int8,uint8,int16,uint16,int32,int4 T1=uint4 T2=float16,float
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
GatherBlockQuantized data:T1 indices:Tind scales:T2 zero_points?:T1 -> output:T2 | bits:INT=4
  block_size:INT=128 gather_axis:INT=0 quantize_axis:INT=1 |
  T1=int4,uint4,uint8,float8e4m3fn,float8e4m3fnuz,float8e5m2 T1=float8e5m2fnuz,float4e2m1
  T2=float,float16,bfloat16 Tind=int32,int64
GatherND data:T indices:Tind -> output:T | | T=uint8,uint16,uint32,uint64,int8,int16
  T=int32,int64,float16,float,double,string T=bool,complex64,complex128 Tind=int32,int64
Gelu X:T -> Y:T | | T=float16,float,double,bfloat16
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
MatMulBnb4 A:T1 B:T2 absmax:T1 -> Y:T1 | K!:INT N!:INT block_size!:INT quant_type!:INT
  training_mode:INT=0 transB:INT=1 | T1=float,float16,bfloat16 T2=uint8
MatMulIntegerToFloat A:T1 B:T2 a_scale:T3 b_scale:T3 a_zero_point?:T1 b_zero_point?:T2 bias?:T3 ->
  Y:T3 | | T1=int8,uint8 T2=int8,uint8 T3=float,float16
MatMulNBits A:T1 B:T2 scales:T1 zero_points?:T3 g_idx?:T4 bias?:T1 -> Y:T1 | K!:INT N!:INT
  accuracy_level:INT=0 bits:INT=4 block_size!:INT weight_prepacked:INT=0 |
  T1=float,float16,bfloat16 T2=uint8 T3=uint8,float16,float,bfloat16 T4=int32
MultiHeadAttention query:T key?:T value?:T bias?:T key_padding_mask?:M attention_bias?:T
  past_key?:T past_value?:T past_sequence_length?:M cache_indirection?:M -> output:T
  present_key?:T present_value?:T qk?:QK | mask_filter_value:FLOAT num_heads!:INT scale:FLOAT
  unidirectional:INT=0 | T=float,float16,bfloat16 QK=float,float16,bfloat16 M=int32
NhwcConv X:T W:T B?:T -> Y:T | auto_pad:STRING=NOTSET dilations:INTS group:INT=1 kernel_shape:INTS
  pads:INTS strides:INTS | T=float16,float,double
NhwcMaxPool x:T -> y:T | auto_pad:STRING=NOTSET ceil_mode:INT=0 dilations:INTS kernel_shape!:INTS
  pads:INTS strides:INTS | T=int8,uint8
Pad data:T pads:int64 value?:T -> output:T | mode:STRING=constant | T=float16,float,double
QAttention input:T1 weight:T2 bias:T3 input_scale:T3 weight_scale:T3 mask_index?:T4
  input_zero_point?:T1 weight_zero_point?:T2 past?:T3 -> output:T3 present?:T3 | do_rotary:INT
  mask_filter_value:FLOAT num_heads!:INT past_present_share_buffer:INT scale:FLOAT
  unidirectional:INT=0 | T1=int8,uint8 T2=int8,uint8 T3=float,float16 T4=int32
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
QuantizeLinear x:T1 y_scale:T1 y_zero_point?:T2 -> y:T2 | axis:INT | T1=float16,float
  T2=int8,uint8,int16,uint16,int4,uint4
QuickGelu X:T -> Y:T | alpha:FLOAT=1.702 | T=float16,float,double,bfloat16
Range start:T limit:T delta?:T -> Y:T | | T=float,double,int16,int32,int64
RotaryEmbedding input:T position_ids:M cos_cache:T sin_cache:T -> output:T | interleaved:INT
  is_packed_batching:INT num_heads:INT rotary_embedding_dim:INT scale:FLOAT |
  T=float,float16,bfloat16 M=int64
SkipGroupNorm X:T gamma:M beta:M skip:T bias?:T -> Y:T S?:T | activation!:INT channels_last:INT=1
  epsilon:FLOAT=1e-05 groups!:INT | T=float16,float M=float16,float
SkipLayerNormalization input:T skip:T gamma:T beta?:T bias?:T -> output:T mean?:U inv_std_var?:U
  input_skip_bias_sum?:T | epsilon:FLOAT=1e-12 | T=float,float16,bfloat16 U=float
SkipSimplifiedLayerNormalization input:T skip:T gamma:T bias?:T -> output:T mean?:U inv_std_var?:U
  input_skip_bias_sum?:T | epsilon:FLOAT=1e-12 | T=float,float16,bfloat16 U=float
TransposeMatMul A:T B:T -> Y:T | alpha:FLOAT=1.0 transA:INT=0 transB:INT=0 |
  T=float16,float,double,bfloat16
Trilu X:T k?:int64 -> Y:T | upper:INT=1 | T=float16,float,double,bfloat16,uint8,uint16
  T=uint32,uint64,int8,int16,int32,int64 T=bool
"""
