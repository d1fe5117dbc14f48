/* The threads: some read the device, some answer reads that had to wait. Python begins and ends
 * them with the GIL, so that no other thread of Python's is in this module; only device_end waits
 * without it. */
#include "native.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/timerfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct statistics statistics;
_Atomic bool stopping;
int device_fd = -1, news_fd = -1;
static struct thread threads[MAX_THREADS];
static unsigned thread_count;

/* Ends the wait of a thread in read(): it has no handler that restarts the call. */
#define WAKE (SIGRTMIN + 5)

/* How often threads are woken before they count as stuck, with a pause of 1 ms: two seconds. */
enum { PATIENCE = 2000 };

static void woken(int number) { (void)number; }

/* BUFFER_BYTES, aligned to them, that a fork does not copy; NULL if memory is short. A busy one is a
 * huge page. Of one for requests, which are small, most is never touched, and of the many for
 * answers of what had to wait half. */
static char *buffer_new(bool busy)
{
    const size_t size = BUFFER_BYTES;
    char *start = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *aligned = (char *)(((uintptr_t)start + size - 1) & ~(uintptr_t)(size - 1));

    if (start == MAP_FAILED)
        return NULL;
    if (aligned != start)
        munmap(start, aligned - start);
    munmap(aligned + size, start + size - aligned);
    madvise(aligned, size, busy ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    madvise(aligned, size, MADV_DONTFORK);
    return aligned;
}

/* The size of the next request, or -1 if the connection ended or the thread has to. */
static ssize_t receive(struct thread *thread)
{
    while (!atomic_load(&stopping)) {
        ssize_t size = read(device_fd, thread->request, REQUEST_BYTES);

        if (size >= (ssize_t)sizeof(struct fuse_in_header))
            return size;
        if (size < 0 && errno == EAGAIN) { /* another process made the device non-blocking */
            struct pollfd device = {device_fd, POLLIN, 0};

            poll(&device, 1, 100);
        } else if (size >= 0 || (errno != EINTR && errno != ENOENT)) { /* ENODEV: unmounted */
            queue_end();
            return -1;
        } /* ENOENT: the request is gone, for its reader was killed */
    }
    return -1;
}

/* No thread takes a request before all have begun: if one cannot, nobody else has that request. */
static void wait_for_all(void)
{
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
}

static void *read_device(void *argument)
{
    struct thread *thread = argument;
    ssize_t size;

    wait_for_all();
    while ((size = receive(thread)) >= 0) {
        const struct fuse_in_header *header = (const void *)thread->request;

        if (header->opcode == FUSE_READ && read_take(thread, thread->request, size))
            continue;
        while (!queue_push(thread->request, size, clock_now()) && !atomic_load(&stopping)) /* memory is short */
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    atomic_store(&thread->ended, true);
    return NULL;
}

static void *answer_ready(void *argument)
{
    struct thread *thread = argument;

    pthread_mutex_lock(&lock);
    while (!atomic_load(&stopping))
        if (!read_answer_ready(thread))
            pthread_cond_wait(&ready_condition, &lock);
    pthread_mutex_unlock(&lock);
    atomic_store(&thread->ended, true);
    return NULL;
}

static void buffers_free(struct thread *thread)
{
    if (thread->buffer)
        munmap(thread->buffer, BUFFER_BYTES);
    if (thread->request)
        munmap(thread->request, BUFFER_BYTES);
}

static bool thread_start(void *(*run)(void *), const char *name, bool reads)
{
    struct thread *thread = &threads[thread_count];

    *thread = (struct thread){.buffer = buffer_new(reads)};
    if (reads)
        thread->request = buffer_new(false);
    if (thread->buffer && (!reads || thread->request) && !pthread_create(&thread->id, NULL, run, thread)) {
        pthread_setname_np(thread->id, name);
        thread_count++;
        return true;
    }
    buffers_free(thread);
    return false;
}

/* Start all with every signal blocked but WAKE, so that Python's handlers run in its threads. */
static bool threads_start(int readers, int answerers)
{
    struct sigaction action = {.sa_handler = woken};
    sigset_t blocked, before;
    bool started = true;

    sigaction(WAKE, &action, NULL);
    sigfillset(&blocked);
    sigdelset(&blocked, WAKE);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    pthread_mutex_lock(&lock);
    for (int at = 0; started && at < readers + answerers; at++)
        started = at < readers ? thread_start(read_device, "axonfs-reads", true)
                               : thread_start(answer_ready, "axonfs-answers", false);
    atomic_store(&stopping, !started);
    pthread_mutex_unlock(&lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* Begin to read `device`; NULL, or what failed. */
const char *device_start(int device, int readers, int answerers)
{
    if (thread_count)
        return "the threads run already";
    if (readers < 1 || answerers < 1 || readers > MAX_THREADS || answerers > MAX_THREADS - readers)
        return "too many or too few threads";
    atomic_store(&stopping, false);
    device_fd = fcntl(device, F_DUPFD_CLOEXEC, 0);
    news_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (device_fd >= 0 && news_fd >= 0 && queue_open(device) && threads_start(readers, answerers))
        return NULL;
    device_end();
    device_forget();
    return "no memory, descriptor or thread is left";
}

/* Whether all threads have ended; wakes those that have not. */
static bool threads_ended(void)
{
    bool all = true;

    for (unsigned at = 0; at < thread_count; at++)
        if (!atomic_load(&threads[at].ended)) {
            all = false;
            pthread_kill(threads[at].id, WAKE); /* again: it may come just before the thread waits */
        }
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&ready_condition);
    pthread_mutex_unlock(&lock);
    return all;
}

/* End the threads. False: one waits for a disk, and nothing that it may use is to be freed. */
bool device_end(void)
{
    atomic_store(&stopping, true);
    for (unsigned tries = 0; !threads_ended(); tries++) {
        if (tries == PATIENCE)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

/* Copy the reads that threads answer which may wait for the disk, as many as there is room for. */
size_t threads_at_disk(struct waiting *copies, size_t room)
{
    size_t count = 0;

    for (unsigned at = 0; at < thread_count; at++)
        if (threads[at].at_disk.size && count++ < room)
            copies[count - 1] = threads[at].at_disk;
    return count;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Free all, once the threads have ended; the requests that wait stay unanswered, for the next worker. */
void device_forget(void)
{
    while (thread_count) {
        struct thread *thread = &threads[--thread_count];

        pthread_join(thread->id, NULL);
        buffers_free(thread);
    }
    reads_forget();
    objects_forget();
    queue_close();
    close_one(&news_fd);
    close_one(&device_fd);
}
