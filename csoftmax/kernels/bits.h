/* The bits of numbers, where C leaves a choice or has no word: multiply-adds whose rounding is chosen here and not by
 * the compiler, powers of two and exponents. Whoever uses them is built with IEEE 754 arithmetic, or not at all. */
#ifndef CSOFTMAX_BITS_H
#define CSOFTMAX_BITS_H

#include "arithmetic.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

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

/* The power of two whose biased exponent stands in the low bits of `biased`, an integer + 1.5 * 2**23 (f64: 2**52). The
 * shift moves them onto the exponent field; its other bits leave at the top. */
static inline float power_f32(float biased)
{
    uint32_t bits;
    memcpy(&bits, &biased, 4);
    bits <<= 23;
    memcpy(&biased, &bits, 4);
    return biased;
}

static inline double power_f64(double biased)
{
    uint64_t bits;
    memcpy(&bits, &biased, 8);
    bits <<= 52;
    memcpy(&biased, &bits, 8);
    return biased;
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

#endif
