/* The loops that C programs contain where they could call csoftmax's row functions, and what calls either again and
 * again. FLOAT is float or double, E the suffix of libm's functions for it. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

static FLOAT log_of_sum(const FLOAT *x, ptrdiff_t n, FLOAT *top)
{
    FLOAT m = x[0], sum = 0;
    ptrdiff_t j;
    for (j = 1; j < n; j++) m = x[j] > m ? x[j] : m;
    for (j = 0; j < n; j++) sum += E(exp)(x[j] - m);
    *top = m;
    return E(log)(sum);
}

void softmax(const FLOAT *x, ptrdiff_t n, FLOAT *out)
{
    FLOAT m = x[0], sum = 0;
    ptrdiff_t j;
    for (j = 1; j < n; j++) m = x[j] > m ? x[j] : m;
    for (j = 0; j < n; j++) sum += out[j] = E(exp)(x[j] - m);
    sum = 1 / sum;
    for (j = 0; j < n; j++) out[j] *= sum;
}

void log_softmax(const FLOAT *x, ptrdiff_t n, FLOAT *out)
{
    FLOAT m, log_sum = log_of_sum(x, n, &m);
    ptrdiff_t j;
    for (j = 0; j < n; j++) out[j] = x[j] - m - log_sum;
}

FLOAT logsumexp(const FLOAT *x, ptrdiff_t n)
{
    FLOAT m, log_sum = log_of_sum(x, n, &m);
    return m + log_sum;
}

FLOAT log_prob(const FLOAT *x, ptrdiff_t n, int64_t index)
{
    FLOAT m, log_sum = log_of_sum(x, n, &m);
    return x[index] - m - log_sum;
}

FLOAT cross_entropy(const FLOAT *x, ptrdiff_t n, int64_t target) { return -log_prob(x, n, target); }

FLOAT cross_entropy_with_grad(const FLOAT *x, ptrdiff_t n, int64_t target, double scale, FLOAT *grad)
{
    FLOAT m = x[0], sum = 0, factor;
    ptrdiff_t j;
    for (j = 1; j < n; j++) m = x[j] > m ? x[j] : m;
    for (j = 0; j < n; j++) sum += grad[j] = E(exp)(x[j] - m);
    factor = (FLOAT)scale / sum;
    for (j = 0; j < n; j++) grad[j] *= factor;
    grad[target] -= (FLOAT)scale;
    return E(log)(sum) - (x[target] - m);
}

/* Nanoseconds for each call, over n_rows rows, `repeat` times. */
#define TIMED(NAME, TYPE, CALL)                                                                                        \
double NAME(TYPE, const FLOAT *x, ptrdiff_t n_rows, ptrdiff_t n, FLOAT *out, int repeat)                               \
{                                                                                                                      \
    volatile FLOAT sink = 0;                                                                                           \
    struct timespec start, end;                                                                                        \
    ptrdiff_t i;                                                                                                       \
    int k;                                                                                                             \
    clock_gettime(CLOCK_MONOTONIC, &start);                                                                            \
    for (k = 0; k < repeat; k++)                                                                                       \
        for (i = 0; i < n_rows; i++) { CALL; }                                                                         \
    clock_gettime(CLOCK_MONOTONIC, &end);                                                                              \
    (void)sink;                                                                                                        \
    (void)out;                                                                                                         \
    return ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / repeat / n_rows;                      \
}
TIMED(time_array, void (*f)(const FLOAT *, ptrdiff_t, FLOAT *), f(x + i * n, n, out))
TIMED(time_number, FLOAT (*f)(const FLOAT *, ptrdiff_t), sink = f(x + i * n, n))
TIMED(time_target, FLOAT (*f)(const FLOAT *, ptrdiff_t, int64_t), sink = f(x + i * n, n, i % n))
TIMED(time_gradient, FLOAT (*f)(const FLOAT *, ptrdiff_t, int64_t, double, FLOAT *),
      sink = f(x + i * n, n, i % n, 1.0, out))
