/*
 * Design notes
 *
 * - Everything is read from the kernel when asked: these are control-plane questions, and cpusets
 *   change under a running process.
 * - What sysfs does not tell (a container without /sys, a virtual interface) is "unknown", not an
 *   error: a NUMA node is a preference.
 * - Names go into paths, so a name that is no plain file name is unknown too.
 */
#include "core/cpu.h"

#include <ctype.h>
#include <errno.h>
#include <numa.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/assert.h"
#include "core/text.h"

rsi_static_assert(RSI_CPU_COUNT_MAX <= CPU_SETSIZE);

bool rsi_cpu_set_has(const struct rsi_cpu_set *set, unsigned cpu)
{
    return cpu < RSI_CPU_COUNT_MAX && (set->words[cpu / 64] >> (cpu % 64) & 1) != 0;
}

void rsi_cpu_set_add(struct rsi_cpu_set *set, unsigned cpu)
{
    rsi_assert(cpu < RSI_CPU_COUNT_MAX);
    set->words[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}

unsigned rsi_cpu_set_count(const struct rsi_cpu_set *set)
{
    unsigned count = 0;
    for (size_t i = 0; i < rsi_array_count(set->words); i++) {
        count += (unsigned)__builtin_popcountll(set->words[i]);
    }
    return count;
}

int rsi_cpu_set_next(const struct rsi_cpu_set *set, unsigned from)
{
    for (unsigned cpu = from; cpu < RSI_CPU_COUNT_MAX; cpu++) {
        if (rsi_cpu_set_has(set, cpu)) {
            return (int)cpu;
        }
    }
    return -1;
}

/* Reads a CPU number at *cursor and moves it behind; -1 when there is none. */
static int read_cpu(const char **cursor)
{
    if (!isdigit((unsigned char)**cursor)) {
        return -1;
    }
    char *end = NULL;
    unsigned long cpu = strtoul(*cursor, &end, 10);
    *cursor = end;
    return cpu < RSI_CPU_COUNT_MAX ? (int)cpu : -1;
}

rsi_status_t rsi_cpu_set_parse(struct rsi_cpu_set *set, const char *text, struct rsi_error *error)
{
    struct rsi_cpu_set made = {{0}};
    const char *cursor = text;
    while (*cursor != '\0') {
        int first = read_cpu(&cursor);
        int last = first;
        if (first >= 0 && *cursor == '-') {
            cursor++;
            last = read_cpu(&cursor);
        }
        bool has_more = *cursor == ',' && cursor[1] != '\0';
        if (first < 0 || last < first || (*cursor != '\0' && !has_more)) {
            return rsi_fail(
                error, RSI_E_INVALID,
                "'%s' is not a list of CPUs; write it like 0-3,8, with numbers below %d", text,
                RSI_CPU_COUNT_MAX);
        }
        for (int cpu = first; cpu <= last; cpu++) {
            rsi_cpu_set_add(&made, (unsigned)cpu);
        }
        cursor += has_more ? 1 : 0;
    }
    *set = made;
    return RSI_OK;
}

const char *rsi_cpu_set_format(const struct rsi_cpu_set *set, char *buffer, size_t buffer_bytes)
{
    struct rsi_text text;
    rsi_text_init(&text, buffer, buffer_bytes);
    const char *separator = "";
    int first = rsi_cpu_set_next(set, 0);
    while (first >= 0) {
        int last = first;
        while (rsi_cpu_set_has(set, (unsigned)last + 1)) {
            last++;
        }
        if (last == first) {
            rsi_text_append(&text, "%s%d", separator, first);
        } else {
            rsi_text_append(&text, "%s%d-%d", separator, first, last);
        }
        separator = ",";
        first = rsi_cpu_set_next(set, (unsigned)last + 1);
    }
    if (text.length_bytes == 0) {
        rsi_text_append(&text, "none");
    }
    return buffer;
}

rsi_status_t rsi_cpu_allowed(struct rsi_cpu_set *set, struct rsi_error *error)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return rsi_fail_errno(error, RSI_E_SYSTEM, errno, "cannot ask for the allowed CPUs");
    }
    struct rsi_cpu_set made = {{0}};
    for (unsigned cpu = 0; cpu < RSI_CPU_COUNT_MAX; cpu++) {
        if (CPU_ISSET(cpu, &allowed)) {
            rsi_cpu_set_add(&made, cpu);
        }
    }
    *set = made;
    return RSI_OK;
}

/* The first line of a small file, without its newline; false when it cannot be read. */
static bool read_line(const char *path, char *line, size_t line_bytes)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    bool was_read = fgets(line, (int)line_bytes, file) != NULL;
    fclose(file);
    if (!was_read) {
        line[0] = '\0'; /* an empty file is an empty line */
    }
    line[strcspn(line, "\n")] = '\0';
    return true;
}

rsi_status_t rsi_cpu_isolated(struct rsi_cpu_set *set, struct rsi_error *error)
{
    char line[1024];
    if (!read_line("/sys/devices/system/cpu/isolated", line, sizeof line)) {
        line[0] = '\0'; /* a kernel that isolates nothing may not have the file */
    }
    rsi_status_t status = rsi_cpu_set_parse(set, line, error);
    if (status != RSI_OK) {
        rsi_error_context(error, "reading the isolated CPUs");
    }
    return status;
}

int rsi_cpu_node(unsigned cpu)
{
    if (cpu >= RSI_CPU_COUNT_MAX || numa_available() < 0) {
        return -1;
    }
    return numa_node_of_cpu((int)cpu);
}

static int node_of_device(const char *class_path, const char *name)
{
    char path[256];
    char line[32];
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) {
        return -1;
    }
    int length = snprintf(path, sizeof path, "%s/%s/device/numa_node", class_path, name);
    if (length < 0 || (size_t)length >= sizeof path || !read_line(path, line, sizeof line)) {
        return -1;
    }
    uint64_t node = 0;
    if (rsi_parse_number(&node, line, 0, RSI_CPU_COUNT_MAX - 1, NULL) != RSI_OK) {
        return -1; /* the kernel writes -1 for a device near no node in particular */
    }
    return (int)node;
}

int rsi_cpu_node_of_interface(const char *name)
{
    return node_of_device("/sys/class/net", name);
}

int rsi_cpu_node_of_rdma_device(const char *name)
{
    return node_of_device("/sys/class/infiniband", name);
}

rsi_status_t rsi_cpu_pin_thread(unsigned cpu, struct rsi_error *error)
{
    struct rsi_cpu_set allowed;
    rsi_status_t status = rsi_cpu_allowed(&allowed, error);
    if (status != RSI_OK) {
        return status;
    }
    if (!rsi_cpu_set_has(&allowed, cpu)) {
        char list[256];
        return rsi_fail(error, RSI_E_CPU, "cpu %u is outside the allowed set %s", cpu,
                        rsi_cpu_set_format(&allowed, list, sizeof list));
    }
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    CPU_SET(cpu, &wanted);
    if (sched_setaffinity(0, sizeof wanted, &wanted) != 0) {
        return rsi_fail_errno(error, RSI_E_CPU, errno, "cannot pin the thread to cpu %u", cpu);
    }
    return RSI_OK;
}

void rsi_thread_name(const char *name)
{
    char cut[16]; /* the kernel refuses longer ones */
    (void)rsi_text_copy(cut, sizeof cut, name);
    (void)pthread_setname_np(pthread_self(), cut);
}
