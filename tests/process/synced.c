/* Preloaded into a lease server: keeps what of its store is on the disk, or has the disk fail.
 *
 * In the directory SYNCED_DIR: a copy of each file of the store as it was when it was synced last,
 * `count` with a byte for each sync, and, put there by the test, `fail`: while it exists no sync
 * succeeds; `fail-once`: the next one does not. Like a disk that fails, a failed sync forgets what
 * it should have written: the copy stays as it was.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int name_of(int fd, char *copy, size_t size, const char **directory)
{
    char link[64], path[4096];
    ssize_t length;
    const char *name;

    *directory = getenv("SYNCED_DIR");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (*directory == NULL || length < 0)
        return 0;
    path[length] = 0;
    name = strrchr(path, '/');
    if (name == NULL || strstr(name, ".sqlite3") == NULL)
        return 0;
    snprintf(copy, size, "%s%s", *directory, name);
    return 1;
}

static int is_there(const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (access(path, F_OK) != 0)
        return 0;
    if (strcmp(name, "fail-once") == 0)
        unlink(path);
    return 1;
}

static void keep(int fd, const char *copy)
{
    static char block[1 << 16];
    off_t at = 0;
    ssize_t length;
    /* Read by the descriptor that there is: to close another would drop the locks on the file. */
    int to = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (to >= 0 && (length = pread(fd, block, sizeof block, at)) > 0) {
        if (write(to, block, (size_t)length) != length)
            abort();
        at += length;
    }
    close(to);
}

static int sync_with(const char *call, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    char copy[4096], count[4096];
    const char *directory;
    int counter;

    if (!name_of(fd, copy, sizeof copy, &directory))
        return real(fd);
    if (is_there(directory, "fail") || is_there(directory, "fail-once")) {
        errno = EIO;
        return -1;
    }
    if (real(fd) != 0)
        return -1;
    keep(fd, copy);
    snprintf(count, sizeof count, "%s/count", directory);
    counter = open(count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (write(counter, ".", 1) != 1)
        abort();
    close(counter);
    return 0;
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }
