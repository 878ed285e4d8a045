/*
 * The double of verbs is not watched: where a device has queues, it has a lock and memory. All that
 * it does lies between double_enter and double_leave, which are wrapped by the linker.
 */
#include "tests/hot_path/watch.h"
#include "transport/rdma/verbs_double_internal.h"

bool __real_double_enter(const char *name, enum verbs_double_call_kind kind);
bool __wrap_double_enter(const char *name, enum verbs_double_call_kind kind);
void __real_double_leave(void);
void __wrap_double_leave(void);
int __real_double_refuse(int reason);
int __wrap_double_refuse(int reason);

bool __wrap_double_enter(const char *name, enum verbs_double_call_kind kind)
{
    watch_look_away();
    bool goes_on = __real_double_enter(name, kind);
    if (!goes_on) {
        watch_look_again();
    }
    return goes_on;
}

void __wrap_double_leave(void)
{
    __real_double_leave();
    watch_look_again();
}

int __wrap_double_refuse(int reason)
{
    int status = __real_double_refuse(reason);
    watch_look_again();
    return status;
}
