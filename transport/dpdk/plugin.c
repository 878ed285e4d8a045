/*
 * Design notes
 * - A program that never uses dpdk:// neither loads nor needs DPDK: the plugin is found and opened
 *   on first use. It is never closed: EAL cannot be ended, and its threads run the plugin's
 *   libraries' code.
 * - It is looked for where this code is: in the same folder (libringside.so, and the folder of a
 *   build), in ../lib, in the folder of libraries as this build installs it, seen from a program;
 *   then by the loader's own rules. So a package may be unpacked anywhere.
 * - RTLD_LOCAL: the plugin has its own copy of core, under names that nobody else sees; a struct
 *   that crosses the border is one of port.h or error.h.
 */
#include "transport/dpdk/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_NAME  "libringside_dpdk.so"
#define PLUGIN_ENTRY "rsi_eal_port_open"

enum { PATH_BYTES = 4096 };

static pthread_mutex_t plugin_lock = PTHREAD_MUTEX_INITIALIZER;
static rsi_eal_port_open_fn *plugin_open;

/* The folder of the program or library that holds this code, without the last slash. */
static bool find_own_folder(char *folder, size_t folder_bytes)
{
    static const char anchor;
    Dl_info info;
    void *extra = NULL;
    ssize_t bytes;
    if (dladdr1(&anchor, &info, &extra, RTLD_DL_LINKMAP) == 0) {
        return false;
    }
    const struct link_map *map = extra;
    if (map != NULL && map->l_name[0] == '\0') { /* the program itself */
        bytes = readlink("/proc/self/exe", folder, folder_bytes - 1);
    } else {
        bytes = snprintf(folder, folder_bytes, "%s", info.dli_fname);
    }
    if (bytes <= 0 || (size_t)bytes >= folder_bytes) {
        return false;
    }
    folder[bytes] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    return true;
}

/* NULL: not there, or it cannot be loaded; `reason` says which. */
static void *load_at(const char *path, char *reason, size_t reason_bytes)
{
    if (strchr(path, '/') != NULL && access(path, F_OK) != 0) {
        return NULL;
    }
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (plugin == NULL) {
        const char *text = dlerror();
        snprintf(reason, reason_bytes, "%s", text != NULL ? text : "dlopen failed");
    }
    return plugin;
}

static void *load(char *reason, size_t reason_bytes)
{
    static const char *const places[] = {"", "../lib/", "../" RSI_LIBRARY_FOLDER "/"};
    char folder[PATH_BYTES / 2];
    char path[PATH_BYTES];
    bool has_folder = find_own_folder(folder, sizeof(folder));
    for (size_t i = 0; has_folder && i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s" PLUGIN_NAME, folder, places[i]);
        void *plugin = load_at(path, reason, reason_bytes);
        if (plugin != NULL || reason[0] != '\0') {
            return plugin; /* one that is there and cannot be loaded is what the user must hear of
                            */
        }
    }
    return load_at(PLUGIN_NAME, reason, reason_bytes);
}

static rsi_status_t open_plugin(struct rsi_error *error)
{
    char reason[256] = "";
    void *plugin = load(reason, sizeof(reason));
    if (plugin == NULL) {
        bool is_absent = strstr(reason, PLUGIN_NAME ": cannot open shared object file") != NULL;
        return is_absent
                   ? rsi_fail(error, RSI_E_UNSUPPORTED,
                              "dpdk:// needs the plugin " PLUGIN_NAME ", which is not there: build "
                              "with -DRINGSIDE_DPDK=ON, or install it beside libringside")
                   : rsi_fail(error, RSI_E_UNSUPPORTED,
                              "dpdk:// needs the plugin " PLUGIN_NAME ", which cannot be loaded: "
                              "%s; install DPDK 22.11 (Debian: librte-ethdev23 librte-bus-vdev23 "
                              "librte-mempool-ring23 and a librte-net-... for the device)",
                              reason);
    }
    void *entry = dlsym(plugin, PLUGIN_ENTRY);
    if (entry == NULL) {
        return rsi_fail(error, RSI_E_UNSUPPORTED,
                        "the plugin " PLUGIN_NAME " is none of this version of Ringside");
    }
    memcpy(&plugin_open, &entry, sizeof(plugin_open)); /* ISO C has no cast for it */
    return RSI_OK;
}

rsi_status_t rsi_dpdk_plugin_port_open(struct rsi_port **port,
                                       const struct rsi_dpdk_options *options,
                                       struct rsi_error *error)
{
    rsi_status_t status = RSI_OK;
    pthread_mutex_lock(&plugin_lock);
    if (plugin_open == NULL) {
        status = open_plugin(error);
    }
    rsi_eal_port_open_fn *open = plugin_open;
    pthread_mutex_unlock(&plugin_lock);
    return status == RSI_OK ? open(port, options, error) : status;
}
