/*
 * Design notes
 *
 * - Values are written with plain stores by one thread and read by anybody: a reader may see two
 *   values from different moments, never half a value.
 * - Names, labels and texts are guarded by the record's sequence: odd while they change. The writer
 *   makes it odd, fences, writes the words, makes it even with release; a reader copies between two
 *   equal even readings, and gives the record up after a few tries, because it must not depend on
 *   an owner that was stopped in the middle.
 * - The file is built under another name and renamed into place, so that no tool ever sees half a
 *   header. Its owner holds a lock on it as long as it lives (an open-file-description lock: gone
 * with the process, however it ends). By asking for that lock a tool knows whether the owner is
 * alive, and a second owner is refused; asking takes no lock, so looking disturbs nobody.
 * - All blocks of the file are allocated at the start: in a full file system the first write to a
 *   hole would raise SIGBUS in the owner's hot path.
 */
#include "core/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/text.h"

enum { READ_TRIES = 8, PATH_BYTES = 1024 };

struct rsi_counters {
    struct rsi_counters_header *header;
    struct rsi_counter *records;
    size_t mapped_bytes;
    pthread_mutex_t lock; /* allocate and free */
    uint32_t first_free;  /* no record below it is free */
    int fd;               /* holds the owner's lock; -1 when anonymous */
    dev_t device;         /* which file is ours, when it comes to removing it */
    ino_t inode;
    char path[PATH_BYTES]; /* "": anonymous */
};

struct rsi_counters_reader {
    const struct rsi_counters_header *header;
    struct rsi_counter *records; /* mapped read-only */
    uint32_t record_count;       /* checked against the file's size */
    size_t mapped_bytes;
    int fd;
};

static size_t file_bytes(uint32_t record_count)
{
    return sizeof(struct rsi_counters_header) + (size_t)record_count * sizeof(struct rsi_counter);
}

static void store_words(_Atomic uint64_t *words, size_t word_count, const char *text)
{
    uint64_t copy[RSI_COUNTER_TEXT_BYTES / 8] = {0};
    rsi_assert(word_count <= rsi_array_count(copy));
    (void)rsi_text_copy((char *)copy, word_count * 8, text);
    for (size_t i = 0; i < word_count; i++) {
        rsi_store_relaxed(&words[i], copy[i]);
    }
}

static void load_words(char *text, _Atomic uint64_t *words, size_t word_count)
{
    for (size_t i = 0; i < word_count; i++) {
        uint64_t word = rsi_load_relaxed(&words[i]);
        memcpy(text + 8 * i, &word, 8);
    }
    text[word_count * 8 - 1] = '\0'; /* the file may be anybody's */
}

static void begin_change(struct rsi_counter *record)
{
    uint32_t sequence = rsi_load_relaxed(&record->sequence);
    rsi_assert((sequence & 1) == 0);
    rsi_store_relaxed(&record->sequence, sequence + 1);
    rsi_fence_seq_cst(); /* the odd sequence is seen before any of the words that follow */
}

static void end_change(struct rsi_counter *record)
{
    /* pairs with the acquire load in read_record() */
    rsi_store_release(&record->sequence, rsi_load_relaxed(&record->sequence) + 1);
}

/* ---- owner ---- */

static void fill_header(struct rsi_counters_header *header, uint32_t record_count)
{
    header->version = RSI_COUNTERS_VERSION;
    header->header_bytes = sizeof *header;
    header->record_bytes = sizeof(struct rsi_counter);
    header->record_count = record_count;
    header->owner_pid = getpid();
    header->start_realtime_ns = rsi_clock_realtime_ns();
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fgets(header->boot_id, sizeof header->boot_id, file) != NULL) {
            header->boot_id[strcspn(header->boot_id, "\n")] = '\0';
        }
        fclose(file);
    }
    header->magic = RSI_COUNTERS_MAGIC;
}

static rsi_status_t path_status(int errno_value)
{
    return errno_value == ENOTDIR ? RSI_E_NOT_FOUND : rsi_status_from_errno(errno_value);
}

/* Whether a living process holds the owner's lock on this file. */
static bool is_owned(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static rsi_status_t refuse_owned_path(const char *path, struct rsi_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return RSI_OK; /* not there; what else is wrong shows when the file is made */
    }
    bool owned = is_owned(fd);
    close(fd);
    if (owned) {
        return rsi_fail(
            error, RSI_E_EXISTS,
            "the counters file %s belongs to a running process; choose another path or stop "
            "that process",
            path);
    }
    return RSI_OK;
}

/* Gives the new file its size and the owner's lock. */
static rsi_status_t prepare_file(int fd, const char *path, size_t bytes, struct rsi_error *error)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot lock the counters file %s", path);
    }
    int failure = posix_fallocate(fd, 0, (off_t)bytes);
    if (failure != 0) {
        return rsi_fail_errno(error, path_status(failure), failure,
                              "cannot allocate %zu bytes for the counters file %s", bytes, path);
    }
    return RSI_OK;
}

/* Makes the file under a name of its own, and moves it to `path` once it is whole. */
static rsi_status_t create_file(struct rsi_counters *counters, uint32_t record_count,
                                struct rsi_error *error)
{
    char building_path[PATH_BYTES + 32];
    snprintf(building_path, sizeof building_path, "%s.%ld.new", counters->path, (long)getpid());
    rsi_status_t status = refuse_owned_path(counters->path, error);
    if (status != RSI_OK) {
        return status;
    }
    (void)unlink(building_path); /* left by a process of this id that died at this point */
    int fd = open(building_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return rsi_fail_errno(error, path_status(errno), errno, "cannot make the counters file %s",
                              counters->path);
    }
    status = prepare_file(fd, counters->path, counters->mapped_bytes, error);
    if (status != RSI_OK) {
        goto remove_file;
    }
    void *mapped = mmap(NULL, counters->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        status = rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                                "cannot map the counters file %s", counters->path);
        goto remove_file;
    }
    fill_header(mapped, record_count);
    struct stat info;
    if (fstat(fd, &info) != 0 || rename(building_path, counters->path) != 0) {
        status = rsi_fail_errno(error, path_status(errno), errno,
                                "cannot put the counters file in place at %s", counters->path);
        goto unmap_file;
    }
    counters->device = info.st_dev;
    counters->inode = info.st_ino;
    counters->fd = fd;
    counters->header = mapped;
    return RSI_OK;

unmap_file:
    munmap(mapped, counters->mapped_bytes);
remove_file:
    (void)unlink(building_path);
    close(fd);
    return status;
}

static rsi_status_t create_anonymous(struct rsi_counters *counters, uint32_t record_count,
                                     struct rsi_error *error)
{
    void *mapped = mmap(NULL, counters->mapped_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
        return rsi_fail_errno(error, rsi_status_from_errno(errno), errno,
                              "cannot map %zu bytes for counters", counters->mapped_bytes);
    }
    fill_header(mapped, record_count);
    counters->header = mapped;
    return RSI_OK;
}

rsi_status_t rsi_counters_create(struct rsi_counters **counters, const char *path,
                                 uint32_t record_count, struct rsi_error *error)
{
    if (record_count == 0 || record_count > RSI_COUNTERS_COUNT_MAX) {
        return rsi_fail(error, RSI_E_INVALID, "%u counters are not possible; use 1 to %d",
                        record_count, RSI_COUNTERS_COUNT_MAX);
    }
    if (path != NULL && (path[0] == '\0' || strlen(path) >= PATH_BYTES)) {
        return rsi_fail(error, RSI_E_INVALID,
                        "the path of the counters file is empty or longer than %d bytes",
                        PATH_BYTES - 1);
    }
    struct rsi_counters *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return rsi_fail(error, RSI_E_NO_MEMORY, "no memory for counters");
    }
    made->fd = -1;
    made->mapped_bytes = file_bytes(record_count);
    (void)rsi_text_copy(made->path, sizeof made->path, path != NULL ? path : "");
    rsi_status_t status = path != NULL ? create_file(made, record_count, error)
                                       : create_anonymous(made, record_count, error);
    if (status != RSI_OK) {
        free(made);
        return status;
    }
    made->records = (struct rsi_counter *)(made->header + 1);
    pthread_mutex_init(&made->lock, NULL);
    *counters = made;
    return RSI_OK;
}

void rsi_counters_destroy(struct rsi_counters *counters)
{
    if (counters == NULL) {
        return;
    }
    struct stat info;
    if (counters->path[0] != '\0' && stat(counters->path, &info) == 0 &&
        info.st_dev == counters->device && info.st_ino == counters->inode) {
        (void)unlink(counters->path);
    }
    munmap(counters->header, counters->mapped_bytes);
    if (counters->fd >= 0) {
        close(counters->fd);
    }
    pthread_mutex_destroy(&counters->lock);
    free(counters);
}

const char *rsi_counters_path(const struct rsi_counters *counters)
{
    return counters->path[0] != '\0' ? counters->path : NULL;
}

/* Under the lock: a free record, or NULL. */
static struct rsi_counter *find_free(struct rsi_counters *counters)
{
    for (uint32_t i = counters->first_free; i < counters->header->record_count; i++) {
        struct rsi_counter *record = &counters->records[i];
        if (rsi_load_relaxed(&record->kind) == RSI_COUNTER_KIND_NONE) {
            if (i >= rsi_load_relaxed(&counters->header->used_count)) {
                rsi_store_release(&counters->header->used_count, i + 1);
            }
            counters->first_free = i + 1;
            return record;
        }
    }
    return NULL;
}

rsi_status_t rsi_counters_allocate(struct rsi_counters *counters, rsi_counter_kind_t kind,
                                   const char *name, const char *label,
                                   struct rsi_counter **counter, struct rsi_error *error)
{
    if (name == NULL || name[0] == '\0') {
        return rsi_fail(error, RSI_E_INVALID, "a counter needs a name");
    }
    rsi_assert(kind != RSI_COUNTER_KIND_NONE);
    pthread_mutex_lock(&counters->lock);
    struct rsi_counter *record = find_free(counters);
    if (record != NULL) {
        begin_change(record);
        rsi_store_relaxed(&record->value, 0);
        store_words(record->name, rsi_array_count(record->name), name);
        store_words(record->label, rsi_array_count(record->label), label != NULL ? label : "");
        store_words(record->text, rsi_array_count(record->text), "");
        rsi_store_relaxed(&record->kind, (uint32_t)kind);
        end_change(record);
    }
    pthread_mutex_unlock(&counters->lock);
    if (record == NULL) {
        return rsi_fail(error, RSI_E_LIMIT,
                        "no record left for counter %s: all %u of the counters file are in use",
                        name, counters->header->record_count);
    }
    *counter = record;
    return RSI_OK;
}

void rsi_counters_free(struct rsi_counters *counters, struct rsi_counter *counter)
{
    if (counter == NULL) {
        return;
    }
    rsi_assert(counter >= counters->records);
    rsi_assert(counter < counters->records + counters->header->record_count);
    pthread_mutex_lock(&counters->lock);
    rsi_assert(rsi_load_relaxed(&counter->kind) != RSI_COUNTER_KIND_NONE);
    begin_change(counter);
    rsi_store_relaxed(&counter->kind, RSI_COUNTER_KIND_NONE);
    end_change(counter);
    uint32_t index = (uint32_t)(counter - counters->records);
    counters->first_free = index < counters->first_free ? index : counters->first_free;
    pthread_mutex_unlock(&counters->lock);
}

void rsi_counter_set_text(struct rsi_counter *counter, const char *format, ...)
{
    char text[RSI_COUNTER_TEXT_BYTES];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(text, sizeof text, format, values);
    va_end(values);
    rsi_assert(length >= 0);
    rsi_assert(rsi_load_relaxed(&counter->kind) == RSI_COUNTER_KIND_TEXT);
    begin_change(counter);
    store_words(counter->text, rsi_array_count(counter->text), text);
    end_change(counter);
    rsi_bump_relaxed(&counter->value, 1);
}

/* ---- reader ---- */

/* Checks what the file says of itself against its size. */
static rsi_status_t check_header(const struct rsi_counters_header *header, uint64_t bytes,
                                 const char *path, struct rsi_error *error)
{
    if (header->magic != RSI_COUNTERS_MAGIC) {
        return rsi_fail(error, RSI_E_INVALID, "%s is not a counters file", path);
    }
    if (header->version != RSI_COUNTERS_VERSION) {
        return rsi_fail(
            error, RSI_E_VERSION,
            "the counters file %s has version %u, this program reads version %u; use the "
            "tool that came with the process",
            path, header->version, RSI_COUNTERS_VERSION);
    }
    if (header->header_bytes != sizeof *header ||
        header->record_bytes != sizeof(struct rsi_counter) ||
        header->record_count > RSI_COUNTERS_COUNT_MAX || file_bytes(header->record_count) > bytes) {
        return rsi_fail(error, RSI_E_INVALID, "the counters file %s is damaged or cut short", path);
    }
    return RSI_OK;
}

rsi_status_t rsi_counters_open(struct rsi_counters_reader **reader, const char *path,
                               struct rsi_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return rsi_fail_errno(error, path_status(errno), errno, "cannot open the counters file %s",
                              path);
    }
    rsi_status_t status = RSI_OK;
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot look at %s", path);
        goto close_file;
    }
    if (!S_ISREG(info.st_mode) || (size_t)info.st_size < sizeof(struct rsi_counters_header)) {
        status = rsi_fail(error, RSI_E_INVALID, "%s is not a counters file", path);
        goto close_file;
    }
    void *mapped = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        status = rsi_fail_errno(error, rsi_status_from_errno(errno), errno, "cannot map %s", path);
        goto close_file;
    }
    status = check_header(mapped, (uint64_t)info.st_size, path, error);
    if (status != RSI_OK) {
        goto unmap_file;
    }
    struct rsi_counters_reader *made = calloc(1, sizeof *made);
    if (made == NULL) {
        status = rsi_fail(error, RSI_E_NO_MEMORY, "no memory to read %s", path);
        goto unmap_file;
    }
    made->header = mapped;
    made->records = (struct rsi_counter *)((struct rsi_counters_header *)mapped + 1);
    made->record_count = made->header->record_count;
    made->mapped_bytes = (size_t)info.st_size;
    made->fd = fd;
    *reader = made;
    return RSI_OK;

unmap_file:
    munmap(mapped, (size_t)info.st_size);
close_file:
    close(fd);
    return status;
}

void rsi_counters_close(struct rsi_counters_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    munmap((void *)(uintptr_t)reader->header, reader->mapped_bytes);
    close(reader->fd);
    free(reader);
}

/* Copies one record as of one moment; false when it is free or keeps changing. */
static bool read_record(struct rsi_counter *record, struct rsi_counter_view *view)
{
    for (int i = 0; i < READ_TRIES; i++) {
        /* pairs with the release store in end_change() */
        uint32_t before = rsi_load_acquire(&record->sequence);
        uint32_t kind = rsi_load_relaxed(&record->kind);
        load_words(view->name, record->name, rsi_array_count(record->name));
        load_words(view->label, record->label, rsi_array_count(record->label));
        load_words(view->text, record->text, rsi_array_count(record->text));
        view->value = rsi_load_relaxed(&record->value);
        rsi_fence_seq_cst(); /* the words are read before the sequence is read again */
        uint32_t after = rsi_load_relaxed(&record->sequence);
        if (before == after && (before & 1) == 0) {
            view->kind = (rsi_counter_kind_t)kind;
            return kind >= RSI_COUNTER_KIND_COUNTER && kind <= RSI_COUNTER_KIND_TEXT;
        }
        rsi_cpu_pause();
    }
    return false;
}

bool rsi_counters_next(struct rsi_counters_reader *reader, uint32_t *cursor,
                       struct rsi_counter_view *view)
{
    /* pairs with the release store in find_free() */
    uint32_t used_count = rsi_load_acquire(&reader->header->used_count);
    if (used_count > reader->record_count) {
        used_count = reader->record_count;
    }
    while (*cursor < used_count) {
        uint32_t index = (*cursor)++;
        if (read_record(&reader->records[index], view)) {
            view->index = index;
            return true;
        }
    }
    return false;
}

bool rsi_counters_find(struct rsi_counters_reader *reader, const char *name, const char *label,
                       struct rsi_counter_view *view)
{
    struct rsi_counter_view found;
    uint32_t cursor = 0;
    while (rsi_counters_next(reader, &cursor, &found)) {
        if (strcmp(found.name, name) == 0 && (label == NULL || strcmp(found.label, label) == 0)) {
            *view = found;
            return true;
        }
    }
    return false;
}

bool rsi_counters_owner_is_alive(const struct rsi_counters_reader *reader)
{
    return is_owned(reader->fd);
}

const struct rsi_counters_header *rsi_counters_header(const struct rsi_counters_reader *reader)
{
    return reader->header;
}
