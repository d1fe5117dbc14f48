/* Objects with the bits of their chunks, the handles on them, and what Python is told of both.
 * Python sets and clears bits; see native.h for the rule that makes the bytes right. */
#include "native.h"
#include <fcntl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 4096, LOGGED = 1024 };

/* Reads that follow one another with gaps up to this are one run: native threads note the parts of
 * the kernel's readahead slightly out of order. As SLACK in fetch/readahead.py. */
static const uint64_t slack = 2 << 20;

/* Nanoseconds until a read wants what is coming anyway. Most of it lands before, and Python is
 * spared the news; else Python makes the request more urgent. */
static const uint64_t later = 15 * 1000 * 1000;

struct object *objects[MAX_OBJECTS];
static uint64_t numbers;
static struct handle *handles[BUCKETS];
static struct run logged[LOGGED];
static size_t logged_count;
static bool news_raised;
static uint64_t late_at; /* when parked reads are looked at anew; 0: none waits for what is coming */

static uint64_t words(uint64_t count) { return (count + 63) / 64; }

struct object *object_new(int fd, uint64_t size, uint64_t chunk, bool never_waits)
{
    struct object *object = calloc(1, sizeof *object);

    if (!object)
        return NULL;
    object->fd = -1;
    object->size = size, object->chunk = chunk, object->count = (size + chunk - 1) / chunk;
    object->never_waits = never_waits;
    object->references = 1;
    object->bits = calloc(words(object->count) + 1, sizeof *object->bits);
    object->wanted = calloc(words(object->count) + 1, sizeof *object->wanted);
    object->untold = calloc(words(object->count) + 1, sizeof *object->untold);
    object->coming = calloc(words(object->count) + 1, sizeof *object->coming);
    if (object->bits && object->wanted && object->untold && object->coming)
        object->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (object->fd < 0) {
        object_put(object);
        return NULL;
    }
    return object;
}

struct object *object_find(uint64_t number)
{
    struct object *object = objects[number % MAX_OBJECTS];

    return object && object->number == number ? object : NULL;
}

/* Give the object a number; false if there are too many. */
bool object_add(struct object *object)
{
    for (unsigned tried = 0; tried < MAX_OBJECTS; tried++) {
        uint64_t number = ++numbers;

        if (objects[number % MAX_OBJECTS])
            continue;
        object->number = number;
        objects[number % MAX_OBJECTS] = object;
        return true;
    }
    return false;
}

/* Give a reference back. Not under lock: to close the file may take long, if it was evicted. */
void object_put(struct object *object)
{
    if (atomic_fetch_sub(&object->references, 1) > 1)
        return;
    if (object->fd >= 0)
        close(object->fd);
    free((void *)object->bits);
    free(object->wanted);
    free(object->untold);
    free(object->coming);
    free(object);
}

static bool has(const struct object *object, uint64_t chunk)
{
    return atomic_load_explicit(&object->bits[chunk / 64], memory_order_acquire) >> chunk % 64 & 1;
}

/* Whether all chunks of these bytes may be served. */
bool object_whole(const struct object *object, uint64_t offset, uint64_t size)
{
    for (uint64_t chunk = offset / object->chunk; chunk * object->chunk < offset + size; chunk++)
        if (!has(object, chunk))
            return false;
    return true;
}

void object_set(struct object *object, uint64_t first, uint64_t stop)
{
    for (uint64_t chunk = first; chunk < stop; chunk++) {
        uint64_t bit = 1ULL << chunk % 64;

        object->present += !(atomic_fetch_or(&object->bits[chunk / 64], bit) & bit);
    }
    object_unwant(object, first, stop);
}

/* Clear the bits, then raise the epoch. A parked read wants these chunks once its others landed. */
void object_clear(struct object *object, uint64_t first, uint64_t stop)
{
    for (uint64_t chunk = first; chunk < stop; chunk++) {
        uint64_t bit = 1ULL << chunk % 64;

        object->present -= !!(atomic_fetch_and(&object->bits[chunk / 64], ~bit) & bit);
    }
    atomic_fetch_add(&object->epoch, 1);
}

uint64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* Have `news_fd` readable from then on, and not before; 0 is never. */
static void set_timer(uint64_t then)
{
    struct itimerspec value = {.it_value = {then / 1000000000, then % 1000000000}};

    if (news_fd >= 0)
        timerfd_settime(news_fd, TFD_TIMER_ABSTIME, &value, NULL);
}

static void raise_news(void)
{
    if (!news_raised)
        set_timer(1);
    news_raised = true;
}

static void raise_later(uint64_t now)
{
    if (late_at)
        return;
    late_at = now + later;
    if (!news_raised)
        set_timer(late_at);
}

/* Have Python told of the chunks that a parked read waits for: later, of those that are coming. */
void object_want(struct object *object, const struct read *read, uint64_t now)
{
    uint64_t chunk = read->request.read.offset / object->chunk;
    uint64_t stop = (read->request.read.offset + read->size - 1) / object->chunk + 1;

    for (; chunk < stop; chunk++) {
        uint64_t at = chunk / 64, bit = 1ULL << chunk % 64;

        if (has(object, chunk) || object->wanted[at] & bit)
            continue;
        if (object->coming[at] & bit && now - read->since < later) {
            raise_later(now);
            continue;
        }
        object->wanted[at] |= bit;
        object->untold[at] |= bit;
        object->has_untold = true;
        raise_news();
    }
}

void object_unwant(struct object *object, uint64_t first, uint64_t stop)
{
    for (uint64_t chunk = first; chunk < stop; chunk++) {
        uint64_t mask = ~(1ULL << chunk % 64);

        object->wanted[chunk / 64] &= mask;
        object->untold[chunk / 64] &= mask;
        object->coming[chunk / 64] &= mask;
    }
}

/* Note that absent chunks are coming, or no longer. */
void object_expect(struct object *object, uint64_t first, uint64_t stop, bool coming)
{
    for (uint64_t chunk = first; chunk < stop; chunk++) {
        uint64_t bit = 1ULL << chunk % 64;

        if (coming && !has(object, chunk))
            object->coming[chunk / 64] |= bit;
        else
            object->coming[chunk / 64] &= ~bit;
    }
    if (!coming)
        reads_want(object, clock_now());
}

struct handle **handle_find(uint64_t fh)
{
    struct handle **at = &handles[(fh >> 1 ^ fh >> 13) % BUCKETS];

    while (*at && (*at)->fh != fh)
        at = &(*at)->next;
    return at;
}

static void log_run(struct handle *handle)
{
    if (handle->reads && logged_count < LOGGED) /* else a guess about readahead has a gap */
        logged[logged_count++] = (struct run){handle->fh, handle->start, handle->stop, handle->reads};
    handle->reads = 0;
    if (logged_count > LOGGED / 2)
        raise_news();
}

/* Note a read for Python, which fetches ahead of it. Reads of complete objects are no news. */
void handle_note(struct handle *handle, uint64_t offset, uint64_t size)
{
    uint64_t stop = offset + size;

    if (handle->object->present == handle->object->count)
        return;
    if (handle->reads && (offset > handle->stop + slack || offset < handle->start))
        log_run(handle);
    if (!handle->reads)
        handle->start = offset, handle->stop = stop;
    handle->stop = handle->stop > stop ? handle->stop : stop;
    handle->reads++;
    if (stop >= handle->mark)
        raise_news();
}

/* Python answers a read that was counted for the handle. Not under lock. */
void handle_gave_up(uint64_t fh, uint64_t size)
{
    struct handle *handle;

    pthread_mutex_lock(&lock);
    if ((handle = *handle_find(fh)) && handle->count && handle->bytes >= size) { /* else attached anew */
        handle->count--;
        handle->bytes -= size;
    }
    pthread_mutex_unlock(&lock);
}

static PyObject *runs_to_python(const struct run *runs, size_t count)
{
    PyObject *list = PyList_New(count);

    for (size_t at = 0; list && at < count; at++) {
        PyObject *item = Py_BuildValue("KKKK", (unsigned long long)runs[at].fh,
            (unsigned long long)runs[at].start, (unsigned long long)runs[at].stop,
            (unsigned long long)runs[at].reads);

        if (!item) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SetItem(list, at, item);
    }
    return list;
}

/* The next run of untold chunks, taken from the object; false if there is none. */
static bool next_untold(struct object *object, struct run *run)
{
    uint64_t chunk = 0;

    if (!object->has_untold)
        return false;
    while (chunk < object->count && !(object->untold[chunk / 64] >> chunk % 64 & 1))
        chunk += object->untold[chunk / 64] ? 1 : 64 - chunk % 64;
    if (chunk >= object->count) {
        object->has_untold = false;
        return false;
    }
    *run = (struct run){object->number, chunk, chunk, 0};
    while (run->stop < object->count && object->untold[run->stop / 64] >> run->stop % 64 & 1) {
        object->untold[run->stop / 64] &= ~(1ULL << run->stop % 64);
        run->stop++;
    }
    return true;
}

/* Python's news: runs of reads (handle, start, stop, reads), and of wanted chunks (object, first,
 * stop, 0). What does not fit is left for the next call. */
PyObject *objects_news(void)
{
    static struct run reads[LOGGED], wants[LOGGED]; /* guarded by the GIL */
    size_t read_count, want_count = 0;
    PyObject *first, *second;

    pthread_mutex_lock(&lock);
    news_raised = true; /* what comes up here is told now */
    if (late_at && clock_now() >= late_at) {
        late_at = 0;
        for (unsigned at = 0; at < MAX_OBJECTS; at++)
            if (objects[at])
                reads_want(objects[at], clock_now());
    }
    for (unsigned at = 0; at < BUCKETS; at++)
        for (struct handle *handle = handles[at]; handle; handle = handle->next)
            log_run(handle);
    read_count = logged_count, logged_count = 0;
    memcpy(reads, logged, read_count * sizeof *reads);
    for (unsigned at = 0; at < MAX_OBJECTS && want_count < LOGGED; at++)
        while (objects[at] && want_count < LOGGED && next_untold(objects[at], &wants[want_count]))
            want_count++;
    news_raised = false;
    set_timer(late_at);
    if (want_count == LOGGED)
        raise_news();
    pthread_mutex_unlock(&lock);
    first = runs_to_python(reads, read_count);
    second = first ? runs_to_python(wants, want_count) : NULL;
    if (second)
        return Py_BuildValue("NN", first, second);
    Py_XDECREF(first);
    return NULL;
}

/* Forget all objects and handles, once no thread runs. */
void objects_forget(void)
{
    for (unsigned at = 0; at < BUCKETS; at++)
        for (struct handle *handle; (handle = handles[at]);) {
            handles[at] = handle->next;
            object_put(handle->object);
            free(handle);
        }
    for (unsigned at = 0; at < MAX_OBJECTS; at++)
        if (objects[at]) {
            object_put(objects[at]);
            objects[at] = NULL;
        }
    logged_count = 0;
    news_raised = false;
    late_at = 0;
}
