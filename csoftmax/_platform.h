/* What the drivers need from the platform: OpenMP or its absence, the floating-point state, the fork handler. */
#ifndef CSOFTMAX_PLATFORM_H
#define CSOFTMAX_PLATFORM_H

#include "kernels/arithmetic.h"
#include <stdint.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
static const int built_with_openmp = 1;
#if _OPENMP < 200805    /* MSVC's is 2.0 */
#include <limits.h>
static inline int omp_get_thread_limit(void) { return INT_MAX; }
#endif
#else
static const int built_with_openmp = 0;
static inline int omp_get_max_threads(void) { return 1; }
static inline int omp_get_num_procs(void) { return 1; }
static inline int omp_get_thread_limit(void) { return 1; }
static inline int omp_in_parallel(void) { return 0; }
#endif

#if defined(__clang__)
static const char *const compiler_name = "Clang " __clang_version__;
#elif defined(__GNUC__)
static const char *const compiler_name = "GCC " __VERSION__;
#elif defined(_MSC_VER)
#define CSOFTMAX_TEXT_OF(number) #number
#define CSOFTMAX_TEXT(macro) CSOFTMAX_TEXT_OF(macro)
static const char *const compiler_name = "MSVC " CSOFTMAX_TEXT(_MSC_VER);
#else
static const char *const compiler_name = "unknown";
#endif

/* Round to nearest, subnormals kept, exceptions masked, whatever the caller has set; and back. */
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
typedef unsigned int fp_state;
static inline fp_state fp_enter(void)
{
    fp_state old = _mm_getcsr();
    if ((old & 0xffc0) != 0x1f80) _mm_setcsr(0x1f80);
    return old;
}
static inline void fp_leave(fp_state old) { _mm_setcsr(old); }
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t fp_state;
static inline fp_state fp_enter(void)
{
    fp_state old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"((fp_state)0));
    return old;
}
static inline void fp_leave(fp_state old) { __asm__ volatile("msr fpcr, %0" : : "r"(old)); }
#else
typedef int fp_state;
static inline fp_state fp_enter(void) { return 0; }
static inline void fp_leave(fp_state old) { (void)old; }
#endif

/* OpenMP runtimes hang in a child that was forked after a parallel region: from then on, no parallel regions. */
static int process_is_serial = 0;
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
static void stay_serial(void) { process_is_serial = 1; }
static inline int watch_forks(void) { return pthread_atfork(NULL, NULL, stay_serial); }
#else
static inline int watch_forks(void) { return 0; }
#endif

#endif
