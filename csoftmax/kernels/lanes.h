/* What a typed Cython loop cannot say: a multiply-add whose rounding is chosen here and not by the compiler, the bits
 * of a number, and stores that go past the cache. The arithmetic of softmax is not here: see exp.pxi. */
#ifndef CSOFTMAX_LANES_H
#define CSOFTMAX_LANES_H

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
#else
static inline float mul_add_f32(float a, float b, float c) { return a * b + c; }
static inline double mul_add_f64(double a, double b, double c) { return a * b + c; }
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

/* Transpose blocks of one vector of 32 bytes by as many rows: 8 x 8 floats, 4 x 4 doubles. Strides in elements.
 * Neighbours are interleaved within halves of 16 bytes, each shuffle one instruction; the halves are brought together
 * last. */
#if defined(__GNUC__) || defined(__clang__)
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

/* Ask for a cache line that will be read in the next tile; any address will do. */
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
