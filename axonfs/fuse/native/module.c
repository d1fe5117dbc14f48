/* The interface for Python; axonfs/fuse/reads.py and openreply.py use it. Every function is called
 * with the GIL, and keeps it unless it says otherwise. Numbers of objects are never used twice; what
 * is asked of one that was dropped does nothing. */
#include "native.h"

static PyObject *start(PyObject *module, PyObject *args)
{
    int device, readers, answerers;
    const char *failure;

    (void)module;
    if (!PyArg_ParseTuple(args, "iii", &device, &readers, &answerers))
        return NULL;
    if ((failure = device_start(device, readers, answerers))) {
        PyErr_SetString(PyExc_OSError, failure);
        return NULL;
    }
    return PyLong_FromLong(news_fd);
}

static PyObject *stop(PyObject *module, PyObject *args)
{
    bool ended;

    (void)module;
    (void)args;
    Py_BEGIN_ALLOW_THREADS
    ended = device_end();
    Py_END_ALLOW_THREADS
    if (ended)
        device_forget();
    return PyBool_FromLong(ended);
}

static PyObject *watch(PyObject *module, PyObject *args)
{
    int fd;

    (void)module;
    return PyArg_ParseTuple(args, "i", &fd) ? PyBool_FromLong(queue_watch(fd)) : NULL;
}

static PyObject *add(PyObject *module, PyObject *args)
{
    unsigned long long size, chunk, number = 0;
    int fd, never_waits;
    struct object *object;

    (void)module;
    if (!PyArg_ParseTuple(args, "iKKp", &fd, &size, &chunk, &never_waits))
        return NULL;
    if (!size || !chunk || size > INT64_MAX || chunk > INT64_MAX)
        return PyErr_Format(PyExc_ValueError, "an object of %llu bytes in chunks of %llu", size, chunk);
    if (!(object = object_new(fd, size, chunk, never_waits)))
        return PyErr_SetFromErrno(PyExc_OSError);
    pthread_mutex_lock(&lock);
    if (object_add(object))
        number = object->number;
    pthread_mutex_unlock(&lock);
    if (!number)
        object_put(object);
    return PyLong_FromUnsignedLongLong(number);
}

/* Have all reads of the object go to Python. */
static PyObject *shut(PyObject *args, bool drop)
{
    unsigned long long number;
    struct read *parked = NULL;
    struct object *object;

    if (!PyArg_ParseTuple(args, "K", &number))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((object = object_find(number))) {
        parked = reads_release(object, 0, object->count);
        object_clear(object, 0, object->count);
        object_unwant(object, 0, object->count);
        object->closed = true;
        if (drop)
            objects[number % MAX_OBJECTS] = NULL;
    }
    pthread_mutex_unlock(&lock);
    reads_hand_over(parked);
    if (drop && object)
        object_put(object);
    Py_RETURN_NONE;
}

static PyObject *shut_object(PyObject *module, PyObject *args)
{
    (void)module;
    return shut(args, false);
}

static PyObject *drop(PyObject *module, PyObject *args)
{
    (void)module;
    return shut(args, true);
}

static PyObject *attach(PyObject *module, PyObject *args)
{
    unsigned long long fh, number;
    struct handle *handle = calloc(1, sizeof *handle), **at;
    bool attached;

    (void)module;
    if (!handle)
        return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "KK", &fh, &number)) {
        free(handle);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    handle->fh = fh, handle->object = object_find(number);
    at = handle_find(fh);
    attached = handle->object && !*at;
    if (attached) {
        handle->object->references++;
        *at = handle;
    }
    pthread_mutex_unlock(&lock);
    if (!attached)
        free(handle);
    return PyBool_FromLong(attached);
}

static PyObject *detach(PyObject *module, PyObject *args)
{
    unsigned long long fh;
    struct handle **at, *handle;
    bool touched = false;

    (void)module;
    if (!PyArg_ParseTuple(args, "K", &fh))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((handle = *(at = handle_find(fh)))) {
        *at = handle->next;
        touched = handle->touched;
    }
    pthread_mutex_unlock(&lock);
    if (handle)
        object_put(handle->object);
    free(handle);
    return PyBool_FromLong(touched);
}

static PyObject *totals(PyObject *module, PyObject *args)
{
    unsigned long long fh, count = 0, bytes = 0;
    const struct handle *handle;

    (void)module;
    if (!PyArg_ParseTuple(args, "K", &fh))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((handle = *handle_find(fh)))
        count = handle->count, bytes = handle->bytes;
    pthread_mutex_unlock(&lock);
    return Py_BuildValue("KK", count, bytes);
}

static PyObject *mark(PyObject *module, PyObject *args)
{
    unsigned long long fh, offset;
    struct handle *handle;

    (void)module;
    if (!PyArg_ParseTuple(args, "KK", &fh, &offset))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((handle = *handle_find(fh)))
        handle->mark = offset;
    pthread_mutex_unlock(&lock);
    Py_RETURN_NONE;
}

static PyObject *epoch(PyObject *module, PyObject *args)
{
    unsigned long long number, found = 0;
    struct object *object;

    (void)module;
    if (!PyArg_ParseTuple(args, "K", &number))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((object = object_find(number)))
        found = atomic_load(&object->epoch);
    pthread_mutex_unlock(&lock);
    return PyLong_FromUnsignedLongLong(found);
}

/* Chunks first to stop of an object, if it is there and has them. Under lock. */
static struct object *object_with(unsigned long long number, unsigned long long first, unsigned long long stop)
{
    struct object *object = object_find(number);

    return object && first < stop && stop <= object->count ? object : NULL;
}

static PyObject *landed(PyObject *module, PyObject *args)
{
    unsigned long long number, first, stop;
    long long seen = -1;
    struct object *object;
    size_t count = 0;
    bool set;

    (void)module;
    if (!PyArg_ParseTuple(args, "KKK|L", &number, &first, &stop, &seen))
        return NULL;
    pthread_mutex_lock(&lock);
    object = object_with(number, first, stop);
    set = object && !object->closed && (seen < 0 || (uint64_t)seen == atomic_load(&object->epoch));
    if (set) {
        object_set(object, first, stop);
        count = reads_ready(reads_release(object, first, stop));
    }
    pthread_mutex_unlock(&lock);
    reads_wake(count);
    return PyBool_FromLong(set);
}

static PyObject *cleared(PyObject *module, PyObject *args)
{
    unsigned long long number, first, stop;
    struct object *object;

    (void)module;
    if (!PyArg_ParseTuple(args, "KKK", &number, &first, &stop))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((object = object_with(number, first, stop)))
        object_clear(object, first, stop);
    pthread_mutex_unlock(&lock);
    Py_RETURN_NONE;
}

static PyObject *expect(PyObject *args, bool coming)
{
    unsigned long long number, first, stop;
    struct object *object;

    if (!PyArg_ParseTuple(args, "KKK", &number, &first, &stop))
        return NULL;
    pthread_mutex_lock(&lock);
    if ((object = object_with(number, first, stop)))
        object_expect(object, first, stop, coming);
    pthread_mutex_unlock(&lock);
    Py_RETURN_NONE;
}

static PyObject *coming(PyObject *module, PyObject *args)
{
    (void)module;
    return expect(args, true);
}

static PyObject *given_up(PyObject *module, PyObject *args)
{
    (void)module;
    return expect(args, false);
}

/* Take the reads that wait for these chunks. */
static struct read *give_up(unsigned long long number, unsigned long long first, unsigned long long stop)
{
    struct read *released = NULL;
    struct object *object;

    pthread_mutex_lock(&lock);
    if ((object = object_with(number, first, stop))) {
        released = reads_release(object, first, stop);
        object_unwant(object, first, stop);
    }
    pthread_mutex_unlock(&lock);
    return released;
}

static PyObject *declined(PyObject *module, PyObject *args)
{
    unsigned long long number, first, stop;

    (void)module;
    if (!PyArg_ParseTuple(args, "KKK", &number, &first, &stop))
        return NULL;
    reads_hand_over(give_up(number, first, stop));
    Py_RETURN_NONE;
}

static PyObject *failed(PyObject *module, PyObject *args)
{
    unsigned long long number, first, stop;
    int error;

    (void)module;
    if (!PyArg_ParseTuple(args, "KKKi", &number, &first, &stop, &error))
        return NULL;
    reads_fail(give_up(number, first, stop), error);
    Py_RETURN_NONE;
}

static PyObject *news(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return objects_news();
}

static PyObject *interrupt(PyObject *module, PyObject *args)
{
    unsigned long long unique;
    int error;

    (void)module;
    return PyArg_ParseTuple(args, "Ki", &unique, &error) ? PyBool_FromLong(read_interrupt(unique, error)) : NULL;
}

static PyObject *counts(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return Py_BuildValue("{sKsKsKsKsKsK}",
        "answered", (unsigned long long)statistics.answered, "bytes", (unsigned long long)statistics.bytes,
        "parked", (unsigned long long)statistics.parked, "handed_over", (unsigned long long)statistics.handed_over,
        "retried", (unsigned long long)statistics.retried, "refused", (unsigned long long)statistics.refused);
}

static PyObject *pop(PyObject *module, PyObject *args)
{
    size_t size;
    void *bytes = queue_pop(&size);
    PyObject *found = PyBytes_FromStringAndSize(bytes, size);

    (void)module;
    (void)args;
    free(bytes);
    return found;
}

static PyMethodDef methods[] = {
    {"start", start, METH_VARARGS, "start(device, readers, answerers): read the device; the descriptor of news."},
    {"stop", stop, METH_NOARGS, "stop(): end the threads and forget all; false if a thread does not end."},
    {"watch", watch, METH_VARARGS, "watch(descriptor): have pyfuse3 wait for libfuse's descriptor, a new file."},
    {"add", add, METH_VARARGS, "add(fd, size, chunk, never_waits): the number of a new object; 0 if there are too many."},
    {"shut", shut_object, METH_VARARGS, "shut(object): have all its reads go to Python."},
    {"drop", drop, METH_VARARGS, "drop(object): likewise, and forget it."},
    {"attach", attach, METH_VARARGS, "attach(handle, object): answer the handle's reads here; false if it is attached, or the object gone."},
    {"detach", detach, METH_VARARGS, "detach(handle): do not; whether a read of it was taken here."},
    {"totals", totals, METH_VARARGS, "totals(handle): (reads, bytes) that were taken here since it was attached."},
    {"mark", mark, METH_VARARGS, "mark(handle, offset): a read that reaches `offset` is news."},
    {"epoch", epoch, METH_VARARGS, "epoch(object): changes whenever chunks are cleared."},
    {"landed", landed, METH_VARARGS, "landed(object, first, stop[, epoch]): they may be served; false if it changed."},
    {"cleared", cleared, METH_VARARGS, "cleared(object, first, stop): they may not, and their bytes change next."},
    {"coming", coming, METH_VARARGS, "coming(object, first, stop): a request brings them; a read wants them only later."},
    {"given_up", given_up, METH_VARARGS, "given_up(object, first, stop): none does; reads that wait for them want them now."},
    {"declined", declined, METH_VARARGS, "declined(object, first, stop): hand reads that wait for them to Python."},
    {"failed", failed, METH_VARARGS, "failed(object, first, stop, errno): answer those reads with an error."},
    {"news", news, METH_NOARGS, "news(): (handle, start, stop, reads)…, and wanted (object, first, stop, 0)…"},
    {"interrupt", interrupt, METH_VARARGS, "interrupt(request, errno): answer a parked read; whether it was parked."},
    {"statistics", counts, METH_NOARGS, "statistics(): what was done since the module was loaded."},
    {"pop", pop, METH_NOARGS, "pop(): the next request for Python, for tests without libfuse; b\"\" if none waits."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

/* Grows whenever the functions change; see openreply.py, which may be newer or older than this. */
enum { INTERFACE = 3 };

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);

    if (module && (PyModule_AddFunctions(module, open_methods)
                      || PyModule_AddFunctions(module, operation_methods)
                      || PyModule_AddIntConstant(module, "INTERFACE", INTERFACE)))
        Py_CLEAR(module);
    return module;
}
