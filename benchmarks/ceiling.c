/* What the memory of this machine allows: reading, copying with ordinary stores, copying past the cache.
 * Built by the harness with the flags of the machine it runs on. */
#include "stream.h"

#define BLOCK 16384

double ceiling_read(const char *x, char *out, ptrdiff_t size, int n_threads)
{
    double sum = 0;
    ptrdiff_t i;
    (void)out;
#pragma omp parallel for schedule(static) num_threads(n_threads) reduction(+ : sum)
    for (i = 0; i < size / BLOCK; i++) {
        const double *p = (const double *)(x + i * BLOCK);
        double lanes[32] = {0};
        int j, l;
        for (j = 0; j < BLOCK / 8; j += 32)
            for (l = 0; l < 32; l++) lanes[l] += p[j + l];
        for (l = 0; l < 32; l++) sum += lanes[l];
    }
    return sum;
}

double ceiling_copy(const char *x, char *out, ptrdiff_t size, int n_threads)
{
    ptrdiff_t i;
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (i = 0; i < size / BLOCK; i++) {
        const double *p = (const double *)(x + i * BLOCK);
        double *q = (double *)(out + i * BLOCK);
        int j;
        for (j = 0; j < BLOCK / 8; j++) q[j] = p[j];
    }
    return 0;
}

double ceiling_stream(const char *x, char *out, ptrdiff_t size, int n_threads)
{
    ptrdiff_t i;
#pragma omp parallel num_threads(n_threads)
    {
#pragma omp for schedule(static)
        for (i = 0; i < size / BLOCK; i++) stream_bytes(out + i * BLOCK, x + i * BLOCK, BLOCK);
        stream_fence();
    }
    return 0;
}
