/* Between memory and cache: lines asked for before they are needed, stores that go past. */
#ifndef CSOFTMAX_STREAM_H
#define CSOFTMAX_STREAM_H

#include "vectors.h"

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
