/* A disk that fails as it is told: preloaded before the C library.
 *
 * $FAULTS names a file; each line of it is a fault that is in force as long as it stands there:
 *     CALL PART ERRNO
 * CALL is write, sync or open; PART is a part of the file's path, or its end if a $ follows.
 *
 * $PLATTER names a folder: what a power cut would leave of each file below $SPOOL. What is written gets
 * there by a sync that succeeds. A sync that fails drops it for good and marks it as clean, as a kernel may:
 * the next sync does not bring it there, unless it is written again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define RANGES 65536
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static struct range { ino_t file; off_t start, end; } dirty[RANGES];
static int used;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int fault(const char *call, const char *path)
{
    const char *name = getenv("FAULTS");
    char found[16], part[128];
    int number, result = 0;
    FILE *file = name ? fopen(name, "re") : NULL;

    if (!file)
        return 0;
    while (!result && fscanf(file, "%15s %127s %d", found, part, &number) == 3) {
        char *last = strchr(part, '$');
        if (last)
            *last = 0;
        const char *met = strstr(path, part);
        if (!strcmp(found, call) && met && (!last || !strcmp(met, part)))
            result = number;
    }
    fclose(file);
    return result;
}

static void path_of(int fd, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

static int platter_of(const char *path)
{
    const char *spool = getenv("SPOOL"), *platter = getenv("PLATTER");
    char copy[4096];
    if (!spool || !platter || strncmp(path, spool, strlen(spool)) || path[strlen(spool)] != '/')
        return -1;
    snprintf(copy, sizeof copy, "%s/%s", platter, path + strlen(spool) + 1);
    for (char *slash = copy + strlen(platter) + 1; *slash; slash++)
        if (*slash == '/')
            *slash = '+';
    return REAL(open64)(copy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void note(int fd, off_t start, ssize_t octets)
{
    struct stat status;
    if (octets <= 0 || !getenv("PLATTER") || fstat(fd, &status))
        return;
    pthread_mutex_lock(&mutex);
    if (used == RANGES)
        abort();
    dirty[used++] = (struct range){status.st_ino, start, start + octets};
    pthread_mutex_unlock(&mutex);
}

static void settle(int fd, const char *path, int keep)
{
    static char buffer[65536];
    struct stat status;
    int platter = keep ? platter_of(path) : -1;

    if (!getenv("PLATTER") || fstat(fd, &status))
        return;
    pthread_mutex_lock(&mutex);
    int left = 0;
    for (int i = 0; i < used; i++) {
        struct range *range = &dirty[i];
        if (range->file != status.st_ino) {
            dirty[left++] = *range;
            continue;
        }
        for (off_t at = range->start; platter >= 0 && at < range->end;) {
            size_t want = range->end - at < (off_t)sizeof buffer ? range->end - at : (off_t)sizeof buffer;
            ssize_t got = pread(fd, buffer, want, at);
            if (got <= 0)
                break;
            if (REAL(pwrite64)(platter, buffer, got, at) != got)
                abort();
            at += got;
        }
    }
    used = left;
    if (platter >= 0) {
        struct stat copy;
        if (!fstat(platter, &copy) && copy.st_size > status.st_size && ftruncate(platter, status.st_size))
            abort();
        close(platter);
    }
    pthread_mutex_unlock(&mutex);
}

static int fails(const char *call, int fd)
{
    char path[4096];
    path_of(fd, path, sizeof path);
    return path[0] == '/' ? fault(call, path) : 0;
}

ssize_t write(int fd, const void *octets, size_t count)
{
    int number = fails("write", fd);
    if (number) {
        errno = number;
        return -1;
    }
    ssize_t done = REAL(write)(fd, octets, count);
    if (getenv("PLATTER"))
        note(fd, lseek(fd, 0, SEEK_CUR) - done, done);
    return done;
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off64_t at)
{
    int number = fails("write", fd);
    if (number) {
        errno = number;
        return -1;
    }
    ssize_t done = REAL(pwrite64)(fd, octets, count, at);
    note(fd, at, done);
    return done;
}

ssize_t pwrite(int fd, const void *octets, size_t count, off_t at)
{
    return pwrite64(fd, octets, count, at);
}

static int synced(int fd, int (*real)(int))
{
    char path[4096];
    path_of(fd, path, sizeof path);
    int number = fault("sync", path);
    settle(fd, path, !number);
    if (number) {
        errno = number;
        return -1;
    }
    return real(fd);
}

int fsync(int fd)
{
    return synced(fd, REAL(fsync));
}

int fdatasync(int fd)
{
    return synced(fd, REAL(fdatasync));
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int number = flags & (O_WRONLY | O_RDWR) ? fault("open", path) : 0;
    if (number) {
        errno = number;
        return -1;
    }
    return REAL(open64)(path, flags, mode);
}
