/* What drivers/results.pxi needs from the system: memory of its own, a lock that threads share, word of a fork. Linux
 * alone takes back what it was offered (MADV_FREE); elsewhere these are never called. */
#ifndef CSOFTMAX_MEMORY_H
#define CSOFTMAX_MEMORY_H

#include <stddef.h>

#if defined(__linux__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_FREE       /* since Linux 4.5, in glibc since 2.24 */
#define MADV_FREE 8
#endif

static const int can_keep_memory = 1;
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;
static inline void lock_memory(void) { pthread_mutex_lock(&memory_lock); }
static inline void unlock_memory(void) { pthread_mutex_unlock(&memory_lock); }

static inline size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }
static inline size_t memory_bytes(void) { return page_bytes() * (size_t)sysconf(_SC_PHYS_PAGES); }

static inline char *map_memory(size_t size)
{
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return start == MAP_FAILED ? NULL : (char *)start;
}

/* Whether it is gone: the system refuses to cut a mapping in two where a process has too many. */
static inline int unmap_memory(char *start, size_t size) { return size == 0 || munmap(start, size) == 0; }
/* An advice: where there are no huge pages, small ones do. */
static inline void ask_for_huge_pages(char *start, size_t size) { (void)madvise(start, size, MADV_HUGEPAGE); }
/* Let the system take the pages when it needs them, until they are written to again; whether it knows how. */
static inline int offer_memory(char *start, size_t size) { return madvise(start, size, MADV_FREE) == 0; }

static inline int watch_forks_of_memory(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
    return pthread_atfork(before, in_parent, in_child);
}
#else
static const int can_keep_memory = 0;
static inline void lock_memory(void) {}
static inline void unlock_memory(void) {}
static inline size_t page_bytes(void) { return 4096; }
static inline size_t memory_bytes(void) { return 0; }
static inline char *map_memory(size_t size) { (void)size; return NULL; }
static inline int unmap_memory(char *start, size_t size) { (void)start; (void)size; return 0; }
static inline void ask_for_huge_pages(char *start, size_t size) { (void)start; (void)size; }
static inline int offer_memory(char *start, size_t size) { (void)start; (void)size; return 0; }
static inline int watch_forks_of_memory(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
    (void)before; (void)in_parent; (void)in_child;
    return 0;
}
#endif

#endif
