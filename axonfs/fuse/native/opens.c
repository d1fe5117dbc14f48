/* Answers an open with flags that neither pyfuse3 nor libfuse before 3.17 know, and describes the
 * latest request: its number, inode and thread, and the flags of the file that is read. It also
 * writes large replies without the GIL: pyfuse3 would hold it while the kernel copies them, and every
 * thread that fetches needs it.
 *
 * The module is imported with RTLD_GLOBAL before pyfuse3, so that pyfuse3 calls the
 * fuse_reply_open(), fuse_reply_buf() and fuse_session_process_buf() below instead of libfuse's.
 * `arm` takes one handle, its flags and its backing id; the reply that carries this handle is
 * answered with them, every other one as libfuse does. One is enough: pyfuse3 replies right after
 * the handler returned, in the same thread. As pyfuse3 calls the handler right after it has got the
 * request, `request`, `inode`, `flags` and `thread` describe that request until the handler's first
 * checkpoint.
 *
 * libfuse does not pass FUSE_INTERRUPT on: `on_interrupt` sets the function that is called for each.
 * It runs in the thread that handles requests, before the next one is handled. The kernel sends an
 * interrupt only after its request was read, and the queue repeats one that overtook its request
 * between two threads; so the request of an interrupt that is not known has been answered. pyfuse3
 * calls all of this with the GIL, which guards the static variables.
 * Source: fuse_open_out, fuse_in_header, fuse_read_in and fuse_interrupt_in of linux/fuse.h, protocol
 * 7.40. */
#include "native.h"
#include <dlfcn.h>
#include <sys/uio.h>

/* A smaller reply is copied faster than the GIL is released and taken again. */
static const size_t large = 64 << 10;

struct open_out { /* fuse_open_out since protocol 7.40 */
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};

static int armed;
static struct open_out answer;
static uint64_t latest, latest_inode, latest_arrived;
static uint32_t latest_flags, latest_thread;
static PyObject *on_interrupted; /* owned; NULL until on_interrupt() sets it */

EXPORTED int fuse_reply_buf(fuse_req_t request, const char *bytes, size_t size)
{
    const struct iovec whole = {(void *)bytes, size};
    /* A thread of Python's has the GIL here: pyfuse3 never releases it to answer. */
    PyThreadState *state = size >= large && PyGILState_GetThisThreadState() ? PyEval_SaveThread() : NULL;
    int result = fuse_reply_iov(request, &whole, 1);

    if (state)
        PyEval_RestoreThread(state);
    return result;
}

EXPORTED int fuse_reply_open(fuse_req_t request, const struct fuse_file_info *info)
{
    static int (*libfuse)(fuse_req_t, const struct fuse_file_info *);

    if (armed && info->fh == answer.fh) {
        armed = 0;
        return fuse_reply_buf(request, (const char *)&answer, sizeof answer);
    }
    if (!libfuse)
        *(void **)&libfuse = dlsym(RTLD_NEXT, "fuse_reply_open");
    return libfuse ? libfuse(request, info) : -ENOSYS;
}

static void tell(uint64_t unique)
{
    PyObject *callback = on_interrupted, *result;

    if (!callback)
        return;
    Py_INCREF(callback); /* it may set another function */
    result = PyObject_CallFunction(callback, "K", (unsigned long long)unique);
    if (!result)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(result);
    Py_DECREF(callback);
}

EXPORTED void fuse_session_process_buf(struct fuse_session *session, const struct fuse_buf *buffer)
{
    static void (*libfuse)(struct fuse_session *, const struct fuse_buf *);

    latest = latest_inode = latest_arrived = latest_flags = latest_thread = 0;
    if (!(buffer->flags & FUSE_BUF_IS_FD) && buffer->size >= sizeof(struct fuse_in_header)) {
        const struct fuse_in_header *header = buffer->mem;

        latest = header->unique & ~RESENT;
        latest_inode = header->nodeid;
        latest_thread = header->pid;
        latest_arrived = popped_arrived;
        if (header->opcode == FUSE_READ && buffer->size >= sizeof(struct read_request))
            latest_flags = ((const struct read_request *)buffer->mem)->read.flags;
        if (header->opcode == FUSE_INTERRUPT
            && buffer->size >= sizeof *header + sizeof(struct fuse_interrupt_in))
            tell(((const struct fuse_interrupt_in *)(header + 1))->unique & ~RESENT);
    }
    if (!libfuse)
        *(void **)&libfuse = dlsym(RTLD_NEXT, "fuse_session_process_buf");
    if (!libfuse)
        Py_FatalError("libfuse has no fuse_session_process_buf");
    libfuse(session, buffer);
}

static PyObject *arm(PyObject *module, PyObject *args)
{
    unsigned long long handle;
    unsigned int flags;
    int backing_id;

    (void)module;
    if (!PyArg_ParseTuple(args, "KIi", &handle, &flags, &backing_id))
        return NULL;
    answer = (struct open_out){handle, flags, backing_id};
    armed = 1;
    Py_RETURN_NONE;
}

static PyObject *disarm(PyObject *module, PyObject *args)
{
    int was = armed;

    (void)module;
    (void)args;
    armed = 0;
    return PyBool_FromLong(was);
}

static PyObject *request(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyLong_FromUnsignedLongLong(latest);
}

static PyObject *described(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return Py_BuildValue("KKIK", (unsigned long long)latest, (unsigned long long)latest_inode,
        (unsigned)latest_thread, (unsigned long long)latest_arrived);
}

static PyObject *inode(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyLong_FromUnsignedLongLong(latest_inode);
}

static PyObject *flags(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyLong_FromUnsignedLong(latest_flags);
}

static PyObject *thread(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyLong_FromUnsignedLong(latest_thread);
}

static PyObject *on_interrupt(PyObject *module, PyObject *callback)
{
    PyObject *before = on_interrupted;

    (void)module;
    if (!PyCallable_Check(callback)) {
        PyErr_SetString(PyExc_TypeError, "on_interrupt() takes a function");
        return NULL;
    }
    on_interrupted = Py_NewRef(callback);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

PyMethodDef open_methods[] = {
    {"arm", arm, METH_VARARGS, "arm(handle, flags, backing_id): answer the open of this handle with them."},
    {"disarm", disarm, METH_NOARGS, "disarm(): whether the armed answer was not given."},
    {"request", request, METH_NOARGS, "request(): the number of the latest request, or 0."},
    {"described", described, METH_NOARGS, "described(): (number, inode, thread, nanoseconds when it came) of the latest request, or zeros."},
    {"inode", inode, METH_NOARGS, "inode(): the inode of the latest request, or 0."},
    {"flags", flags, METH_NOARGS, "flags(): O_* of the open file, if the latest request is a read, else 0."},
    {"thread", thread, METH_NOARGS, "thread(): the thread that sent the latest request, or 0."},
    {"on_interrupt", on_interrupt, METH_O, "on_interrupt(call): have call(number) called for each interrupted request."},
    {NULL, NULL, 0, NULL},
};
