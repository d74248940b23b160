/* Records what a process does to the files of one folder, for tests/python/crash_images.py.
 *
 * Preloaded into the process (LD_PRELOAD), it takes the place of the C library's calls that change
 * files, makes the real call, and appends a record to the file named by CRASH_LOG, both under one
 * lock, so that the log has the order in which the kernel saw them. Only paths below CRASH_FOLDER
 * count. Maps of memory are not seen: SQLite maps its -shm file alone for writing, which it makes
 * anew after a crash.
 *
 * A record: u8 operation, u16 length of the path, u64 offset, u32 length of the data, path, data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, LINK };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char folder[PATH_MAX];
static size_t folder_length;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("CRASH_FOLDER"), *log = getenv("CRASH_LOG");
    if (!where || !log || !realpath(where, folder)) return;
    folder_length = strlen(folder);
    log_fd = (int)REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The path below the folder, or null. */
static const char *below(const char *path, char *buffer) {
    if (log_fd < 0 || !path || strlen(path) >= PATH_MAX / 2) return 0;
    size_t length = 0;
    if (path[0] != '/') {
        if (!getcwd(buffer, PATH_MAX / 2)) return 0;
        length = strlen(buffer);
        buffer[length++] = '/';
    }
    strcpy(buffer + length, path);
    if (strncmp(buffer, folder, folder_length) || buffer[folder_length] != '/') return 0;
    return buffer + folder_length + 1;
}

static const char *of_descriptor(int fd, char *buffer) {
    char link[64];
    if (log_fd < 0 || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return 0;
    buffer[length] = 0;
    char again[PATH_MAX];
    const char *name = below(buffer, again);
    if (!name) return 0;
    memmove(buffer, name, strlen(name) + 1);
    /* What has no name any more is gone after a crash. */
    return strstr(buffer, " (deleted)") ? 0 : buffer;
}

static void put(uint8_t operation, const char *path, uint64_t offset, const void *data, size_t size) {
    uint16_t name = (uint16_t)strlen(path);
    uint32_t length = (uint32_t)size;
    unsigned char head[15];
    head[0] = operation;
    memcpy(head + 1, &name, 2);
    memcpy(head + 3, &offset, 8);
    memcpy(head + 11, &length, 4);
    struct iovec parts[3] = {{head, 15}, {(void *)path, name}, {(void *)data, size}};
    size_t whole = 15 + name + size;
    if (REAL(writev)(log_fd, parts, 3) != (ssize_t)whole) {
        static const char lost[] = "crash log: a record was lost\n";
        (void)!REAL(write)(2, lost, sizeof lost - 1);
        abort();
    }
}

#define ENTER int saved; pthread_mutex_lock(&lock)
#define LEAVE saved = errno; pthread_mutex_unlock(&lock); errno = saved

static int opened(int fd, const char *path, int flags, int was_there) {
    char buffer[PATH_MAX];
    const char *name = below(path, buffer);
    if (fd >= 0 && name && (flags & O_ACCMODE) != O_RDONLY) {
        if (!was_there) put(CREATE, name, 0, 0, 0);
        else if (flags & O_TRUNC) put(TRUNCATE, name, 0, 0, 0);
    }
    return fd;
}

#define OPEN(function)                                                       \
    int function(const char *path, int flags, ...) {                         \
        mode_t mode = 0;                                                     \
        va_list more;                                                        \
        va_start(more, flags);                                               \
        if (flags & (O_CREAT | O_TMPFILE)) mode = (mode_t)va_arg(more, int); \
        va_end(more);                                                        \
        ENTER;                                                               \
        int there = access(path, F_OK) == 0;                                 \
        int fd = opened(REAL(function)(path, flags, mode), path, flags, there); \
        LEAVE;                                                               \
        return fd;                                                           \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                     \
    int function(int at, const char *path, int flags, ...) {                 \
        mode_t mode = 0;                                                     \
        va_list more;                                                        \
        va_start(more, flags);                                               \
        if (flags & (O_CREAT | O_TMPFILE)) mode = (mode_t)va_arg(more, int); \
        va_end(more);                                                        \
        ENTER;                                                               \
        int there = faccessat(at, path, F_OK, 0) == 0;                       \
        int fd = REAL(function)(at, path, flags, mode);                      \
        char name[PATH_MAX], whole[PATH_MAX + 1];                            \
        const char *known = of_descriptor(fd, name);                         \
        if (known) snprintf(whole, sizeof whole, "%s/%s", folder, known);    \
        opened(known ? fd : -1, whole, flags, there);                        \
        LEAVE;                                                               \
        return fd;                                                           \
    }
OPENAT(openat)
OPENAT(openat64)

/* An append's offset is where the file ended. */
static uint64_t position(int fd) {
    int flags = fcntl(fd, F_GETFL);
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (flags & O_APPEND) {
        struct stat now;
        at = fstat(fd, &now) ? 0 : now.st_size;
    }
    return at < 0 ? 0 : (uint64_t)at;
}

ssize_t write(int fd, const void *data, size_t size) {
    char buffer[PATH_MAX];
    ENTER;
    const char *name = of_descriptor(fd, buffer);
    uint64_t at = name ? position(fd) : 0;
    ssize_t done = REAL(write)(fd, data, size);
    if (name && done > 0) put(WRITE, name, at, data, (size_t)done);
    LEAVE;
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return all ? all : -1;
        all += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return all;
}

#define PWRITE(function, offset_type)                                              \
    ssize_t function(int fd, const void *data, size_t size, offset_type offset) {  \
        char buffer[PATH_MAX];                                                     \
        ENTER;                                                                     \
        const char *name = of_descriptor(fd, buffer);                              \
        ssize_t done = REAL(function)(fd, data, size, offset);                     \
        if (name && done > 0) put(WRITE, name, (uint64_t)offset, data, (size_t)done); \
        LEAVE;                                                                     \
        return done;                                                               \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(function, offset_type)                        \
    int function(int fd, offset_type size) {                    \
        char buffer[PATH_MAX];                                  \
        ENTER;                                                  \
        const char *name = of_descriptor(fd, buffer);           \
        int answer = REAL(function)(fd, size);                  \
        if (name && !answer) put(TRUNCATE, name, (uint64_t)size, 0, 0); \
        LEAVE;                                                  \
        return answer;                                          \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define FSYNC(function)                                  \
    int function(int fd) {                               \
        char buffer[PATH_MAX];                           \
        ENTER;                                           \
        const char *name = of_descriptor(fd, buffer);    \
        int answer = REAL(function)(fd);                 \
        if (name && !answer) put(SYNC, name, 0, 0, 0);   \
        LEAVE;                                           \
        return answer;                                   \
    }
FSYNC(fsync)
FSYNC(fdatasync)

static int moved(uint8_t operation, int answer, const char *from, const char *to) {
    char one[PATH_MAX], two[PATH_MAX];
    const char *source = below(from, one), *target = below(to, two);
    if (!answer && source && target) put(operation, source, 0, target, strlen(target));
    else if (!answer && source && operation == RENAME) put(UNLINK, source, 0, 0, 0);
    return answer;
}

int rename(const char *from, const char *to) {
    ENTER;
    int answer = moved(RENAME, REAL(rename)(from, to), from, to);
    LEAVE;
    return answer;
}

int link(const char *from, const char *to) {
    ENTER;
    int answer = moved(LINK, REAL(link)(from, to), from, to);
    LEAVE;
    return answer;
}

static int removed(int answer, const char *path) {
    char buffer[PATH_MAX];
    const char *name = below(path, buffer);
    if (!answer && name) put(UNLINK, name, 0, 0, 0);
    return answer;
}

int unlink(const char *path) {
    ENTER;
    int answer = removed(REAL(unlink)(path), path);
    LEAVE;
    return answer;
}

int unlinkat(int at, const char *path, int flags) {
    ENTER;
    int answer = REAL(unlinkat)(at, path, flags);
    if (at == AT_FDCWD || path[0] == '/') removed(answer, path);
    LEAVE;
    return answer;
}

/* Copies in the kernel are not seen: the callers fall back to reading and writing. */
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    (void)in, (void)from, (void)out, (void)to, (void)size, (void)flags;
    errno = EXDEV;
    return -1;
}
