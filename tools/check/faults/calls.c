/* Counts the calls by which a process changes files below some folders, and makes one of them go wrong.

   Preloaded (LD_PRELOAD) and controlled from Python (calls.py). Only the process that armed a fault has it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#undef open
#undef openat

/* COUNT logs every call. At one call, SEND sends the process a signal, and ONCE fails. From that call on, FULL
   fails all calls that need room on the disk, and READ_ONLY all calls. The values are those of calls.Mode. */
enum mode { OFF, COUNT, SEND, ONCE, FULL, READ_ONLY };
enum kind { NEEDS_ROOM, NEEDS_NONE };

static volatile int mode = OFF;
static volatile long at, seen;
static int code, log_to = -1, counts_reads;
static pid_t armed_by;
static char roots[8][PATH_MAX];
static int root_count;
static volatile long long clock_shift;
static volatile long clock_from;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void faults_watch(const char *root) { snprintf(roots[root_count++ & 7], PATH_MAX, "%s", root); }

void faults_arm(int how, long call, int error, int log) {
    armed_by = getpid();
    at = call;
    code = error;
    log_to = log;
    seen = 0;
    mode = how;
}

void faults_count_reads(int whether) { counts_reads = whether; }

void faults_clock(long long seconds, long call) {
    clock_from = call;
    clock_shift = seconds;
}

static int below(const char *path) {
    for (int i = 0; i < root_count; i++) {
        size_t length = strlen(roots[i]);
        if (!strncmp(path, roots[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

static int path_of(int handle, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int full_path(int folder, const char *name, char *path) {
    char base[PATH_MAX];
    if (name[0] == '/') return snprintf(path, PATH_MAX, "%s", name), 1;
    if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(folder, base)) return 0;
    return snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, name), 1;
}

static void note(const char *call, const char *path) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %.4000s\n", call, path);
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (log_to >= 0 && real(log_to, line, length) < length) log_to = -1;
}

/* What becomes of a call: 0 it is made, 1 it fails with errno set, 2 half of it is made (`divisible`), and then
   the process gets its signal, or the next call fails. */
static int fate(const char *call, const char *path, enum kind kind, int divisible) {
    if (mode == OFF || getpid() != armed_by || !below(path)) return 0;
    long number = __atomic_fetch_add(&seen, 1, __ATOMIC_SEQ_CST);
    if (mode == COUNT || number == at) note(call, path);
    if (mode == COUNT || number < at || (mode <= ONCE && number > at)) return 0;
    if (mode == FULL && kind == NEEDS_NONE) return 0;
    if (number == at && divisible && mode != ONCE) return 2;
    if (mode == SEND) {
        kill(getpid(), code);
        return 0;
    }
    errno = code;
    return 1;
}

static void after_half(void) {
    if (mode == SEND) kill(getpid(), code);
}

/* A file that exists can be opened on a full disk. */
static enum kind room_for(const char *path, int flags) {
    return flags & (O_CREAT | O_TMPFILE) && access(path, F_OK) ? NEEDS_ROOM : NEEDS_NONE;
}

static int counts(int flags) {
    return counts_reads || (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
}

/* The rights of a new file, a variable argument; nobody passes it for others. */
#define RIGHTS(flags) \
    mode_t rights = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        rights = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPENAT(name) \
    int name(int folder, const char *file, int flags, ...) { \
        REAL(name); \
        RIGHTS(flags); \
        char path[PATH_MAX]; \
        if (mode && counts(flags) && full_path(folder, file, path) && \
            fate("open", path, room_for(path, flags), 0)) \
            return -1; \
        return real(folder, file, flags, rights); \
    }
OPENAT(openat)
OPENAT(openat64)

#define OPEN(name) \
    int name(const char *file, int flags, ...) { \
        REAL(name); \
        RIGHTS(flags); \
        char path[PATH_MAX]; \
        if (mode && counts(flags) && full_path(AT_FDCWD, file, path) && \
            fate("open", path, room_for(path, flags), 0)) \
            return -1; \
        return real(file, flags, rights); \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name) \
    FILE *name(const char *restrict file, const char *restrict how) { \
        REAL(name); \
        char path[PATH_MAX]; \
        if (mode && (counts_reads || strpbrk(how, "wa+")) && full_path(AT_FDCWD, file, path) && \
            fate("open", path, room_for(path, O_CREAT), 0)) \
            return NULL; \
        return real(file, how); \
    }
FOPEN(fopen)
FOPEN(fopen64)

static int fate_of(const char *call, int handle, enum kind kind, int divisible) {
    char path[PATH_MAX];
    return mode && path_of(handle, path) ? fate(call, path, kind, divisible) : 0;
}

ssize_t write(int handle, const void *from, size_t size) {
    REAL(write);
    int what = fate_of("write", handle, NEEDS_ROOM, size > 1);
    if (what == 1) return -1;
    ssize_t done = real(handle, from, what == 2 ? size / 2 : size);
    if (what == 2) after_half();
    return done;
}

#define PWRITE(name, offset) \
    ssize_t name(int handle, const void *from, size_t size, offset where) { \
        REAL(name); \
        int what = fate_of("write", handle, NEEDS_ROOM, size > 1); \
        if (what == 1) return -1; \
        ssize_t done = real(handle, from, what == 2 ? size / 2 : size, where); \
        if (what == 2) after_half(); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int handle, const struct iovec *from, int count) {
    REAL(writev);
    if (fate_of("write", handle, NEEDS_ROOM, 0)) return -1;
    return real(handle, from, count);
}

size_t fwrite(const void *restrict from, size_t size, size_t count, FILE *restrict to) {
    REAL(fwrite);
    int what = fate_of("write", fileno(to), NEEDS_ROOM, count > 1);
    if (what == 1) return 0;
    size_t done = real(from, size, what == 2 ? count / 2 : count, to);
    if (what == 2) {
        fflush(to);
        after_half();
        errno = code;
    }
    return done;
}

#define SENDFILE(name, offset) \
    ssize_t name(int to, int from, offset *where, size_t size) { \
        REAL(name); \
        int what = fate_of("write", to, NEEDS_ROOM, size > 1); \
        if (what == 1) return -1; \
        struct stat found; \
        if (what == 2 && !fstat(from, &found) && (size_t)found.st_size < size) size = found.st_size; \
        ssize_t done = real(to, from, where, what == 2 ? size / 2 : size); \
        if (what == 2) after_half(); \
        return done; \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

#define ON_HANDLE(name, call) \
    int name(int handle) { \
        REAL(name); \
        return fate_of(call, handle, NEEDS_ROOM, 0) ? -1 : real(handle); \
    }
ON_HANDLE(fsync, "fsync")
ON_HANDLE(fdatasync, "fsync")

#define TRUNCATE(name, offset) \
    int name(int handle, offset size) { \
        REAL(name); \
        return fate_of("truncate", handle, NEEDS_NONE, 0) ? -1 : real(handle, size); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define ALLOCATE(name, offset) \
    int name(int handle, offset from, offset size) { \
        REAL(name); \
        return fate_of("allocate", handle, NEEDS_ROOM, 0) ? errno : real(handle, from, size); \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

static int fate_at(const char *call, int folder, const char *name, enum kind kind) {
    char path[PATH_MAX];
    return mode && name && full_path(folder, name, path) ? fate(call, path, kind, 0) : 0;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fate_at("rename", AT_FDCWD, to, NEEDS_NONE) ? -1 : real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    REAL(renameat);
    return fate_at("rename", to_folder, to, NEEDS_NONE) ? -1 : real(from_folder, from, to_folder, to);
}

int unlink(const char *name) {
    REAL(unlink);
    return fate_at("unlink", AT_FDCWD, name, NEEDS_NONE) ? -1 : real(name);
}

int unlinkat(int folder, const char *name, int flags) {
    REAL(unlinkat);
    return fate_at("unlink", folder, name, NEEDS_NONE) ? -1 : real(folder, name, flags);
}

int rmdir(const char *name) {
    REAL(rmdir);
    return fate_at("rmdir", AT_FDCWD, name, NEEDS_NONE) ? -1 : real(name);
}

int mkdir(const char *name, mode_t rights) {
    REAL(mkdir);
    return fate_at("mkdir", AT_FDCWD, name, NEEDS_ROOM) ? -1 : real(name, rights);
}

int mkdirat(int folder, const char *name, mode_t rights) {
    REAL(mkdirat);
    return fate_at("mkdir", folder, name, NEEDS_ROOM) ? -1 : real(folder, name, rights);
}

int symlink(const char *target, const char *name) {
    REAL(symlink);
    return fate_at("symlink", AT_FDCWD, name, NEEDS_ROOM) ? -1 : real(target, name);
}

int chmod(const char *name, mode_t rights) {
    REAL(chmod);
    return fate_at("chmod", AT_FDCWD, name, NEEDS_NONE) ? -1 : real(name, rights);
}

int utimensat(int folder, const char *name, const struct timespec times[2], int flags) {
    REAL(utimensat);
    return fate_at("utime", folder, name, NEEDS_NONE) ? -1 : real(folder, name, times, flags);
}

/* The wall clock jumps; CLOCK_MONOTONIC goes on, as it does in Linux. */
static long long shift(void) {
    return clock_shift && getpid() == armed_by && seen >= clock_from ? clock_shift : 0;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed) now->tv_sec += shift();
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
