/* Requests for Python, in the order in which they were read, and the functions of libfuse by which
 * pyfuse3 gets them.
 *
 * pyfuse3 waits for the descriptor that fuse_session_fd() returns. That is an epoll descriptor here:
 * first it watches libfuse's own descriptor, on which the handshake is made; while native threads
 * read the device it watches the queue's eventfd. pyfuse3 calls both functions with the GIL. */
#include "native.h"
#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct message {
    struct message *next;
    size_t size;
    uint64_t arrived;
    void *bytes; /* allocated: pyfuse3 frees it */
};

enum { EARLY = 64 };

int queue_fd = -1;
uint64_t popped_arrived;
static uint64_t early[EARLY]; /* the requests of the last interrupts; 0 where there is none */
static unsigned early_next;
static int epoll_fd = -1;
static int watched = -1; /* the descriptor that is watched while no native thread runs */
static bool bypassed; /* pyfuse3 waits for libfuse's own descriptor */
static _Atomic bool ended;
static struct message *messages, **messages_end = &messages;

void raise_event(int fd)
{
    uint64_t one = 1;
    ssize_t count = write(fd, &one, sizeof one);

    (void)count; /* it cannot fail before 2^64 - 1 events */
}

void clear_event(int fd)
{
    uint64_t value;
    ssize_t count = read(fd, &value, sizeof value);

    (void)count; /* EAGAIN: nothing was raised */
}

static bool put(const void *bytes, size_t size, uint64_t arrived)
{
    struct message *message = malloc(sizeof *message);

    if (!message || !(message->bytes = malloc(size))) {
        free(message);
        return false;
    }
    memcpy(message->bytes, bytes, size);
    message->size = size;
    message->arrived = arrived;
    message->next = NULL;
    if (!messages && queue_fd >= 0)
        raise_event(queue_fd);
    *messages_end = message;
    messages_end = &message->next;
    return true;
}

/* Queue the interrupt of a request again if it overtook the request, which is parked or queued only
 * now. Under lock. */
void interrupt_again(uint64_t unique)
{
    struct interrupt_request again = {
        {.len = sizeof again, .opcode = FUSE_INTERRUPT}, {unique & ~RESENT},
    };

    for (unsigned at = 0; unique && at < EARLY; at++) /* a FORGET has no number */
        if (early[at] == again.interrupt.unique) {
            early[at] = 0;
            put(&again, sizeof again, 0); /* else memory is short: Python sees the signal a bit later */
        }
}

/* Queue a copy of a request that a thread got at `arrived`; false if memory is short. */
bool queue_push(const void *bytes, size_t size, uint64_t arrived)
{
    const struct fuse_in_header *header = bytes;
    bool pushed;

    pthread_mutex_lock(&lock);
    pushed = put(bytes, size, arrived);
    if (header->opcode == FUSE_INTERRUPT && size >= sizeof(struct interrupt_request))
        early[early_next++ % EARLY] = ((const struct interrupt_request *)bytes)->interrupt.unique & ~RESENT;
    else if (pushed)
        interrupt_again(header->unique);
    pthread_mutex_unlock(&lock);
    return pushed;
}

/* Tell pyfuse3 that the connection ended. */
void queue_end(void)
{
    pthread_mutex_lock(&lock);
    ended = true;
    if (queue_fd >= 0)
        raise_event(queue_fd);
    pthread_mutex_unlock(&lock);
}

static struct message *pop(void)
{
    struct message *message;

    pthread_mutex_lock(&lock);
    if ((message = messages) && !(messages = message->next)) {
        messages_end = &messages;
        if (!ended)
            clear_event(queue_fd);
    }
    pthread_mutex_unlock(&lock);
    return message;
}

static bool watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return !epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) || errno == EEXIST;
}

/* Have pyfuse3 wait for libfuse's descriptor `fd`, which is another file than before. False: it
 * waits for that descriptor by itself. */
bool queue_watch(int fd)
{
    return epoll_fd >= 0 && watch(fd);
}

/* Have pyfuse3 wait for queued requests instead of the device. False: no descriptor is left. */
bool queue_open(int device)
{
    queue_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ended = false;
    watched = device;
    if (epoll_fd >= 0)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watched, NULL);
    return queue_fd >= 0 && !bypassed && (epoll_fd < 0 || watch(queue_fd)); /* < 0: a test */
}

/* Drop the requests that wait, once no thread runs: the kernel sends them to the next worker. pyfuse3
 * waits for the device again. */
void queue_close(void)
{
    for (struct message *next; messages; messages = next) {
        next = messages->next;
        reply_to_own(messages->bytes);
        free(messages->bytes);
        free(messages);
    }
    messages_end = &messages;
    if (queue_fd >= 0)
        close(queue_fd);
    queue_fd = -1;
    if (watched >= 0 && epoll_fd >= 0)
        watch(watched);
    watched = -1;
}

EXPORTED int fuse_session_fd(struct fuse_session *session)
{
    static int (*libfuse)(struct fuse_session *);
    int fd;

    if (!libfuse)
        *(void **)&libfuse = dlsym(RTLD_NEXT, "fuse_session_fd");
    if (!libfuse)
        return -1;
    fd = libfuse(session);
    if (epoll_fd >= 0)
        close(epoll_fd);
    if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) >= 0 && !watch(fd)) {
        close(epoll_fd);
        epoll_fd = -1;
    }
    bypassed = epoll_fd < 0;
    return bypassed ? fd : epoll_fd;
}

static int receive_from_libfuse(struct fuse_session *session, struct fuse_buf *buffer)
{
    static int (*libfuse)(struct fuse_session *, struct fuse_buf *);
    int result;

    if (!libfuse)
        *(void **)&libfuse = dlsym(RTLD_NEXT, "fuse_session_receive_buf");
    if (!libfuse)
        return -ENOSYS;
    result = libfuse(session, buffer);
    popped_arrived = clock_now();
    /* The request that made the device readable may be gone: its reader was killed, or it was an
     * interrupt of a request that has been answered. pyfuse3 takes only EINTR for harmless. */
    return result == -EAGAIN ? -EINTR : result;
}

EXPORTED int fuse_session_receive_buf(struct fuse_session *session, struct fuse_buf *buffer)
{
    struct message *message;
    int size;

    if (queue_fd < 0)
        return receive_from_libfuse(session, buffer);
    message = pop();
    if (!message && ended) {
        fuse_session_exit(session);
        return 0;
    }
    if (!message)
        return -EINTR; /* pyfuse3 then waits again */
    free(buffer->mem);
    buffer->mem = message->bytes;
    buffer->size = message->size;
    buffer->flags = 0;
    popped_arrived = message->arrived;
    size = (int)message->size;
    free(message);
    return size;
}

/* The next queued request, for tests without libfuse; its bytes are the caller's to free. */
void *queue_pop(size_t *size)
{
    struct message *message = pop();
    void *bytes = message ? message->bytes : NULL;

    *size = message ? message->size : 0;
    free(message);
    return bytes;
}
