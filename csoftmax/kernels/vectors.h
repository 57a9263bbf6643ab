/* What the headers with instructions share: the processor's intrinsics, the bytes of its widest vector, and loops that
 * must be unrolled before they are vectors. Nothing is computed here. */
#ifndef CSOFTMAX_VECTORS_H
#define CSOFTMAX_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#if defined(__GNUC__) || defined(__clang__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#endif

#endif
