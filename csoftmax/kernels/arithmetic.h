/* Arithmetic is IEEE 754's or there is no build. setup.py overrides or refuses the flags that relax it; what gets past
 * that (pragmas, flags in files, -ffp-eval-method) ends here. */
#ifndef CSOFTMAX_ARITHMETIC_H
#define CSOFTMAX_ARITHMETIC_H

#include <float.h>

#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) \
    || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "csoftmax needs the arithmetic of IEEE 754: take fast-math out of CC, CFLAGS, CPPFLAGS and LDFLAGS"
#endif
#if defined(FLT_EVAL_METHOD) && (FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2)
#error "csoftmax needs floats and doubles computed as such: take -ffp-eval-method, -mfpmath out of CC, CFLAGS and CPPFLAGS"
#endif

#endif
