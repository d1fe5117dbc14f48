/* Receives from a TLS connection of Python's ssl module: many records in one call, without the GIL.
 *
 * `SSLSocket.read` returns one record, which is 16 KiB at most, so a GiB takes the GIL 65,536 times, and
 * OpenSSL asks the kernel twice for each. `receive` below loops over records, and OpenSSL reads ahead
 * into a larger buffer.
 *
 * The ssl module does not give its SSL object away. OpenSSL itself says which objects are made: it calls
 * `made` for each one (CRYPTO_get_ex_new_index), in the thread that makes it. So in one thread the caller
 * calls expect(), makes one SSLSocket, and calls found() with its descriptor, before the handshake. The
 * functions are those of the library that the ssl module is linked with: they are looked up there, and
 * no header of OpenSSL is needed to build this. If a function is missing the import fails. If the
 * ssl module uses another library after all, found() returns None. The caller does without then.
 *
 * Memory: a connection is a capsule that owns one reference to the SSL object, which outlives the
 * SSLSocket if need be, and the struct below. The caller closes the descriptor, through the SSLSocket, and
 * does not call receive() after that.
 *
 * Locking: there is no lock. `latest` belongs to its thread. A connection belongs to one thread at a time,
 * as its SSLSocket does: neither is used while receive() runs without the GIL. The callback `made` may run
 * without the GIL, and only sets `latest`. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdbool.h>
#include <time.h>

/* Numbers of OpenSSL's interface: ssl.h, crypto.h, sslerr.h. */
enum { error_want_read = 2, error_want_write = 3, error_syscall = 5, error_zero_return = 6 };
enum { index_of_ssl = 0 };                             /* CRYPTO_EX_INDEX_SSL */
enum { reason_mask = 0xfff, reason_unexpected_eof = 294 };

/* What OpenSSL reads from the socket at a time: 8 records. */
static const size_t read_ahead_bytes = 128 << 10;

typedef void made_callback(void *, void *, void *, int, long, void *);

/* Functions of the ssl module's OpenSSL; set once by the import. */
static struct {
    int (*SSL_read_ex)(void *, void *, size_t, size_t *);
    int (*SSL_get_error)(const void *, int);
    int (*SSL_get_fd)(const void *);
    int (*SSL_has_pending)(const void *);
    int (*SSL_up_ref)(void *);
    void (*SSL_free)(void *);
    void (*SSL_set_read_ahead)(void *, int);
    void (*SSL_set_default_read_buffer_len)(void *, size_t);
    void (*ERR_clear_error)(void);
    unsigned long (*ERR_peek_last_error)(void);
    const char *(*ERR_reason_error_string)(unsigned long);
    int (*CRYPTO_get_ex_new_index)(int, long, void *, made_callback *, void *, void *);
} openssl;

static PyObject *ssl_error; /* ssl.SSLError; owned by the module for ever */

static _Thread_local void *latest; /* the SSL object that this thread made last; borrowed */

struct failure {
    int number;           /* errno, or 0 */
    unsigned long reason; /* of OpenSSL */
};

struct connection {
    void *ssl;  /* owned */
    int fd;     /* borrowed from the SSLSocket */
    bool ended; /* OpenSSL says only once that the server has closed */
    bool failed;
    struct failure failure; /* with which the next call fails */
};

static const char capsule_name[] = "axonfs.http_client._records.connection";

/* How a call to OpenSSL, or all of them, came out: the bytes are there, or the socket is ready; the time
 * is over; the connection is; a signal came; an error did. */
enum outcome { enough, late, ended, interrupted, failed };

static void made(void *ssl, void *value, void *data, int index, long number, void *argument)
{
    (void)value, (void)data, (void)index, (void)number, (void)argument;
    latest = ssl;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Wait until the socket is ready, or for `until`. */
static enum outcome wait_for(int fd, short events, double until, struct failure *failure)
{
    struct pollfd waited = {fd, events, 0};
    double left = ceil((until - now()) * 1e3);
    int ready = left > 0 ? poll(&waited, 1, left < INT_MAX ? (int)left : INT_MAX) : 0;

    if (ready > 0)
        return enough;
    if (ready == 0)
        return late;
    failure->number = errno;
    return errno == EINTR ? interrupted : failed;
}

/* What an unsuccessful read means; waits if it has to be tried again. */
static enum outcome after(const struct connection *connection, double until, struct failure *failure)
{
    int number = errno;

    switch (openssl.SSL_get_error(connection->ssl, 0)) {
    case error_want_read:
        return wait_for(connection->fd, POLLIN, until, failure);
    case error_want_write: /* the server asked for new keys */
        return wait_for(connection->fd, POLLOUT, until, failure);
    case error_zero_return:
        return ended;
    case error_syscall:
        failure->number = number;
        return number ? failed : ended;
    default:
        failure->reason = openssl.ERR_peek_last_error();
        /* The server closed without saying so in TLS, as many do; the HTTP layer counts the bytes. */
        return (failure->reason & reason_mask) == reason_unexpected_eof ? ended : failed;
    }
}

/* Receive until there are `least` bytes; runs without the GIL. */
static enum outcome fill(const struct connection *connection, const Py_buffer *into, size_t least,
                         double until, size_t *received, struct failure *failure)
{
    enum outcome outcome = enough;

    openssl.ERR_clear_error(); /* SSL_get_error looks at what is there */
    while (outcome == enough && *received < least) {
        size_t count = 0;

        errno = 0;
        if (openssl.SSL_read_ex(connection->ssl, (char *)into->buf + *received,
                                (size_t)into->len - *received, &count) > 0) {
            *received += count;
            if (*received < least && now() >= until)
                outcome = late;
        } else
            outcome = after(connection, until, failure);
    }
    openssl.ERR_clear_error();
    return outcome;
}

static PyObject *raised(const struct failure *failure)
{
    const char *text;
    PyObject *error;

    if (failure->number) {
        errno = failure->number;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    text = openssl.ERR_reason_error_string(failure->reason);
    error = Py_BuildValue("(ks)", failure->reason & reason_mask, text ? text : "TLS failed");
    if (error)
        PyErr_SetObject(ssl_error, error);
    Py_XDECREF(error);
    return NULL;
}

static PyObject *receive(PyObject *module, PyObject *args)
{
    PyObject *capsule;
    Py_buffer into;
    Py_ssize_t least;
    double until;
    size_t received = 0;
    struct connection *connection;
    struct failure failure = {0, 0};
    enum outcome outcome;

    (void)module;
    if (!PyArg_ParseTuple(args, "Ow*nd", &capsule, &into, &least, &until))
        return NULL;
    connection = PyCapsule_GetPointer(capsule, capsule_name);
    if (connection && (least < 1 || least > into.len))
        PyErr_SetString(PyExc_ValueError, "receive() needs 1 <= least <= len(buffer)");
    else if (connection && connection->failed)
        raised(&connection->failure);
    if (PyErr_Occurred()) {
        PyBuffer_Release(&into);
        return NULL;
    }
    until += now();
    outcome = connection->ended ? ended : interrupted;
    while (outcome == interrupted) {
        Py_BEGIN_ALLOW_THREADS
        outcome = fill(connection, &into, (size_t)least, until, &received, &failure);
        Py_END_ALLOW_THREADS
        if (outcome == interrupted && PyErr_CheckSignals() < 0) {
            PyBuffer_Release(&into);
            return NULL;
        }
    }
    PyBuffer_Release(&into);
    connection->ended = outcome == ended;
    if (outcome == failed && !received)
        return raised(&failure);
    connection->failed = outcome == failed;
    connection->failure = failure;
    if (outcome == late && !received) {
        PyErr_SetNone(PyExc_TimeoutError);
        return NULL;
    }
    return PyLong_FromSize_t(received);
}

static PyObject *pending(PyObject *module, PyObject *capsule)
{
    const struct connection *connection = PyCapsule_GetPointer(capsule, capsule_name);

    (void)module;
    return connection ? PyBool_FromLong(openssl.SSL_has_pending(connection->ssl)) : NULL;
}

static PyObject *expect(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    latest = NULL;
    Py_RETURN_NONE;
}

static void release(PyObject *capsule)
{
    struct connection *connection = PyCapsule_GetPointer(capsule, capsule_name);

    openssl.SSL_free(connection->ssl);
    PyMem_Free(connection);
}

static PyObject *found(PyObject *module, PyObject *args)
{
    struct connection *connection;
    PyObject *capsule;
    void *ssl = latest;
    int fd;

    (void)module;
    latest = NULL;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    if (!ssl || openssl.SSL_get_fd(ssl) != fd)
        Py_RETURN_NONE;
    connection = PyMem_Malloc(sizeof *connection);
    if (!connection)
        return PyErr_NoMemory();
    *connection = (struct connection){ssl, fd, false, false, {0, 0}};
    capsule = PyCapsule_New(connection, capsule_name, release);
    if (!capsule) {
        PyMem_Free(connection);
        return NULL;
    }
    openssl.SSL_up_ref(ssl);
    openssl.SSL_set_read_ahead(ssl, 1);
    openssl.SSL_set_default_read_buffer_len(ssl, read_ahead_bytes);
    return capsule;
}

static PyMethodDef methods[] = {
    {"expect", expect, METH_NOARGS, "expect(): this thread makes an SSLSocket next."},
    {"found", found, METH_VARARGS, "found(fd): the connection of that socket, which is `fd`, or None."},
    {"receive", receive, METH_VARARGS,
     "receive(connection, buffer, least, seconds): receive at least so many bytes, or what comes in so"
     " many seconds; return how many, 0 at the end."},
    {"pending", pending, METH_O, "pending(connection): whether bytes were received that receive() has not returned."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_records", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

/* The file of the extension module _ssl; NULL without an error if the interpreter contains it. */
static void *library(void)
{
    PyObject *ssl = PyImport_ImportModule("_ssl");
    PyObject *file = ssl ? PyObject_GetAttrString(ssl, "__file__") : NULL;
    const char *path = file ? PyUnicode_AsUTF8AndSize(file, NULL) : NULL;
    void *handle = ssl && (path || !file) ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;

    if (ssl && !file)
        PyErr_Clear();
    Py_XDECREF(file);
    Py_XDECREF(ssl);
    return handle;
}

#define LOOK_UP(name) (*(void **)&openssl.name = dlsym(handle, #name))

static bool look_up(void)
{
    void *handle = library();

    return handle && LOOK_UP(SSL_read_ex) && LOOK_UP(SSL_get_error) && LOOK_UP(SSL_get_fd) &&
           LOOK_UP(SSL_has_pending) && LOOK_UP(SSL_up_ref) && LOOK_UP(SSL_free) &&
           LOOK_UP(SSL_set_read_ahead) && LOOK_UP(SSL_set_default_read_buffer_len) &&
           LOOK_UP(ERR_clear_error) && LOOK_UP(ERR_peek_last_error) &&
           LOOK_UP(ERR_reason_error_string) && LOOK_UP(CRYPTO_get_ex_new_index);
}

PyMODINIT_FUNC PyInit__records(void)
{
    PyObject *ssl = PyImport_ImportModule("ssl");

    Py_CLEAR(ssl_error);
    ssl_error = ssl ? PyObject_GetAttrString(ssl, "SSLError") : NULL;
    Py_XDECREF(ssl);
    if (!ssl_error)
        return NULL;
    if (!look_up() ||
        openssl.CRYPTO_get_ex_new_index(index_of_ssl, 0, NULL, made, NULL, NULL) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ImportError, "the ssl module's OpenSSL does not give its functions");
        return NULL;
    }
    return PyModule_Create(&definition);
}
