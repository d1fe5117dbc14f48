/* Reads answered by native threads, without the GIL. What the files here share.
 *
 * Several reader threads read requests from one FUSE device. A READ of an attached handle is
 * answered from the backing file of its object if the bits of its chunks are set; else it is parked
 * until Python has the chunks fetched. Every other request is queued for pyfuse3 (queue.c). So
 * Python decides which chunks may be served, and learns of reads in batches.
 *
 *   device.c   the threads, and how they begin and end
 *   reads.c    one READ: answered, parked, or handed over to Python
 *   objects.c  objects with their bits, handles, and what Python is told of them
 *   queue.c    requests for Python, and the two functions of libfuse by which pyfuse3 gets them
 *   opens.c    answers to opens, and facts about the request that Python handles
 *   operations.c  what reads took, and which wait; each one while Python listens
 *   module.c   the interface for Python
 *
 * Locks: `lock` guards all that the comments do not exclude; operations.c has another one for its
 * ring. Both are leaves: a thread that holds one takes no other lock, never waits for the GIL, and
 * does no I/O but to set an eventfd or a timer. Python takes them with the GIL held, so nothing may
 * release the GIL while it holds one.
 *
 * Right bytes: a chunk's bit is cleared, and the epoch of its object raised, before its bytes may
 * change. A thread loads the epoch, sees the bits set, reads the bytes and loads the epoch again; if
 * it is the same, these are the bytes.
 *
 * Memory: an object lives until it is dropped and no handle, parked read or thread refers to it. A
 * read that waits is one `struct read`. Each thread has a buffer for answers, which a fork does not
 * copy. If memory is short the read fails with ENOMEM. */
#ifndef AXONFS_NATIVE_H
#define AXONFS_NATIVE_H
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312
#include <Python.h>
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Everything else is hidden: the module is loaded with RTLD_GLOBAL. */
#define EXPORTED __attribute__((visibility("default")))

/* The top bit of the number of a request that the kernel resends. */
#define RESENT (1ULL << 63)

/* The kernel refuses a buffer that its largest request may not fit: see READ_BYTES, handshake.py. */
#define REQUEST_BYTES ((1u << 20) + 4096u)
#define BUFFER_BYTES (2u << 20)
/* The reply's header ends here in the buffer, so that its data begins with a page. */
#define HEADROOM 4096u

enum { MAX_OBJECTS = 1024, MAX_THREADS = 64 };

struct read_request { /* a READ, as the kernel sends it */
    struct fuse_in_header header;
    struct fuse_read_in read;
};

struct interrupt_request { /* says which request is interrupted */
    struct fuse_in_header header;
    struct fuse_interrupt_in interrupt;
};

struct read { /* a READ that is parked or ready */
    struct read_request request;
    uint32_t size; /* bytes to answer; those behind the end of the object are cut off */
    bool cold; /* it was parked */
    uint64_t arrived; /* when a thread got it, by clock_now */
    uint64_t since; /* when it was parked last, likewise */
    struct object *object; /* holds a reference */
    struct read *next, **back; /* back: only while it is parked */
};

struct waiting { /* what Python is told of a read that waits */
    struct read_request request;
    uint32_t size;
    uint64_t arrived;
};

struct object { /* a backing file, and which of its chunks may be served */
    int fd; /* owned */
    bool never_waits; /* its file is in memory, so that reading it never waits for a disk */
    bool closed; /* all its reads go to Python */
    _Atomic unsigned references; /* one of the table; taken under lock, given back without it */
    uint64_t number, size, chunk, count;
    uint64_t present; /* how many bits are set */
    _Atomic uint64_t epoch; /* read without the lock */
    _Atomic uint64_t *bits; /* read without the lock */
    uint64_t *wanted; /* chunks that parked reads wait for */
    uint64_t *untold; /* those of them of which Python was not told yet */
    uint64_t *coming; /* chunks that a request of Python brings; reads want them only after LATER */
    bool has_untold;
    struct read *parked;
};

struct handle { /* an open file */
    uint64_t fh;
    uint64_t mark; /* a read that reaches it is news for Python */
    uint64_t start, stop, reads; /* of the latest run of reads, of which Python was not told yet */
    bool touched; /* it was attached, and a read was answered here */
    uint64_t count, bytes; /* reads that were taken here, and what they ask for */
    struct object *object; /* holds a reference */
    struct handle *next;
};

struct run { /* consecutive reads of one handle, for Python */
    uint64_t fh, start, stop, reads;
};

struct thread {
    pthread_t id;
    _Atomic bool ended;
    char *request, *buffer;
    struct waiting at_disk; /* the read that it answers, if it may wait; size 0: none */
};

struct statistics {
    _Atomic uint64_t answered, bytes, parked, handed_over, retried, refused;
};

extern pthread_mutex_t lock;
extern struct statistics statistics;
extern _Atomic bool stopping;
extern int news_fd; /* a timerfd: Python has news to take; -1 while no thread runs */
extern int queue_fd; /* an eventfd: requests are queued for Python; -1 likewise */
extern int device_fd; /* a duplicate: a thread that does not end must not write to another file */
extern struct object *objects[MAX_OBJECTS]; /* at their numbers, modulo; NULL where there is none */

/* objects.c. All under lock, except object_new, put and forget. */
struct object *object_new(int fd, uint64_t size, uint64_t chunk, bool never_waits);
struct object *object_find(uint64_t number);
bool object_add(struct object *object);
void object_put(struct object *object);
bool object_whole(const struct object *object, uint64_t offset, uint64_t size);
void object_set(struct object *object, uint64_t first, uint64_t stop);
void object_clear(struct object *object, uint64_t first, uint64_t stop);
void object_want(struct object *object, const struct read *read, uint64_t now);
void object_expect(struct object *object, uint64_t first, uint64_t stop, bool coming);
void object_unwant(struct object *object, uint64_t first, uint64_t stop);
struct handle **handle_find(uint64_t fh);
void handle_note(struct handle *handle, uint64_t offset, uint64_t size);
void handle_gave_up(uint64_t fh, uint64_t size);
void objects_forget(void);
PyObject *objects_news(void); /* takes the lock itself */

uint64_t clock_now(void); /* nanoseconds */

/* reads.c. Those marked so are called under lock. */
bool read_take(struct thread *thread, const void *bytes, size_t size);
bool read_answer_ready(struct thread *thread); /* under lock at the call and at the return */
struct read *reads_release(struct object *object, uint64_t first, uint64_t stop); /* under lock */
size_t reads_ready(struct read *list); /* under lock */
void reads_wake(size_t count);
void reads_want(struct object *object, uint64_t now); /* under lock */
void reads_hand_over(struct read *list);
void reads_fail(struct read *list, int error);
bool read_interrupt(uint64_t unique, int error);
size_t reads_parked(struct waiting *copies, size_t room);
size_t reads_at_disk(struct waiting *copies, size_t room, size_t count); /* under lock */
void reads_forget(void);
void reply_to_own(const struct fuse_in_header *header);
extern pthread_cond_t ready_condition;

/* queue.c */
bool queue_push(const void *bytes, size_t size, uint64_t arrived);
void interrupt_again(uint64_t unique); /* under lock */
void queue_end(void);
bool queue_open(int device);
void queue_close(void);
bool queue_watch(int fd);
void *queue_pop(size_t *size);
void raise_event(int fd);
void clear_event(int fd);
extern uint64_t popped_arrived; /* when a thread got the request that was popped last; guarded by the GIL */

/* opens.c */
extern PyMethodDef open_methods[];

/* operations.c */
extern PyMethodDef operation_methods[];
void operation_done(const struct read *read, int error);

/* device.c */
const char *device_start(int device, int readers, int answerers);
bool device_end(void); /* without the GIL */
void device_forget(void);
size_t threads_at_disk(struct waiting *copies, size_t room); /* under lock */

#endif
