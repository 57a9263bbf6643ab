/* float16 and bfloat16 (their bits: uint16_t) from float and to it, rounded once to nearest even; an overflow is
 * infinite, subnormal numbers are kept, a NaN stays one, its payload's top bit set. In vectors where the processor has
 * instructions for float16, else in integer arithmetic, with the same bits. Which elements, is load.pxi's part. */
#ifndef CSOFTMAX_CONVERT_H
#define CSOFTMAX_CONVERT_H

#include "vectors.h"

static inline uint32_t bits_of_float(float value) { uint32_t bits; memcpy(&bits, &value, 4); return bits; }
static inline float float_of_bits(uint32_t bits) { float value; memcpy(&value, &bits, 4); return value; }

static inline float float_of_f16(uint16_t half)
{
    const uint32_t rest = (half & 0x7fffu) << 13, exponent = half & 0x7c00u;
    uint32_t bits = rest + (112u << 23);                                            /* the exponent's bias is 127, not 15 */
    const uint32_t subnormal = bits_of_float(float_of_bits(rest + (113u << 23)) - 6.103515625e-05f);       /* 2**-14 */
    bits += exponent == 0x7c00u ? 112u << 23 : 0;
    bits |= (half & 0x7fffu) > 0x7c00u ? 1u << 22 : 0;
    bits = exponent == 0 ? subnormal : bits;
    return float_of_bits(bits | (half & 0x8000u) << 16);
}

static inline uint16_t f16_of_float(float value)
{
    const uint32_t bits = bits_of_float(value), size = bits & 0x7fffffffu;
    const uint32_t subnormal = bits_of_float(float_of_bits(size) + 0.5f) - 0x3f000000u;     /* 0.5 ends at 2**-24 */
    uint32_t half = (size - (112u << 23) + 0xfffu + (size >> 13 & 1)) >> 13;
    half = half < 0x7c00u ? half : 0x7c00u;
    half = size < 113u << 23 ? subnormal : half;
    half = size > 0x7f800000u ? 0x7e00u | (size >> 13 & 0x3ffu) : half;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

static inline float float_of_bf16(uint16_t half) { return float_of_bits((uint32_t)half << 16); }

static inline uint16_t bf16_of_float(float value)
{
    const uint32_t bits = bits_of_float(value);
    const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded >> 16);
}

/* n of them; the halves may lie anywhere. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
static inline __m512 widen_f16(__m256i halves) { return _mm512_cvtph_ps(halves); }
static inline __m512 widen_bf16(__m256i halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
static inline __m256i narrow_f16(__m512 floats)
{
    return _mm512_cvtps_ph(floats, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* In the upper half of each lane. */
static inline __m512i rounded_bf16(__m512 floats)
{
    const __m512i bits = _mm512_castps_si512(floats);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(floats, floats, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
}
static inline __m256i narrow_bf16(__m512 floats)
{
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_bf16(floats), 16));
}
/* 32 of them: as many as fill a vector, where that is quicker than two halves of one. */
static inline __m512i narrow_32_bf16(const float *from)
{
    const __m512i odd = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33,
                                         31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_permutex2var_epi16(rounded_bf16(_mm512_loadu_ps(from)), odd,
                                     rounded_bf16(_mm512_loadu_ps(from + 16)));
}
static inline __m512i narrow_32_f16(const float *from)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(narrow_f16(_mm512_loadu_ps(from))),
                              narrow_f16(_mm512_loadu_ps(from + 16)), 1);
}
#define CONVERSIONS(NAME)                                                                                              \
static void floats_of_##NAME(const char *from, ptrdiff_t n, float *to)                                                 \
{                                                                                                                      \
    for (; n >= 16; n -= 16, from += 32, to += 16)                                                                     \
        _mm512_storeu_ps(to, widen_##NAME(_mm256_loadu_si256((const __m256i *)from)));                                 \
    if (n > 0) {                                                                                                       \
        const __mmask16 first = (__mmask16)_bzhi_u32(0xffff, (unsigned)n);                                             \
        _mm512_mask_storeu_ps(to, first, widen_##NAME(_mm256_maskz_loadu_epi16(first, from)));                         \
    }                                                                                                                  \
}                                                                                                                      \
static void NAME##_of_floats(const float *from, ptrdiff_t n, char *to)                                                 \
{                                                                                                                      \
    for (; n >= 32; n -= 32, from += 32, to += 64) _mm512_storeu_si512((void *)to, narrow_32_##NAME(from));            \
    if (n >= 16) {                                                                                                     \
        _mm256_storeu_si256((__m256i *)to, narrow_##NAME(_mm512_loadu_ps(from)));                                      \
        n -= 16, from += 16, to += 32;                                                                                 \
    }                                                                                                                  \
    if (n > 0) {                                                                                                       \
        const __mmask16 first = (__mmask16)_bzhi_u32(0xffff, (unsigned)n);                                             \
        _mm256_mask_storeu_epi16(to, first, narrow_##NAME(_mm512_maskz_loadu_ps(first, from)));                        \
    }                                                                                                                  \
}
#else
/* Sixteen of them are loops that become vectors, or the instruction; the last ones go through a copy of sixteen. */
#if defined(__F16C__)
static inline void floats_of_16_f16(const char *from, float *to)
{
    _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)));
    _mm256_storeu_ps(to + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 16))));
}
static inline void f16_of_16_floats(const float *from, char *to)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(to + 16), _mm256_cvtps_ph(_mm256_loadu_ps(from + 8), _MM_FROUND_TO_NEAREST_INT));
}
#define SIXTEEN_F16
#else
#define SIXTEEN_F16 SIXTEEN(f16)
#endif
#define SIXTEEN(NAME)                                                                                                  \
static inline void floats_of_16_##NAME(const char *from, float *to)                                                    \
{                                                                                                                      \
    uint16_t halves[16];                                                                                               \
    int i;                                                                                                             \
    memcpy(halves, from, 32);                                                                                          \
    for (i = 0; i < 16; i++) to[i] = float_of_##NAME(halves[i]);                                                       \
}                                                                                                                      \
static inline void NAME##_of_16_floats(const float *from, char *to)                                                    \
{                                                                                                                      \
    uint16_t halves[16];                                                                                               \
    int i;                                                                                                             \
    for (i = 0; i < 16; i++) halves[i] = NAME##_of_float(from[i]);                                                     \
    memcpy(to, halves, 32);                                                                                            \
}
SIXTEEN_F16
SIXTEEN(bf16)
#define CONVERSIONS(NAME)                                                                                              \
static void floats_of_##NAME(const char *from, ptrdiff_t n, float *to)                                                 \
{                                                                                                                      \
    char halves[32] = {0};                                                                                             \
    float floats[16];                                                                                                  \
    for (; n >= 16; n -= 16, from += 32, to += 16) floats_of_16_##NAME(from, to);                                      \
    if (n <= 0) return;                                                                                                \
    memcpy(halves, from, (size_t)n * 2);                                                                               \
    floats_of_16_##NAME(halves, floats);                                                                               \
    memcpy(to, floats, (size_t)n * 4);                                                                                 \
}                                                                                                                      \
static void NAME##_of_floats(const float *from, ptrdiff_t n, char *to)                                                 \
{                                                                                                                      \
    char halves[32];                                                                                                   \
    float floats[16] = {0};                                                                                            \
    for (; n >= 16; n -= 16, from += 16, to += 32) NAME##_of_16_floats(from, to);                                      \
    if (n <= 0) return;                                                                                                \
    memcpy(floats, from, (size_t)n * 4);                                                                               \
    NAME##_of_16_floats(floats, halves);                                                                               \
    memcpy(to, halves, (size_t)n * 2);                                                                                 \
}
#endif
CONVERSIONS(f16)
CONVERSIONS(bf16)

#endif
