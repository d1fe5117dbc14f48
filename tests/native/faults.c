/* Faults for a build of the native core that tests use: the linker has the core call these functions
 * instead of the C library's (--wrap). Reads of the backing file then take long at the wrong moment,
 * are short, are interrupted, or are not in the page cache; and memory is short. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* Each is how often of 1000 times. */
static _Atomic int slow, partial, interrupted, uncached, failing, no_memory;
static _Atomic int slowness; /* in µs, at most */
static _Atomic int held;     /* reads of the backing file wait until it is 0, whatever signal comes */
static _Atomic int holding;  /* how many do */
static _Atomic int threads_left = 1000; /* how many threads may be made */

ssize_t __real_preadv64v2(int, const struct iovec *, int, off64_t, int);
ssize_t __wrap_preadv64v2(int, const struct iovec *, int, off64_t, int);
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
ssize_t __real_write(int, const void *, size_t);
ssize_t __wrap_write(int, const void *, size_t);
void *__real_malloc(size_t);
void *__wrap_malloc(size_t);

EXPORTED void faults(int new_slow, int new_slowness, int new_partial, int new_interrupted, int new_uncached,
    int new_failing, int new_no_memory)
{
    slow = new_slow;
    slowness = new_slowness;
    partial = new_partial;
    interrupted = new_interrupted;
    uncached = new_uncached;
    failing = new_failing;
    no_memory = new_no_memory;
}

EXPORTED void hold(int on) { held = on; }

EXPORTED void limit_threads(int left) { threads_left = left; }

EXPORTED int count_held(void) { return holding; }

static uint32_t chance(void)
{
    static _Thread_local uint32_t state;

    if (!state)
        state = (uint32_t)(uintptr_t)&state | 1;
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
}

static int happens(int permille) { return permille && (int)(chance() % 1000) < permille; }

static void pause_us(int most) { nanosleep(&(struct timespec){.tv_nsec = 1000L * (chance() % (most + 1))}, NULL); }

static void pause_sometimes(void)
{
    if (happens(slow))
        pause_us(slowness);
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *into, int count, off64_t offset, int flags)
{
    struct iovec part = *into;
    ssize_t result;

    holding++;
    while (held)
        pause_us(1000);
    holding--;
    pause_sometimes();
    errno = happens(interrupted) ? EINTR : flags && happens(uncached) ? EAGAIN : happens(failing) ? EIO : 0;
    if (errno)
        return -1;
    if (happens(partial))
        part.iov_len = 1 + chance() % part.iov_len;
    result = __real_preadv64v2(fd, &part, count, offset, flags);
    pause_sometimes();
    return result;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
    if (size > 1000 && happens(no_memory)) { /* the kernel copies an answer's data */
        errno = ENOMEM;
        return -1;
    }
    return __real_write(fd, bytes, size);
}

void *__wrap_malloc(size_t size)
{
    if (happens(no_memory)) {
        errno = ENOMEM;
        return NULL;
    }
    return __real_malloc(size);
}

int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    if (threads_left-- <= 0) {
        pause_us(2000); /* those that were made go on meanwhile */
        return EAGAIN;
    }
    return __real_pthread_create(id, attributes, run, argument);
}
