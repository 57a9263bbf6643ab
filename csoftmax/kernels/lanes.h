/* What a typed Cython loop cannot say: a multiply-add whose rounding is chosen here and not by the compiler, the bits
 * of a number, and stores that go past the cache. The arithmetic of softmax is not here: see exp.pxi. */
#ifndef CSOFTMAX_LANES_H
#define CSOFTMAX_LANES_H

#include "arithmetic.h"
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* a * b + c, rounded once where the processor has the instruction and twice elsewhere. Contraction is off
 * (-ffp-contract=off), so that every build that has the instruction gives the same bits. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
static inline float mul_add_f32(float a, float b, float c) { return fmaf(a, b, c); }
static inline double mul_add_f64(double a, double b, double c) { return fma(a, b, c); }
static inline float product_rest_f32(float a, float b, float product) { return fmaf(a, b, -product); }
static inline double product_rest_f64(double a, double b, double product) { return fma(a, b, -product); }
#else
static inline float mul_add_f32(float a, float b, float c) { return a * b + c; }
static inline double mul_add_f64(double a, double b, double c) { return a * b + c; }
/* a * b - product without the instruction: floats in double, doubles in halves (Veltkamp, Dekker). */
static inline float product_rest_f32(float a, float b, float product)
{
    return (float)((double)a * b - product);
}
static inline double product_rest_f64(double a, double b, double product)
{
    const double a_high = (a * 134217729.0) - (a * 134217729.0 - a), a_low = a - a_high;
    const double b_high = (b * 134217729.0) - (b * 134217729.0 - b), b_low = b - b_high;
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
}
#endif

/* The power of two whose biased exponent stands in the low bits of `magic`, an integer + 1.5 * 2**23 (f64: 2**52). The
 * shift moves them onto the exponent field; the magic number's own bits leave at the top. */
static inline float power_f32(float magic)
{
    uint32_t bits;
    memcpy(&bits, &magic, 4);
    bits <<= 23;
    memcpy(&magic, &bits, 4);
    return magic;
}

static inline double power_f64(double magic)
{
    uint64_t bits;
    memcpy(&bits, &magic, 8);
    bits <<= 52;
    memcpy(&magic, &bits, 8);
    return magic;
}

/* 2**-e for the e with sqrt(1/2) <= y * 2**-e < sqrt(2); y is at least 1. */
static inline double inverse_power_f64(double y)
{
    uint64_t bits;
    memcpy(&bits, &y, 8);
    bits -= 0x3fe6a09e667f3bcdu;                /* the bits of sqrt(1/2) */
    bits = 0x3ff0000000000000u - (bits & 0xfff0000000000000u);
    memcpy(&y, &bits, 8);
    return y;
}

/* e, of inverse = 2**-e with 0 <= e < 1022: put under the bits of 2**52, which is then taken off. */
static inline double exponent_f64(double inverse)
{
    uint64_t bits;
    double e;
    memcpy(&bits, &inverse, 8);
    bits = 0x4330000000000000u + ((0x3ff0000000000000u - bits) >> 52);
    memcpy(&e, &bits, 8);
    return e - 4503599627370496.0;
}

/* Copy 16 lanes that a loop has just computed, in whole vectors: what a plain loop or memcpy becomes reads them back
 * from the stack in smaller pieces. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#if defined(__GNUC__) || defined(__clang__)
#define UNROLL _Pragma("GCC unroll 8")
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

/* Transpose blocks of 8 x 8 floats or 4 x 4 doubles; tall ones have TALL times as many rows, wide ones as many columns
 * (with doubles they gain nothing). Strides in elements. Neighbours are interleaved within pieces of 16 bytes, each
 * shuffle one instruction; the pieces are brought together last. */
#if defined(__clang__) || __GNUC__ >= 12     /* which have __builtin_shufflevector */
static inline void transpose_f32(const float *from, ptrdiff_t from_stride, float *to, ptrdiff_t to_stride)
{
    typedef float lanes __attribute__((vector_size(32)));
    lanes a[8], b[8];
    int i;
    UNROLL for (i = 0; i < 8; i++) memcpy(&a[i], from + i * from_stride, 32);
    UNROLL for (i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (i = 0; i < 4; i++) {
        const int first = i / 2 * 4 + i % 2;    /* 0, 1, 4, 5, each with the one after next */
        const int place = i / 2 * 4 + i % 2 * 2;
        a[place] = __builtin_shufflevector(b[first], b[first + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        a[place + 1] = __builtin_shufflevector(b[first], b[first + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    UNROLL for (i = 0; i < 4; i++) {
        b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    UNROLL for (i = 0; i < 8; i++) memcpy(to + i * to_stride, &b[i], 32);
}

static inline void transpose_f64(const double *from, ptrdiff_t from_stride, double *to, ptrdiff_t to_stride)
{
    typedef double lanes __attribute__((vector_size(32)));
    lanes a[4], b[4];
    int i;
    UNROLL for (i = 0; i < 4; i++) memcpy(&a[i], from + i * from_stride, 32);
    UNROLL for (i = 0; i < 4; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 4, 2, 6);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 5, 3, 7);
    }
    UNROLL for (i = 0; i < 2; i++) {
        a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 4, 5);
        a[i + 2] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 6, 7);
    }
    UNROLL for (i = 0; i < 4; i++) memcpy(to + i * to_stride, &a[i], 32);
}
#else
#define TRANSPOSE(NAME, TYPE)                                                                                          \
static inline void NAME(const TYPE *from, ptrdiff_t from_stride, TYPE *to, ptrdiff_t to_stride)                        \
{                                                                                                                      \
    const int n = 32 / (int)sizeof(TYPE);                                                                              \
    int i, j;                                                                                                          \
    for (i = 0; i < n; i++)                                                                                            \
        for (j = 0; j < n; j++) to[j * to_stride + i] = from[i * from_stride + j];                                     \
}
TRANSPOSE(transpose_f32, float)
TRANSPOSE(transpose_f64, double)
#endif
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define TALL 2
static inline void transpose_tall_f32(const float *from, ptrdiff_t from_stride, float *to, ptrdiff_t to_stride)
{
    __m512 a[8];
    __m512d b[8];
    int i;
    UNROLL for (i = 0; i < 8; i++) {        /* rows 0 to 3 with 4 to 7, then 8 to 11 with 12 to 15 */
        const float *row = from + (i / 4 * 8 + i % 4) * from_stride;
        a[i] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(row)),
                                  _mm256_loadu_ps(row + 4 * from_stride), 1);
    }
    UNROLL for (i = 0; i < 8; i += 2) {
        b[i] = _mm512_castps_pd(_mm512_unpacklo_ps(a[i], a[i + 1]));
        b[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(a[i], a[i + 1]));
    }
    UNROLL for (i = 0; i < 4; i++) {        /* a column and the one after next four, of 4 and 4 rows */
        const int first = i / 2 * 4 + i % 2, place = i / 2 * 4 + i % 2 * 2;
        a[place] = _mm512_castpd_ps(_mm512_unpacklo_pd(b[first], b[first + 2]));
        a[place + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(b[first], b[first + 2]));
    }
    UNROLL for (i = 0; i < 4; i++) {
        _mm512_storeu_ps(to + i * to_stride, _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88));       /* pieces 0 and 2 */
        _mm512_storeu_ps(to + (i + 4) * to_stride, _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd)); /* 1 and 3 */
    }
}

static inline void transpose_wide_f32(const float *from, ptrdiff_t from_stride, float *to, ptrdiff_t to_stride)
{
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512 a[8];
    __m512d b[8], c[8];
    int i;
    UNROLL for (i = 0; i < 8; i++) a[i] = _mm512_loadu_ps(from + i * from_stride);
    UNROLL for (i = 0; i < 8; i += 2) {
        b[i] = _mm512_castps_pd(_mm512_unpacklo_ps(a[i], a[i + 1]));
        b[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(a[i], a[i + 1]));
    }
    UNROLL for (i = 0; i < 4; i++) {        /* columns i, i + 4, i + 8, i + 12 of four rows */
        const int first = i / 2 * 4 + i % 2, place = i / 2 * 4 + i % 2 * 2;
        c[place] = _mm512_unpacklo_pd(b[first], b[first + 2]);
        c[place + 1] = _mm512_unpackhi_pd(b[first], b[first + 2]);
    }
    UNROLL for (i = 0; i < 4; i++) {
        const __m512 p = _mm512_castpd_ps(_mm512_permutex2var_pd(c[i], low, c[i + 4]));
        const __m512 q = _mm512_castpd_ps(_mm512_permutex2var_pd(c[i], high, c[i + 4]));
        _mm256_storeu_ps(to + i * to_stride, _mm512_castps512_ps256(p));
        _mm256_storeu_ps(to + (i + 4) * to_stride, _mm512_extractf32x8_ps(p, 1));
        _mm256_storeu_ps(to + (i + 8) * to_stride, _mm512_castps512_ps256(q));
        _mm256_storeu_ps(to + (i + 12) * to_stride, _mm512_extractf32x8_ps(q, 1));
    }
}
#else
#define TALL 1
#define transpose_tall_f32 transpose_f32
#define transpose_wide_f32 transpose_f32
#endif

/* Ask for a cache line that will be read in the next tile, or written in this one; any address will do. */
static inline void prefetch(const void *address)
{
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(address, 0, 3);
#else
    (void)address;
#endif
}

/* Copy `size` bytes to memory that will not be read soon: whole cache lines go out without being read in first. */
static inline void stream_bytes(char *out, const char *from, size_t size)
{
#if defined(__SSE2__) || defined(_M_X64)
    size_t head = (size_t)(-(intptr_t)out) & 63, i;
    if (head > size) head = size;
    memcpy(out, from, head);
    out += head, from += head, size -= head;
    for (i = 0; i + 64 <= size; i += 64) {
#if defined(__AVX512F__)
        _mm512_stream_si512((void *)(out + i), _mm512_loadu_si512((const void *)(from + i)));
#elif defined(__AVX__)
        _mm256_stream_si256((void *)(out + i), _mm256_loadu_si256((const void *)(from + i)));
        _mm256_stream_si256((void *)(out + i + 32), _mm256_loadu_si256((const void *)(from + i + 32)));
#else
        int k;
        for (k = 0; k < 64; k += 16)
            _mm_stream_si128((void *)(out + i + k), _mm_loadu_si128((const void *)(from + i + k)));
#endif
    }
    memcpy(out + i, from + i, size - i);
#else
    memcpy(out, from, size);
#endif
}

/* Orders streamed stores before whatever tells another thread that they are there. */
static inline void stream_fence(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_sfence();
#endif
}

#endif
