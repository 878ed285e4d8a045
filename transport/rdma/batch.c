/*
 * Design notes
 * - The remote ring is one memory region of capacity_bytes; nothing of it is registered twice. So a
 *   WRITE ends at the ring's end at the latest and the next one begins at its start. Two scatter
 *   entries in one WRITE would not do: they gather at the source, and it is the target that wraps.
 * - Both rings have the same size and positions, so source and target are cut at the same place.
 * - Only the last WRITE is signalled: its completion covers all before it on the same queue pair.
 */
#include "transport/rdma/batch.h"

#include "core/assert.h"

#include <arpa/inet.h>

static uint64_t span_bytes_at(const struct rsi_rdma_way *way, uint64_t offset, uint64_t rest_bytes)
{
    uint64_t bytes = way->capacity_bytes - offset;
    if (bytes > rest_bytes) {
        bytes = rest_bytes;
    }
    return bytes < way->write_bytes_max ? bytes : way->write_bytes_max;
}

uint32_t rsi_rdma_batch_build(const struct rsi_rdma_way *way, uint64_t from_pos, uint64_t to_pos,
                              struct ibv_send_wr *requests, struct ibv_sge *spans)
{
    rsi_assert(from_pos < to_pos);
    rsi_assert(to_pos - from_pos <= way->capacity_bytes);
    uint32_t count = 0;
    for (uint64_t pos = from_pos; pos < to_pos; count++) {
        rsi_assert(count < RSI_RDMA_BATCH_WRITES_MAX);
        uint64_t offset = pos & (way->capacity_bytes - 1);
        uint64_t bytes = span_bytes_at(way, offset, to_pos - pos);
        spans[count] = (struct ibv_sge){
            .addr = way->local_address + offset,
            .length = (uint32_t)bytes,
            .lkey = way->local_key,
        };
        requests[count] = (struct ibv_send_wr){
            .next = &requests[count + 1],
            .sg_list = &spans[count],
            .num_sge = 1,
            .opcode = IBV_WR_RDMA_WRITE,
            .send_flags = bytes <= way->inline_bytes_max ? IBV_SEND_INLINE : 0,
            .wr.rdma = {.remote_addr = way->remote_address + offset, .rkey = way->remote_key},
        };
        pos += bytes;
    }
    struct ibv_send_wr *last = &requests[count - 1];
    last->next = NULL;
    last->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    last->send_flags |= IBV_SEND_SIGNALED;
    last->imm_data = htonl(rsi_immediate(to_pos));
    return count;
}
