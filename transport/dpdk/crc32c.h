/* CRC32C (Castagnoli), as iSCSI and SCTP have it. */
#ifndef RSI_TRANSPORT_DPDK_CRC32C_H
#define RSI_TRANSPORT_DPDK_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Any thread, no system call. Of what `before` is the sum of, and `bytes` from `data` on after it.
 */
uint32_t rsi_crc32c_extend(uint32_t before, const void *data, size_t bytes);
/* The same without the instructions of the CPU, to hold the one against the other. */
uint32_t rsi_crc32c_extend_by_table(uint32_t before, const void *data, size_t bytes);

static inline uint32_t rsi_crc32c(const void *data, size_t bytes)
{
    return rsi_crc32c_extend(0, data, bytes);
}

#endif
