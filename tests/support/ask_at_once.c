/* Threads that ask a handler for memory at once, without Python's lock. test_results_memory.py compiles it. */
#include <pthread.h>
#include <sched.h>
#include <stddef.h>

enum { MOST_THREADS = 16 };

struct asker {
    void *(*give)(void *context, size_t size);
    void (*take)(void *context, void *memory, size_t size);
    size_t size;
    int n_rounds, number, n_wrong;
};

static void *ask(void *argument)
{
    struct asker *self = argument;
    int round;
    for (round = 0; round < self->n_rounds; round++) {
        volatile int *memory = self->give(NULL, self->size);
        *memory = self->number;
        if (round % 2) sched_yield();
        self->n_wrong += *memory != self->number;
        self->take(NULL, (void *)memory, self->size);
    }
    return NULL;
}

/* How often memory was another thread's too. */
int ask_at_once(void *(*give)(void *, size_t), void (*take)(void *, void *, size_t), size_t size, int n_threads,
                int n_rounds)
{
    pthread_t threads[MOST_THREADS];
    struct asker askers[MOST_THREADS];
    int i, n_wrong = 0;
    for (i = 0; i < n_threads; i++) {
        askers[i] = (struct asker){give, take, size, n_rounds, i, 0};
        if (pthread_create(&threads[i], NULL, ask, &askers[i])) return -1;
    }
    for (i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        n_wrong += askers[i].n_wrong;
    }
    return n_wrong;
}
