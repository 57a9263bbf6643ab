/* Sixteen lanes, where a plain loop over them is not enough: copies in whole vectors, groups that end early, ties. The
 * arithmetic of softmax is not here: see exp.pxd and lanes.pxd. */
#ifndef CSOFTMAX_LANES_H
#define CSOFTMAX_LANES_H

#include "bits.h"
#include "vectors.h"
#include <math.h>

/* Copy 16 lanes that a loop has just computed, in whole vectors: what a plain loop or memcpy becomes reads them back
 * from the stack in smaller pieces. */
#if defined(__GNUC__) || defined(__clang__)
#define COPY_LANES(NAME, TYPE)                                                                                         \
static inline void NAME(TYPE *to, const TYPE *from)                                                                    \
{                                                                                                                      \
    typedef TYPE vector __attribute__((vector_size(VECTOR_BYTES)));                                                    \
    const int n = VECTOR_BYTES / sizeof(TYPE);                                                                         \
    vector v[16 * sizeof(TYPE) / VECTOR_BYTES];                                                                        \
    int i;                                                                                                             \
    UNROLL for (i = 0; i < 16 / n; i++) memcpy(&v[i], from + i * n, VECTOR_BYTES);                                     \
    UNROLL for (i = 0; i < 16 / n; i++) memcpy(to + i * n, &v[i], VECTOR_BYTES);                                       \
}
#else
#define COPY_LANES(NAME, TYPE) \
static inline void NAME(TYPE *to, const TYPE *from) { memcpy(to, from, 16 * sizeof(TYPE)); }
#endif
COPY_LANES(copy_lanes_f32, float)
COPY_LANES(copy_lanes_f64, double)

/* Add eight numbers to totals that are read again in whole vectors. */
static inline void add_eight_f32(double *total, const float *sums)
{
#if defined(__AVX512F__)
    _mm512_storeu_pd(total, _mm512_add_pd(_mm512_loadu_pd(total), _mm512_cvtps_pd(_mm256_loadu_ps(sums))));
#else
    int l;
    for (l = 0; l < 8; l++) total[l] += sums[l];
#endif
}

/* Add n groups of 16 numbers, or of the products a * (b - b_from), to sixteen totals, which stay in registers. */
#define ADD_GROUPS(SUFFIX, TYPE)                                                                                       \
static inline void add_values_##SUFFIX(double *total, const TYPE *values, ptrdiff_t n)                                 \
{                                                                                                                      \
    double sum[16];                                                                                                    \
    int l;                                                                                                             \
    memcpy(sum, total, sizeof(sum));                                                                                   \
    for (; n > 0; n--, values += 16)                                                                                   \
        for (l = 0; l < 16; l++) sum[l] += values[l];                                                                  \
    memcpy(total, sum, sizeof(sum));                                                                                   \
}                                                                                                                      \
static inline void add_products_##SUFFIX(                                                                              \
    double *total, double *total_of_a, const TYPE *a, const TYPE *b, double b_from, ptrdiff_t n)                       \
{                                                                                                                      \
    double sum[16], sum_of_a[16];                                                                                      \
    int l;                                                                                                             \
    memcpy(sum, total, sizeof(sum));                                                                                   \
    memcpy(sum_of_a, total_of_a, sizeof(sum));                                                                         \
    for (; n > 0; n--, a += 16, b += 16) {                                                                             \
        for (l = 0; l < 16; l++) sum[l] = mul_add_f64(a[l], b[l] - b_from, sum[l]);                                    \
        for (l = 0; l < 16; l++) sum_of_a[l] += a[l];                                                                  \
    }                                                                                                                  \
    memcpy(total, sum, sizeof(sum));                                                                                   \
    memcpy(total_of_a, sum_of_a, sizeof(sum));                                                                         \
}
ADD_GROUPS(f64, double)
#if defined(__AVX512F__)
/* GCC 12 widens a vector in two halves, each with a shuffle, where memory gives them for nothing. */
static inline void add_values_f32(double *total, const float *values, ptrdiff_t n)
{
    __m512d low = _mm512_loadu_pd(total), high = _mm512_loadu_pd(total + 8);
    for (; n > 0; n--, values += 16) {
        low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm256_loadu_ps(values)));
        high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm256_loadu_ps(values + 8)));
    }
    _mm512_storeu_pd(total, low);
    _mm512_storeu_pd(total + 8, high);
}
static inline void add_products_f32(
    double *total, double *total_of_a, const float *a, const float *b, double b_from, ptrdiff_t n)
{
    const __m512d from = _mm512_set1_pd(b_from);
    __m512d sum[2], sum_of_a[2];
    int i;
    for (i = 0; i < 2; i++) sum[i] = _mm512_loadu_pd(total + 8 * i), sum_of_a[i] = _mm512_loadu_pd(total_of_a + 8 * i);
    for (; n > 0; n--, a += 16, b += 16) {
        UNROLL for (i = 0; i < 2; i++) {
            const __m512d x = _mm512_cvtps_pd(_mm256_loadu_ps(a + 8 * i));
            const __m512d y = _mm512_cvtps_pd(_mm256_loadu_ps(b + 8 * i));
            sum[i] = _mm512_fmadd_pd(x, _mm512_sub_pd(y, from), sum[i]);
            sum_of_a[i] = _mm512_add_pd(sum_of_a[i], x);
        }
    }
    for (i = 0; i < 2; i++) _mm512_storeu_pd(total + 8 * i, sum[i]), _mm512_storeu_pd(total_of_a + 8 * i, sum_of_a[i]);
}
#else
ADD_GROUPS(f32, float)
#endif

/* The first n of 16 lanes, 0 < n < 256, from and to memory that may end behind them: load_ fills the others up with the
 * first. ties_ is how many of 16 terms equal top, the largest; NaN if one is a NaN. Masks need no loop for it. */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
static inline unsigned first_lanes(ptrdiff_t n) { return _bzhi_u32(0xffff, (unsigned)n); }
static inline void load_f32(float *to, const float *from, ptrdiff_t n)
{
    _mm512_storeu_ps(to, _mm512_mask_loadu_ps(_mm512_set1_ps(*from), (__mmask16)first_lanes(n), from));
}
static inline void load_f64(double *to, const double *from, ptrdiff_t n)
{
    const unsigned m = first_lanes(n);
    const __m512d fill = _mm512_set1_pd(*from);
    _mm512_storeu_pd(to, _mm512_mask_loadu_pd(fill, (__mmask8)m, from));
    _mm512_storeu_pd(to + 8, _mm512_mask_loadu_pd(fill, (__mmask8)(m >> 8), from + 8));
}
static inline void store_f32(float *to, const float *from, ptrdiff_t n)
{
    _mm512_mask_storeu_ps(to, (__mmask16)first_lanes(n), _mm512_loadu_ps(from));
}
static inline void store_f64(double *to, const double *from, ptrdiff_t n)
{
    const unsigned m = first_lanes(n);
    _mm512_mask_storeu_pd(to, (__mmask8)m, _mm512_loadu_pd(from));
    _mm512_mask_storeu_pd(to + 8, (__mmask8)(m >> 8), _mm512_loadu_pd(from + 8));
}
static inline double ties_f32(const float *terms, float top)
{
    const __m512 t = _mm512_loadu_ps(terms);
    if (_mm512_cmp_ps_mask(t, t, _CMP_UNORD_Q)) return NAN;
    return (double)_mm_popcnt_u32(_mm512_cmp_ps_mask(t, _mm512_set1_ps(top), _CMP_EQ_OQ));
}
static inline double ties_f64(const double *terms, double top)
{
    const __m512d t = _mm512_loadu_pd(terms), u = _mm512_loadu_pd(terms + 8), all = _mm512_set1_pd(top);
    if (_mm512_cmp_pd_mask(t, u, _CMP_UNORD_Q)) return NAN;
    return (double)_mm_popcnt_u32(
        _mm512_cmp_pd_mask(t, all, _CMP_EQ_OQ) | _mm512_cmp_pd_mask(u, all, _CMP_EQ_OQ) << 8);
}
#else
#define TIES(NAME, TYPE)                                                                                               \
static inline double NAME(const TYPE *terms, TYPE top)                                                                 \
{                                                                                                                      \
    TYPE equal = 0;                                                                                                    \
    int i;                                                                                                             \
    for (i = 0; i < 16; i++) equal += terms[i] < top ? 0 : terms[i] / top;                                             \
    return equal;                                                                                                      \
}
TIES(ties_f32, float)
TIES(ties_f64, double)
#if defined(__AVX2__)
#define FIRST_LANES(TYPE, SUFFIX, VECTOR, PS, EPI, INTEGER, WIDTH, IOTA)                                               \
static inline void load_##SUFFIX(TYPE *to, const TYPE *from, ptrdiff_t n)                                              \
{                                                                                                                      \
    int i;                                                                                                             \
    for (i = 0; i < 16; i += WIDTH) {                                                                                  \
        const __m256i m = _mm256_cmpgt_##EPI(_mm256_set1_##INTEGER(n - i), IOTA);                                      \
        _mm256_storeu_##PS(to + i, _mm256_blendv_##PS(_mm256_set1_##PS(*from), _mm256_maskload_##PS(from + i, m),      \
                                                      (VECTOR)m));                                                     \
    }                                                                                                                  \
}                                                                                                                      \
static inline void store_##SUFFIX(TYPE *to, const TYPE *from, ptrdiff_t n)                                             \
{                                                                                                                      \
    int i;                                                                                                             \
    for (i = 0; i < 16; i += WIDTH)                                                                                    \
        _mm256_maskstore_##PS(to + i, _mm256_cmpgt_##EPI(_mm256_set1_##INTEGER(n - i), IOTA),                          \
                              _mm256_loadu_##PS(from + i));                                                            \
}
FIRST_LANES(float, f32, __m256, ps, epi32, epi32, 8, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
FIRST_LANES(double, f64, __m256d, pd, epi64, epi64x, 4, _mm256_setr_epi64x(0, 1, 2, 3))
#else
#define FIRST_LANES(TYPE, SUFFIX)                                                                                      \
static inline void load_##SUFFIX(TYPE *to, const TYPE *from, ptrdiff_t n)                                              \
{                                                                                                                      \
    int i;                                                                                                             \
    for (i = 0; i < 16; i++) to[i] = from[i < n ? i : 0];                                                              \
}                                                                                                                      \
static inline void store_##SUFFIX(TYPE *to, const TYPE *from, ptrdiff_t n)                                             \
{                                                                                                                      \
    memcpy(to, from, (n < 16 ? n : 16) * sizeof(TYPE));                                                                \
}
FIRST_LANES(float, f32)
FIRST_LANES(double, f64)
#endif
#endif

#endif
