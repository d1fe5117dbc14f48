/* What is known of the reads that the native threads answer: how long they took, those that wait
 * now, and each one while Python listens. See axonfs/fuse/operations.py.
 *
 * The ring has a lock of its own, a leaf as well: a thread that holds it only copies memory. */
#include "native.h"

/* Powers of two from 16 µs to 2^27 µs, and one for what is above. RING bounds what a listener costs:
 * it is emptied ten times a second. ERRORS is more than the highest errno. */
enum { KINDS = 2, BUCKETS = 25, LEAST = 4, ERRORS = 134, RING = 4096 };

struct finished { /* a read that was answered; the same as _FINISHED in operations.py */
    uint64_t ended, took, inode, fh, offset; /* nanoseconds, by clock_now */
    uint32_t size, thread;
    int32_t error;
    uint32_t cold;
};

static _Atomic uint64_t buckets[KINDS][BUCKETS], nanoseconds[KINDS], errors[ERRORS];
static _Atomic bool listening;
static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER;
static struct finished ring[RING];
static size_t ring_count;
static uint64_t left_out;

static unsigned bucket_of(uint64_t took)
{
    uint64_t micros = (took + 999) / 1000;
    unsigned at = micros > 1 << LEAST ? 64 - LEAST - __builtin_clzll(micros - 1) : 0;

    return at < BUCKETS ? at : BUCKETS - 1;
}

static void tell(const struct finished *finished)
{
    pthread_mutex_lock(&ring_lock);
    if (ring_count < RING)
        ring[ring_count++] = *finished;
    else
        left_out++;
    pthread_mutex_unlock(&ring_lock);
}

/* Count a read that was answered just now. Not under lock. */
void operation_done(const struct read *read, int error)
{
    uint64_t now = clock_now(), took = now > read->arrived ? now - read->arrived : 0;

    atomic_fetch_add_explicit(&buckets[read->cold][bucket_of(took)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&nanoseconds[read->cold], took, memory_order_relaxed);
    if (error > 0 && error < ERRORS)
        atomic_fetch_add_explicit(&errors[error], 1, memory_order_relaxed);
    if (atomic_load_explicit(&listening, memory_order_relaxed))
        tell(&(struct finished){now, took, read->request.header.nodeid, read->request.read.fh,
            read->request.read.offset, error ? 0 : read->size, read->request.header.pid, error, read->cold});
}

static PyObject *latencies_of(unsigned kind)
{
    PyObject *counts = PyList_New(BUCKETS);

    for (unsigned at = 0; counts && at < BUCKETS; at++) {
        PyObject *count = PyLong_FromUnsignedLongLong(buckets[kind][at]);

        if (!count)
            Py_CLEAR(counts);
        else
            PyList_SetItem(counts, at, count);
    }
    return counts ? Py_BuildValue("KN", (unsigned long long)nanoseconds[kind], counts) : NULL;
}

static PyObject *latencies(PyObject *module, PyObject *args)
{
    PyObject *cache = latencies_of(false), *cold = latencies_of(true), *failed = PyDict_New();

    (void)module;
    (void)args;
    for (int at = 1; failed && at < ERRORS; at++) {
        PyObject *number = errors[at] ? PyLong_FromLong(at) : NULL;
        PyObject *count = number ? PyLong_FromUnsignedLongLong(errors[at]) : NULL;

        if (count && PyDict_SetItem(failed, number, count))
            Py_CLEAR(failed);
        Py_XDECREF(number);
        Py_XDECREF(count);
    }
    if (cache && cold && failed)
        return Py_BuildValue("NNN", cache, cold, failed);
    Py_XDECREF(cache);
    Py_XDECREF(cold);
    Py_XDECREF(failed);
    return NULL;
}

static PyObject *listen_to(PyObject *module, PyObject *args)
{
    int on;

    (void)module;
    if (!PyArg_ParseTuple(args, "p", &on))
        return NULL;
    pthread_mutex_lock(&ring_lock);
    atomic_store(&listening, on);
    ring_count = 0, left_out = 0;
    pthread_mutex_unlock(&ring_lock);
    Py_RETURN_NONE;
}

static PyObject *finished(PyObject *module, PyObject *args)
{
    static struct finished taken[RING]; /* guarded by the GIL */
    unsigned long long missed;
    size_t count;

    (void)module;
    (void)args;
    pthread_mutex_lock(&ring_lock);
    memcpy(taken, ring, ring_count * sizeof *ring);
    count = ring_count, missed = left_out;
    ring_count = 0, left_out = 0;
    pthread_mutex_unlock(&ring_lock);
    return Py_BuildValue("y#K", (char *)taken, (Py_ssize_t)(count * sizeof *taken), missed);
}

static PyObject *waiting_to_python(const struct waiting *waiting, size_t count)
{
    PyObject *list = PyList_New(count);

    for (size_t at = 0; list && at < count; at++) {
        const struct fuse_in_header *header = &waiting[at].request.header;
        const struct fuse_read_in *read = &waiting[at].request.read;
        PyObject *item = Py_BuildValue("KIKKIKIK", (unsigned long long)(header->unique & ~RESENT),
            (unsigned)header->pid, (unsigned long long)header->nodeid, (unsigned long long)read->offset,
            (unsigned)read->flags, (unsigned long long)read->fh, (unsigned)waiting[at].size,
            (unsigned long long)waiting[at].arrived);

        if (!item)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, at, item);
    }
    return list;
}

/* What `look` finds; what has come between its two calls is in the next answer. */
static PyObject *look_at(size_t (*look)(struct waiting *, size_t))
{
    size_t room = look(NULL, 0), count;
    struct waiting *copies = malloc((room + 1) * sizeof *copies);
    PyObject *list;

    if (!copies)
        return PyErr_NoMemory();
    count = look(copies, room);
    list = waiting_to_python(copies, count < room ? count : room);
    free(copies);
    return list;
}

static PyObject *parked(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return look_at(reads_parked);
}

static size_t look_at_disk(struct waiting *copies, size_t room)
{
    size_t count;

    pthread_mutex_lock(&lock);
    count = reads_at_disk(copies, room, threads_at_disk(copies, room));
    pthread_mutex_unlock(&lock);
    return count;
}

static PyObject *at_disk(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return look_at(look_at_disk);
}

PyMethodDef operation_methods[] = {
    {"parked", parked, METH_NOARGS, "parked(): (request, thread, inode, offset, flags, handle, size, since) of each read that waits for chunks."},
    {"at_disk", at_disk, METH_NOARGS, "at_disk(): likewise, of each that waits for the disk or is read from it."},
    {"latencies", latencies, METH_NOARGS, "latencies(): (nanoseconds, buckets) of reads answered at once and cold, and {errno: count}."},
    {"listen", listen_to, METH_VARARGS, "listen(on): keep each read that is answered from now on, or none."},
    {"finished", finished, METH_NOARGS, "finished(): those that were answered since the last call, as bytes, and how many were left out."},
    {NULL, NULL, 0, NULL},
};
