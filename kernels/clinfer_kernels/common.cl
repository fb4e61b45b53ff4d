// Functions that kernels call, one section each. `common.with_helpers` copies the needed ones into
// a kernel's text, with $T the type they compute in ("float8"), $E its element type ("float"),
// $M the type its comparisons yield ("int8") and $U the unsigned type of its size.
//
//   //// NAME            section for every width          //// NAME scalar | vector   by width
//   //// NAME|OTHER      a section for each, with $F the name
//
// A section defines NAME_$T. Where speed counts, vector sections use operators only, because calls
// into a runtime's built-in library are often done lane by lane; scalar sections use the built-in
// functions.
// The polynomials are minimax fits made for these kernels (iteratively reweighted least squares in
// double precision); the errors given are those of the fit.

//// round_float16
// v rounded to the nearest float16, ties to even, still as float32. Below float16's normal numbers
// the spacing is 2^-24, that of float32 between 0.5 and 1.
static $T round_float16_$T($T v) {
    const $U sign = as_$U(v) & 0x80000000u;
    const $U b = as_$U(v) ^ sign;
    const $U even = (b + 0xFFFu + ((b >> 13) & 1u)) & ~0x1FFFu;
    const $T small = (as_$T(b) + 0.5f) - 0.5f;
    $U r = b < 0x38800000u ? as_$U(small) : even;
    r = even >= 0x47800000u ? ($U)(0x7F800000u) : r;
    return as_$T((b > 0x7F800000u ? b : r) | sign);
}

//// round_bfloat16
// v rounded to the nearest bfloat16, ties to even, still as float32.
static $T round_bfloat16_$T($T v) {
    const $U b = as_$U(v);
    const $U even = (b + 0x7FFFu + ((b >> 16) & 1u)) & 0xFFFF0000u;
    return v != v ? v : as_$T(even);
}

//// round_away
// The nearest integer, halves away from 0.
static $T round_away_$T($T v) {
    const $T whole = trunc(v);
    const $T rest = fabs(v - whole);
    return rest >= ($T)(0.5) ? whole + copysign(($T)(1), v) : whole;
}

//// to_odd
// v with the precision of float32; the last bit says whether anything was cut off, so that rounding
// further gives what rounding v would have given.
static $T to_odd_$T($T v) {
    const $U b = as_$U(v);
    const $U cut = b & 0x1FFFFFFFul;
    return as_$T((b ^ cut) | ((cut + 0x1FFFFFFFul) & 0x20000000ul));
}

//// exp scalar
static $T exp_$T($T x) { return exp(x); }

//// exp vector
// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 is split in two so that n times its
// high part is exact; 2^n is applied as two factors, so that overflow and denormal results come out
// right. Relative error of the polynomial: 2e-9.
static $T exp_$T($T x) {
    x = x < -105.0f ? ($T)(-105.0f) : x;
    x = x > 89.5f ? ($T)(89.5f) : x;
    const $T shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are n
    const $M n = as_$M(shifted) - 0x4B400000;
    const $T whole = shifted - 12582912.0f;
    $T r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    $T p = r * 1.383654191158712e-3f + 8.375054225325584e-3f;
    p = p * r + 0.04166824370622635f;
    p = p * r + 0.16666416823863983f;
    p = p * r + 0.49999991059303284f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const $M half_n = n >> 1;
    return p * as_$T((half_n + 127) << 23) * as_$T((n - half_n + 127) << 23);
}

//// exp_below scalar
static $T exp_below_$T($T x) { return exp(x); }

//// exp_below vector
// e^x for x <= 0, or NaN; 0 below -87, where float32 runs out of normal numbers. e^x = 2^n 2^f,
// n = round(x / ln 2), |f| <= 1/2. Relative error of the polynomial: 9e-8.
static $T exp_below_$T($T x) {
    const $T shifted = x * 1.44269504f + 12583039.0f;  // 1.5 * 2^23 + 127: the low bits are n + 127
    const $T f = x * 1.44269504f - (shifted - 12583039.0f);
    $T e = f * 0.00132647273f + 0.00967151299f;
    e = e * f + 0.0555073358f;
    e = e * f + 0.240222424f;
    e = e * f + 0.693147004f;
    e = e * f + 1.0f;
    return x < -87.0f ? ($T)(0.0f) : e * as_$T(as_$M(shifted) << 23);
}

//// sin|cos|tan scalar
static $T ${F}_$T($T x) { return $F(x); }

//// sin|cos|tan vector
// Lanes of 2^15 and more, infinite or NaN, are done one by one: beside such, PoCL's functions give
// small lanes wrong results.
static $T ${F}_$T($T x) {
    const $E most = 32768.0f;
    const $M far = !(abs_$T(x) < most);
    $T y = $F(far ? ($T)(0.0f) : x);
    if (any(far))
        for (int i = 0; i < (int)(sizeof($T) / sizeof($E)); ++i) {
            const $E lane = (($E*)&x)[i];
            if (!(lane < most && lane > -most)) (($E*)&y)[i] = $F(lane);
        }
    return y;
}

//// tanh scalar
static $T tanh_$T($T x) { return tanh(x); }

//// tanh vector
// |x| < 0.625: x P(x^2), relative error 4e-9; else sign(x) (1 - 2 / (e^2|x| + 1)).
static $T tanh_$T($T x) {
    const $T a = abs_$T(x);
    const $T s = x * x;
    $T p = s * -5.672421772032976e-3f + 0.02060314640402794f;
    p = p * s - 0.0537252314388752f;
    p = p * s + 0.13331185281276703f;
    p = p * s - 0.3333326280117035f;
    p = p * s * x + x;
    const $T big = 1.0f - 2.0f / (exp_$T(a + a) + 1.0f);
    const $T signed_big = as_$T(as_$M(big) | (as_$M(x) & (int)0x80000000));
    return a < 0.625f ? p : signed_big;
}

//// erf scalar
static $T erf_$T($T x) { return erf(x); }

//// erf vector
// |x| < 3.925: x P(x^2) / Q(x^2), relative error of the fit 3e-8; beyond it is 1 in float32.
static $T erf_$T($T x) {
    const $T s = x * x;
    $T p = s * 2.025906435e-6f + 2.846884685e-4f;
    p = p * s + 3.808185803e-3f;
    p = p * s + 0.05287552147f;
    p = p * s + 0.1915508505f;
    p = (p * s + 1.128379144f) * x;
    $T q = s * 3.78318232e-5f + 1.170732007e-3f;
    q = q * s + 0.015055138f;
    q = q * s + 0.1145598502f;
    q = q * s + 0.5030901967f;
    q = q * s + 1.0f;
    const $T one = as_$T((as_$M(x) & (int)0x80000000) | 0x3F800000);
    return abs_$T(x) > 3.925f ? one : p / q;
}

//// abs
static $T abs_$T($T x) { return as_$T(as_$M(x) & 0x7FFFFFFF); }

//// maxnan
// The greater value; NaN where either is NaN.
static $T maxnan_$T($T a, $T b) {
    const $T greater = b > a ? b : a;  // one instruction; a, where either is NaN
    return b != b ? b : greater;       // none, where b is a constant
}

//// minnan
// The smaller value; NaN where either is NaN.
static $T minnan_$T($T a, $T b) {
    const $T smaller = b < a ? b : a;
    return b != b ? b : smaller;
}

//// clip
// x between low and high; NaN becomes low.
static $T clip_$T($T x, $T low, $T high) {
    const $T above = x > low ? x : low;
    return above < high ? above : high;
}

//// near_bits
// 0x4B400000 + x rounded, ties to even, for |x| below 2^22.
static $M near_bits_$T($T x) { return as_$M(x + 12582912.0f); }

//// div_by
// x / y, correctly rounded below 2^24, larger beyond; inverse is 1 / y rounded. The product's error
// is made good by what it leaves over, which is exact: each line below is one fused operation, while
// fma of vectors may be a call.
static $T div_by_$T($T x, $T y, $T inverse) {
#ifdef __FMA__
    const $T most = 16777216.0f;
    const $T guess = clip_$T(x * inverse, -most, most);
    const $T left = x - guess * y;
    return guess + left * inverse;
#else
    return x / y;
#endif
}

//// quotient
// C's integer division, with x / 0 = 0 and no trap for the least integer over -1.
static $T quotient_$T($T a, $T b) {
    const $T one = 1;
    const $T zero = 0;
    const $T minus = -1;
    const $T safe = ((b == zero) | (b == minus)) ? one : b;
    const $T q = a / safe;
    return b == zero ? zero : (b == minus ? zero - q : q);
}

//// uquotient
// Unsigned division, with x / 0 = 0.
static $T uquotient_$T($T a, $T b) {
    const $T one = 1;
    const $T zero = 0;
    return b == zero ? zero : a / (b == zero ? one : b);
}

//// remainder
// C's remainder (the sign of `a`), with x % 0 = 0 and no trap for the least integer over -1.
static $T remainder_$T($T a, $T b) {
    const $T one = 1;
    const $T zero = 0;
    const $T minus = -1;
    return a % (((b == zero) | (b == minus)) ? one : b);
}

//// uremainder
static $T uremainder_$T($T a, $T b) {
    const $T one = 1;
    const $T zero = 0;
    return a % (b == zero ? one : b);
}

//// modulo
// Python's remainder: the sign of `b`.
static $T modulo_$T($T a, $T b) {
    const $T zero = 0;
    const $T r = remainder_$T(a, b);
    return ((r != zero) & ((r ^ b) < zero)) ? r + b : r;
}

//// fmod|pow scalar
static $T ${F}_$T($T a, $T b) { return $F(a, b); }

//// fmod|pow vector
// Of doubles, lane by lane: beside a lane that is 0, NaN or infinite, PoCL's fmod(double8) never
// ends and its pow(double8) gives other lanes wrong results.
static $T ${F}_$T($T a, $T b) {
    for (int i = 0; i < (int)(sizeof($T) / sizeof($E)); ++i)
        (($E*)&a)[i] = $F((($E*)&a)[i], (($E*)&b)[i]);
    return a;
}

//// fmodulo
// Python's remainder of floats: `r`, C's remainder of a division by `b`, with the sign of `b`.
static $T fmodulo_$T($T r, $T b) {
    const $T zero = 0;
    return ((r != zero) & ((r < zero) != (b < zero))) ? r + b : r;
}

//// ipow
// a^n for integers by squaring; n < 0 gives what truncation of 1 / a^-n gives.
static $T ipow_$T($T a, $T n) {
    const $T zero = 0;
    const $T one = 1;
    $T result = one;
    $T base = a;
    $T left = n < zero ? zero : n;
    for (int bit = 0; bit < (int)sizeof($E) * 8; ++bit) {
        const $T odd = left & one;
        result = odd != zero ? result * base : result;
        base = base * base;
        left = left >> one;
    }
    const $T sign = (n & one) != zero ? a : one;
    const $T tiny = a == one ? one : (a == zero - one ? sign : zero);
    return n < zero ? tiny : result;
}

//// softplus
// log(1 + e^x) without overflow.
static $T softplus_$T($T x) {
    const $T zero = 0;
    const $T a = x < zero ? x : zero - x;
    return (x < zero ? zero : x) + log1p(exp(a));
}

//// edge
// The index outside 0 .. m - 1 that repeats the border.
static $T edge_$T($T i, $T m) { return clamp(i, 0, m - 1); }

//// wrap
// The index outside 0 .. m - 1 that repeats the whole.
static $T wrap_$T($T i, $T m) {
    const $T r = i % m;
    return r < 0 ? r + m : r;
}

//// reflect
// The index outside 0 .. m - 1 that mirrors at the border, which is not repeated.
static $T reflect_$T($T i, $T m) {
    const $T period = max(2 * (m - 1), 1);
    const $T r = wrap_$T(i, period);
    return r < m ? r : period - r;
}
