// y[pixel][m] = epilogue(sum over k of x[pixel at k] * w[m][k]), k = (tap, channel) flattened.
//
//                     w  K_STEP +--------------+     A work-group makes TILE_P pixels x TILE_M
//                               |    w_tile    |     filters of one group, walking along k in
//     x  K_STEP                 +--------------+     steps. A step copies a piece of x (zeros for
//       +------+                |              |     padding) and one of w into local memory;
//       |x_tile|  TILE_P        |              |     every work-item adds the products of its
//       |      |                |              |     PIXELS x FILTERS results.
//       +------+                +--------------+
//                                    TILE_M          Neighbouring work-items copy neighbouring
//                                                    channels and store neighbouring filters.
#define WG_PIXELS 16 // work-items along the pixels
#define WG_FILTERS 16 // and along the filters
#define PIXELS 4 // results of a work-item along the pixels
#define FILTERS 4 // and along the filters
#define K_STEP 16 // depth of the tiles in local memory; divides WG_SIZE
#define TILE_P (WG_PIXELS * PIXELS)
#define TILE_M (WG_FILTERS * FILTERS)
#define WG_SIZE (WG_PIXELS * WG_FILTERS)
#define X_PITCH (TILE_P + 1) // rows of x_tile start in different banks
#define COPY_STEP (WG_SIZE / K_STEP) // a work-item copies the inputs of every COPY_STEP'th pixel:
#define COPIES ((TILE_P + COPY_STEP - 1) / COPY_STEP) // so many

__kernel __attribute__((reqd_work_group_size(16, 16, 1)))
void conv_local_64x64_r3(
        __global const float* restrict x,
        __global const float* restrict w,
        __global float* restrict y0,
        __global const float* restrict e0,
        const int y0_o,
        const int y0_s0,
        const int e0_o,
        const int e0_s0,
        const int x_o,
        const int x_s0,
        const int x_s1,
        const int out1,
        const int size1,
        const int taps1,
        const int step1,
        const int tap_step1,
        const int origin1,
        const int x_s2,
        const int out2,
        const int size2,
        const int taps2,
        const int step2,
        const int tap_step2,
        const int origin2,
        const int C,
        const int M,
        const int depth,
        const int w_o,
        const int pixels,
        const int pixel_tasks,
        const int tasks)
{
    __local float x_tile[K_STEP * X_PITCH];
    __local float w_tile[K_STEP * TILE_M];
    const int filter_item = get_local_id(0);
    const int pixel_item = get_local_id(1);
    const int item = pixel_item * WG_FILTERS + filter_item;
    const int copy_k = item % K_STEP;
    const int copy_pixel = item / K_STEP;
    const int group_panels = (M + TILE_M - 1) / TILE_M;
    for (int task = get_group_id(0); task < tasks; task += get_num_groups(0)) {
        const int pixel0 = task % pixel_tasks * TILE_P;
        const int panel = task / pixel_tasks;
        const int group = panel / group_panels;
        const int filter0 = panel % group_panels * TILE_M;
        const __global float* panel_w = w + w_o + (long)panel * depth * TILE_M;
        int at[COPIES];
        int is_pixel[COPIES];
        int first1[COPIES];
        int first2[COPIES];
        #pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            int position = pixel0 + copy_pixel + i * COPY_STEP;
            is_pixel[i] = position < pixels;
            int o0, o1, o2;
            o2 = position % out2;
            position /= out2;
            o1 = position % out1;
            position /= out1;
            o0 = position;
            at[i] = x_o + o0 * x_s0;
            first1[i] = o1 * step1 + origin1;
            at[i] += first1[i] * x_s1;
            first2[i] = o2 * step2 + origin2;
            at[i] += first2[i] * x_s2;
        }
        float acc[PIXELS][FILTERS];
        #pragma unroll
        for (int r = 0; r < PIXELS; ++r) {
            #pragma unroll
            for (int c = 0; c < FILTERS; ++c) acc[r][c] = 0;
        }
        for (int k0 = 0; k0 < depth; k0 += K_STEP) {
            const int k = k0 + copy_k;
            int tap = k / C;
            const int channel = group * C + k % C;
            int t1, t2;
            t2 = tap % taps2;
            tap /= taps2;
            t1 = tap;
            const int tap_at = t1 * tap_step1 * x_s1 + t2 * tap_step2 * x_s2;
            #pragma unroll
            for (int i = 0; i < COPIES; ++i) {
                const int pixel = copy_pixel + i * COPY_STEP;
                int is_read = k < depth && is_pixel[i];
                is_read = is_read && (uint)(first1[i] + t1 * tap_step1) < (uint)size1;
                is_read = is_read && (uint)(first2[i] + t2 * tap_step2) < (uint)size2;
                const float value = is_read ? x[at[i] + tap_at + channel] : 0;
                if (pixel < TILE_P) x_tile[copy_k * X_PITCH + pixel] = value;
            }
            for (int e = item; e < K_STEP * TILE_M; e += WG_SIZE) {
                w_tile[e] = k0 + e / TILE_M < depth ? panel_w[(long)k0 * TILE_M + e] : 0;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (int s = 0; s < K_STEP; ++s) {
                float x_value[PIXELS];
                float w_value[FILTERS];
                #pragma unroll
                for (int r = 0; r < PIXELS; ++r) {
                    x_value[r] = x_tile[s * X_PITCH + pixel_item + r * WG_PIXELS];
                }
                #pragma unroll
                for (int c = 0; c < FILTERS; ++c) {
                    w_value[c] = w_tile[s * TILE_M + filter_item + c * WG_FILTERS];
                }
                #pragma unroll
                for (int r = 0; r < PIXELS; ++r) {
                    #pragma unroll
                    for (int c = 0; c < FILTERS; ++c) acc[r][c] += x_value[r] * w_value[c];
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        #pragma unroll
        for (int r = 0; r < PIXELS; ++r) {
            int flat = pixel0 + pixel_item + r * WG_PIXELS;
            if (flat >= pixels) continue;
            int i0;
            i0 = flat;
            const int y0_at = y0_o + i0 * y0_s0;
            const int e0_at = e0_o + i0 * e0_s0;
            #pragma unroll
            for (int c = 0; c < FILTERS; ++c) {
                const int filter = filter0 + filter_item + c * WG_FILTERS;
                if (filter >= M) continue;
                const int channel = group * M + filter;
                const float sum = acc[r][c];
                const float v_e0 = e0[e0_at + channel];
                const float z0 = sum + v_e0;
                const float z1 = 0.0f;
                const float z2 = z1 > z0 ? z1 : z0;
                y0[y0_at + channel] = z2;
            }
        }
    }
}
