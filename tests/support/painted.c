/* How much stack a call needs: a thread whose stack is painted, and how much of the paint is left afterwards.
 *
 * Loaded before the C library (LD_PRELOAD), it gives painted stacks to the threads of the OpenMP runtime too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SIZE = 1 << 18,
    GUARD = 1 << 16,
    OWN = 1024,                         /* bytes that the calling thread has in use while it waits */
    IDLE = 4096,                        /* and other threads, whoever wrote them: not painted again */
    MOST_WORKERS = 64
};

static const uint64_t PAINT = 0xA5A5A5A5A5A5A5A5;

typedef void *(*start_function)(void *);
typedef int (*create_function)(pthread_t *, const pthread_attr_t *, start_function, void *);
typedef void (*call_function)(void);

static void paint(char *stack, size_t size)
{
    memset(stack, (int)(PAINT & 0xFF), size);
}

/* A painted stack between pages that cannot be touched, or NULL. */
static char *new_stack(void)
{
    char *memory = mmap(NULL, SIZE + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + GUARD, SIZE, PROT_READ | PROT_WRITE)) return NULL;
    paint(memory + GUARD, SIZE);
    return memory + GUARD;
}

/* The end of the paint that nothing has written over. */
static const char *end_of_paint(const char *stack)
{
    const uint64_t *words = (const uint64_t *)stack;
    size_t i = 0;
    while (i < SIZE / sizeof(*words) && words[i] == PAINT) i++;
    return (const char *)(words + i);
}

static int create_on(char *stack, pthread_t *thread, start_function start, void *argument)
{
    create_function create = (create_function)(intptr_t)dlsym(RTLD_NEXT, "pthread_create");
    pthread_attr_t attributes;
    int error = create == NULL ? ENOSYS : pthread_attr_init(&attributes);
    if (error == 0) error = pthread_attr_setstack(&attributes, stack, SIZE);
    if (error == 0) error = create(thread, &attributes, start, argument);
    return error;
}

/* ---- Threads that others create ---- */

static struct worker {
    char *stack, *top;                  /* above top lies what belongs to the thread itself */
    start_function start;
    void *argument;
} workers[MOST_WORKERS];
static int n_workers;

static void *work(void *argument)
{
    struct worker *worker = argument;
    worker->top = __builtin_frame_address(0);
    return worker->start(worker->argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, start_function start, void *argument)
{
    struct worker *worker = &workers[n_workers];
    (void)attributes;
    if (n_workers == MOST_WORKERS || (worker->stack = new_stack()) == NULL) return EAGAIN;
    n_workers++;
    worker->top = worker->stack;
    worker->start = start;
    worker->argument = argument;
    return create_on(worker->stack, thread, work, worker);
}

int count_workers(void)
{
    return n_workers;
}

/* Bytes that a worker has needed since the last call began; IDLE or less if it had nothing to do. */
ptrdiff_t stack_of_worker(int i)
{
    return workers[i].top - end_of_paint(workers[i].stack);
}

static void paint_workers(void)
{
    int i;
    for (i = 0; i < n_workers; i++)
        if (workers[i].top - workers[i].stack > IDLE)
            paint(workers[i].stack, (size_t)(workers[i].top - workers[i].stack) - IDLE);
}

/* ---- The thread that calls ---- */

static char *stack, *top, *place;
static call_function call_now;
static sem_t go, done;

static void *make_calls(void *nothing)
{
    top = __builtin_frame_address(0);
    for (;;) {
        sem_post(&done);
        while (sem_wait(&go)) continue;
        call_now();
    }
    return nothing;
}

static int begin(void)
{
    pthread_t thread;
    stack = new_stack();
    if (stack == NULL || sem_init(&go, 0, 0) || sem_init(&done, 0, 0)) return -1;
    if (create_on(stack, &thread, make_calls, NULL)) return -1;
    while (sem_wait(&done)) continue;
    return 0;
}

/* Bytes of stack that call() needs, or -1: it is called on a thread that makes calls alone. */
ptrdiff_t stack_of(call_function call)
{
    if (stack == NULL && begin()) return -1;
    paint(stack, (size_t)(top - stack) - OWN);
    paint_workers();
    call_now = call;
    sem_post(&go);
    while (sem_wait(&done)) continue;
    return top - end_of_paint(stack);
}

/* Calls in a call: what they measure of it, or need themselves. */
void mark(void)
{
    place = __builtin_frame_address(0);
}

ptrdiff_t stack_at_mark(void)
{
    return top - place;
}

void need(ptrdiff_t bytes)
{
    char room[bytes];
    *(volatile char *)room = 0;
}
