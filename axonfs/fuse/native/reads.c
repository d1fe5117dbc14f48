/* One READ of an attached handle: answered from the backing file, parked until its chunks are here,
 * or handed over to Python, which then answers it as if the handle were not attached.
 *
 * A thread that reads the device never waits for a disk: what is not in the page cache goes to the
 * answering threads, as do reads whose chunks have arrived. */
#include "native.h"
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

static struct read *ready, **ready_end = &ready;
pthread_cond_t ready_condition = PTHREAD_COND_INITIALIZER;

enum outcome { DONE, NOT_CACHED, FAILED };

/* `data` has room for the header before it; NULL for an error. */
static void reply(uint64_t unique, int error, char *data, size_t size)
{
    struct fuse_out_header alone, *out = data ? (void *)(data - sizeof *out) : &alone;

    *out = (struct fuse_out_header){sizeof *out + size, -error, unique};
    if (write(device_fd, out, out->len) >= 0 || errno == ENOENT) /* ENOENT: the reader is gone */
        return;
    atomic_fetch_add(&statistics.refused, 1);
    if (size) /* the kernel has no memory for the data; the reader must not wait for ever */
        reply(unique, ENOMEM, NULL, 0);
}

static enum outcome fill(const struct object *object, char *data, uint64_t offset, size_t size, bool may_wait)
{
    int flags = may_wait || object->never_waits ? 0 : RWF_NOWAIT;

    for (size_t done = 0; done < size;) {
        struct iovec rest = {data + done, size - done};
        ssize_t count = preadv2(object->fd, &rest, 1, offset + done, flags);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) /* EOPNOTSUPP: this file system cannot say what is cached */
            return flags ? NOT_CACHED : FAILED;
        done += count;
    }
    return DONE;
}

static void hand_over(const struct read *read)
{
    atomic_fetch_add(&statistics.handed_over, 1);
    handle_gave_up(read->request.read.fh, read->size);
    if (!queue_push(&read->request, sizeof read->request, read->arrived)) {
        reply(read->request.header.unique, ENOMEM, NULL, 0);
        operation_done(read, ENOMEM);
    }
}

static void park(struct read *read)
{
    struct object *object = read->object;

    read->back = &object->parked;
    if ((read->next = object->parked))
        read->next->back = &read->next;
    object->parked = read;
    read->cold = true;
    atomic_fetch_add(&statistics.parked, 1);
    interrupt_again(read->request.header.unique);
    read->since = clock_now();
    object_want(object, read, read->since);
}

static void unlink_parked(struct read *read)
{
    if ((*read->back = read->next))
        read->next->back = read->back;
    read->back = NULL;
}

static void push_ready(struct read *read)
{
    read->next = NULL;
    *ready_end = read;
    ready_end = &read->next;
}

/* Wake a thread for each read that became ready. Not under lock, which it would wait for. */
void reads_wake(size_t count)
{
    while (count--)
        pthread_cond_signal(&ready_condition);
}

/* A read that waits outlives the thread's copy of it. */
static struct read *kept(const struct read *read, struct read *own)
{
    struct read *copy = own ? own : malloc(sizeof *copy);

    if (copy && !own)
        *copy = *read;
    return copy;
}

static void end_read(struct object *object, struct read *own)
{
    object_put(object);
    free(own);
}

/* Answer, park, pass to an answering thread or hand over. Under lock at the call, not at the return.
 * `own` is the read itself if it was allocated; it is freed or kept here. The reference to its
 * object goes with it. */
static void answer(struct read *read, struct read *own, char *data, bool may_wait)
{
    struct object *object = read->object;
    uint64_t unique = read->request.header.unique, offset = read->request.read.offset;

    while (!object->closed) {
        uint64_t epoch = atomic_load(&object->epoch);
        bool whole = object_whole(object, offset, read->size);
        enum outcome outcome = NOT_CACHED;

        if (whole) {
            pthread_mutex_unlock(&lock);
            outcome = fill(object, data, offset, read->size, may_wait);
            atomic_thread_fence(memory_order_seq_cst);
            if (outcome == DONE && atomic_load(&object->epoch) == epoch) {
                reply(unique, 0, data, read->size);
                atomic_fetch_add(&statistics.answered, 1);
                atomic_fetch_add(&statistics.bytes, read->size);
                operation_done(read, 0);
                end_read(object, own);
                return;
            }
            pthread_mutex_lock(&lock);
        }
        if (outcome == FAILED) /* the disk; Python knows what to do */
            break;
        if (outcome == DONE) { /* a chunk was dropped meanwhile */
            atomic_fetch_add(&statistics.retried, 1);
            continue;
        }
        if (!(own = kept(read, own))) {
            pthread_mutex_unlock(&lock);
            reply(unique, ENOMEM, NULL, 0);
            operation_done(read, ENOMEM);
            object_put(object);
            return;
        }
        if (whole)
            push_ready(own);
        else
            park(own);
        pthread_mutex_unlock(&lock);
        reads_wake(whole);
        return;
    }
    pthread_mutex_unlock(&lock);
    hand_over(read);
    end_read(object, own);
}

static struct waiting waiting_of(const struct read *read)
{
    return (struct waiting){read->request, read->size, read->arrived};
}

/* Take a request if it is a READ of an attached handle. */
bool read_take(struct thread *thread, const void *bytes, size_t size)
{
    struct read read = {.arrived = clock_now()};
    struct handle *handle;
    uint64_t offset;

    if (size < sizeof read.request)
        return false;
    memcpy(&read.request, bytes, sizeof read.request);
    offset = read.request.read.offset;
    read.size = read.request.read.size;
    pthread_mutex_lock(&lock);
    handle = *handle_find(read.request.read.fh);
    if (!handle || handle->object->closed || read.size > BUFFER_BYTES - HEADROOM) {
        pthread_mutex_unlock(&lock);
        return false;
    }
    read.object = handle->object;
    if (offset >= read.object->size)
        read.size = 0;
    else if (read.size > read.object->size - offset)
        read.size = read.object->size - offset;
    if (!read.size) { /* behind the end */
        pthread_mutex_unlock(&lock);
        reply(read.request.header.unique, 0, thread->buffer + HEADROOM, 0);
        operation_done(&read, 0);
        return true;
    }
    handle->touched = true;
    handle->count++;
    handle->bytes += read.size;
    handle_note(handle, offset, read.size);
    read.object->references++;
    answer(&read, NULL, thread->buffer + HEADROOM, false);
    return true;
}

/* Answer the next read that is ready; false if there is none. */
bool read_answer_ready(struct thread *thread)
{
    struct read *read = ready;

    if (!read)
        return false;
    if (!(ready = read->next))
        ready_end = &ready;
    thread->at_disk = waiting_of(read);
    answer(read, read, thread->buffer + HEADROOM, true);
    pthread_mutex_lock(&lock);
    thread->at_disk.size = 0;
    return true;
}

/* Unpark the reads that touch these chunks, and return them as a list. */
struct read *reads_release(struct object *object, uint64_t first, uint64_t stop)
{
    struct read *released = NULL, *next;

    for (struct read *read = object->parked; read; read = next) {
        uint64_t offset = read->request.read.offset;

        next = read->next;
        if (offset >= stop * object->chunk || offset + read->size <= first * object->chunk)
            continue;
        unlink_parked(read);
        read->next = released;
        released = read;
    }
    return released;
}

/* Have the chunks wanted that the parked reads of an object wait for. */
void reads_want(struct object *object, uint64_t now)
{
    for (const struct read *read = object->parked; read; read = read->next)
        object_want(object, read, now);
}

/* Have the answering threads look at these reads: they answer them, or park them again. Returns how
 * many they are, for reads_wake. */
size_t reads_ready(struct read *list)
{
    size_t count = 0;

    for (struct read *next; list; list = next, count++) {
        next = list->next;
        push_ready(list);
    }
    return count;
}

void reads_hand_over(struct read *list)
{
    for (struct read *next; list; list = next) {
        next = list->next;
        hand_over(list);
        end_read(list->object, list);
    }
}

void reads_fail(struct read *list, int error)
{
    for (struct read *next; list; list = next) {
        next = list->next;
        reply(list->request.header.unique, error, NULL, 0);
        operation_done(list, error);
        end_read(list->object, list);
    }
}

/* A parked read; under lock. */
static struct read *find_parked(uint64_t unique)
{
    for (unsigned at = 0; at < MAX_OBJECTS; at++)
        for (struct read *read = objects[at] ? objects[at]->parked : NULL; read; read = read->next)
            if ((read->request.header.unique & ~RESENT) == unique)
                return read;
    return NULL;
}

/* Answer a parked read with an error; false if it is not parked. */
bool read_interrupt(uint64_t unique, int error)
{
    struct read *read;

    pthread_mutex_lock(&lock);
    if ((read = find_parked(unique))) {
        unlink_parked(read);
        read->next = NULL;
    }
    pthread_mutex_unlock(&lock);
    reads_fail(read, error);
    return read != NULL;
}

/* Copy as many parked reads as there is room for; returns how many there are. */
size_t reads_parked(struct waiting *copies, size_t room)
{
    size_t count = 0;

    pthread_mutex_lock(&lock);
    for (unsigned at = 0; at < MAX_OBJECTS; at++)
        for (struct read *read = objects[at] ? objects[at]->parked : NULL; read; read = read->next)
            if (count++ < room)
                copies[count - 1] = waiting_of(read);
    pthread_mutex_unlock(&lock);
    return count;
}

/* Likewise those that no thread has begun to answer, behind `count` that were copied before. */
size_t reads_at_disk(struct waiting *copies, size_t room, size_t count)
{
    for (const struct read *read = ready; read; read = read->next)
        if (count++ < room)
            copies[count - 1] = waiting_of(read);
    return count;
}

/* A thread of this process that waits for its answer could not be ended, nor the process. */
void reply_to_own(const struct fuse_in_header *header)
{
    char path[sizeof "/proc/self/task/4294967295"];

    snprintf(path, sizeof path, "/proc/self/task/%u", header->pid);
    if (header->pid && header->unique && header->opcode != FUSE_INTERRUPT && !access(path, F_OK))
        reply(header->unique, EINTR, NULL, 0);
}

static void forget_list(struct read *list)
{
    for (struct read *next; list; list = next) {
        next = list->next;
        reply_to_own(&list->request.header);
        end_read(list->object, list);
    }
}

/* Forget the reads that wait, once no thread runs: the kernel sends them to the next worker. */
void reads_forget(void)
{
    forget_list(ready);
    ready = NULL, ready_end = &ready;
    for (unsigned at = 0; at < MAX_OBJECTS; at++)
        if (objects[at]) {
            struct read *parked = objects[at]->parked;

            objects[at]->parked = NULL;
            forget_list(parked);
        }
}
