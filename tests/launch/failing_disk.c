// Makes one call of a process fail: of those that open, read, write, flush or rename what lies in
// FAILING_FOLDER, the one that `fail_at` says.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long left = -1;
static int number;
static char failed[4096];

// The call that fails is the one after so many others, and fails with this error.
void fail_at(long calls, int error) {
  *failed = 0;
  number = error;
  left = calls;
}

// Which call has failed and on which path; empty while none has.
const char *what_failed(void) { return failed; }

static int fails(const char *call, const char *path) {
  const char *folder = getenv("FAILING_FOLDER");
  if (!folder || !path || strncmp(path, folder, strlen(folder))) return 0;
  if (left < 0 || atomic_fetch_sub(&left, 1)) return 0;
  snprintf(failed, sizeof failed, "%s %s", call, path);
  errno = number;
  return 1;
}

static int fails_at(const char *call, int descriptor) {
  if (!getenv("FAILING_FOLDER")) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    int mode = va_arg(rest, int); \
    va_end(rest); \
    return fails(#name, path) ? -1 : REAL(name)(path, flags, mode); \
  }
#define OPENAT(name) \
  int name(int home, const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    int mode = va_arg(rest, int); \
    va_end(rest); \
    return fails(#name, path) ? -1 : REAL(name)(home, path, flags, mode); \
  }
#define MOVE(type, name, parameters, ...) \
  type name parameters { return fails_at(#name, file) ? -1 : REAL(name)(__VA_ARGS__); }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
MOVE(ssize_t, read, (int file, void *to, size_t size), file, to, size)
MOVE(ssize_t, pread, (int file, void *to, size_t size, off_t from), file, to, size, from)
MOVE(ssize_t, pread64, (int file, void *to, size_t size, off64_t from), file, to, size, from)
MOVE(ssize_t, write, (int file, const void *of, size_t size), file, of, size)
MOVE(ssize_t, pwrite, (int file, const void *of, size_t size, off_t from), file, of, size, from)
MOVE(ssize_t, pwrite64, (int file, const void *of, size_t size, off64_t from), file, of, size, from)
MOVE(int, fsync, (int file), file)
MOVE(int, fdatasync, (int file), file)
int rename(const char *from, const char *to) {
  return fails("rename", to) ? -1 : REAL(rename)(from, to);
}
int mkdir(const char *path, mode_t mode) {
  return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}
DIR *opendir(const char *path) { return fails("opendir", path) ? NULL : REAL(opendir)(path); }
