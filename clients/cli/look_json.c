/*
 * Design notes
 * - A value is written under its name in the counters file without what it is of, so that whoever
 *   knows one knows the other: "session.lag_bytes" is "lag_bytes" of a session.
 */
#include "clients/cli/look.h"

#include <stdlib.h>
#include <string.h>

json_t *rsi_look_text_json(const char *text)
{
    json_t *made = json_string(text);
    if (made != NULL) {
        return made;
    }
    char ascii[RSI_COUNTER_TEXT_BYTES + 1];
    size_t bytes = 0;
    for (; text[bytes] != '\0' && bytes + 1 < sizeof(ascii); bytes++) {
        ascii[bytes] = (unsigned char)text[bytes] < 0x80 ? text[bytes] : '?';
    }
    ascii[bytes] = '\0';
    return json_string(ascii);
}

/* Errors show at the end: an object that lacks what could not be added is not written. */
static bool add_values(json_t *object, const char *const *names, const uint64_t *values,
                       size_t count)
{
    bool is_added = true;
    for (size_t i = 0; i < count; i++) {
        const char *name = strchr(names[i], '.') + 1;
        is_added &= json_object_set_new(object, name, json_integer((json_int_t)values[i])) == 0;
    }
    return is_added;
}

static json_t *finish(json_t *object, bool is_whole)
{
    if (!is_whole) {
        json_decref(object);
        return NULL;
    }
    return object;
}

json_t *rsi_look_broker_json(const struct rsi_look *look)
{
    json_t *object = json_pack(
        "{s:o, s:o, s:o, s:I, s:I, s:I}", "name", rsi_look_text_json(look->name), "version",
        rsi_look_text_json(look->version), "wire_versions", rsi_look_text_json(look->wire), "pid",
        (json_int_t)look->pid, "start_time_ns", (json_int_t)look->start_realtime_ns, "uptime_ns",
        (json_int_t)rsi_look_uptime_ns(look));
    return finish(object,
                  add_values(object, rsi_look_broker_names, look->values, RSI_BROKER_VALUE_COUNT));
}

json_t *rsi_look_agent_json(const struct rsi_look_agent *agent)
{
    json_t *object = json_pack("{s:I, s:o}", "agent", (json_int_t)agent->number, "thread",
                               rsi_look_text_json(agent->thread));
    return finish(object,
                  add_values(object, rsi_look_agent_names, agent->values, RSI_AGENT_VALUE_COUNT));
}

json_t *rsi_look_session_json(const struct rsi_look_session *session)
{
    json_t *object =
        json_pack("{s:I, s:o, s:o?, s:o?, s:o?, s:o}", "id", (json_int_t)session->id, "name",
                  rsi_look_text_json(session->name), "transport",
                  session->transport[0] != '\0' ? rsi_look_text_json(session->transport) : NULL,
                  "peer", session->peer[0] != '\0' ? rsi_look_text_json(session->peer) : NULL,
                  "local", session->local[0] != '\0' ? rsi_look_text_json(session->local) : NULL,
                  "agent", session->agent >= 0 ? json_integer(session->agent) : json_null());
    return finish(object, add_values(object, rsi_look_session_names, session->values,
                                     RSI_SESSION_VALUE_COUNT));
}
