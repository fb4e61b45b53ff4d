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
#define WG_PIXELS $wg_pixels // work-items along the pixels
#define WG_FILTERS $wg_filters // and along the filters
#define PIXELS $pixels // results of a work-item along the pixels
#define FILTERS $filters // and along the filters
#define K_STEP $k_step // depth of the tiles in local memory; divides WG_SIZE
#define TILE_P (WG_PIXELS * PIXELS)
#define TILE_M (WG_FILTERS * FILTERS)
#define WG_SIZE (WG_PIXELS * WG_FILTERS)
#define X_PITCH (TILE_P + 1) // rows of x_tile start in different banks
#define COPY_STEP (WG_SIZE / K_STEP) // a work-item copies the inputs of every COPY_STEP'th pixel:
#define COPIES ((TILE_P + COPY_STEP - 1) / COPY_STEP) // so many

$head
$parameters)
{
    __local $acc_type x_tile[K_STEP * X_PITCH];
    __local $acc_type w_tile[K_STEP * TILE_M];
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
        const __global $acc_type* panel_w = w + w_o + (long)panel * depth * TILE_M;
        int at[COPIES];
        int is_pixel[COPIES];
$starts
        #pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            int position = pixel0 + copy_pixel + i * COPY_STEP;
            is_pixel[i] = position < pixels;
$position
$start
        }
        $acc_type acc[PIXELS][FILTERS];
        #pragma unroll
        for (int r = 0; r < PIXELS; ++r) {
            #pragma unroll
            for (int c = 0; c < FILTERS; ++c) acc[r][c] = 0;
        }
        for (int k0 = 0; k0 < depth; k0 += K_STEP) {
            const int k = k0 + copy_k;
            int tap = k / C;
            const int channel = group * C + k % C;
$taps
            const int tap_at = $tap_at;
            #pragma unroll
            for (int i = 0; i < COPIES; ++i) {
                const int pixel = copy_pixel + i * COPY_STEP;
                int is_read = k < depth && is_pixel[i];
$within
                const $acc_type value = is_read ? $load_x : 0;
                if (pixel < TILE_P) x_tile[copy_k * X_PITCH + pixel] = value;
            }
            for (int e = item; e < K_STEP * TILE_M; e += WG_SIZE) {
                w_tile[e] = k0 + e / TILE_M < depth ? panel_w[(long)k0 * TILE_M + e] : 0;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            for (int s = 0; s < K_STEP; ++s) {
                $acc_type x_value[PIXELS];
                $acc_type w_value[FILTERS];
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
$locate
            #pragma unroll
            for (int c = 0; c < FILTERS; ++c) {
                const int filter = filter0 + filter_item + c * WG_FILTERS;
                if (filter >= M) continue;
                const int channel = group * M + filter;
                const $acc_type sum = acc[r][c];
$epilogue
            }
        }
    }
}
