/* Blocks of a few vectors transposed, for tiles whose rows become lanes. */
#ifndef CSOFTMAX_TRANSPOSE_H
#define CSOFTMAX_TRANSPOSE_H

#include "vectors.h"

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

#endif
