/* What lossy and its program in the kernel tell each other: places in the map `values`. */
#ifndef RSI_TESTS_DPDK_LOSSY_H
#define RSI_TESTS_DPDK_LOSSY_H

enum lossy_value {
    LOSSY_PPM, /* of the datagrams; written before the program is attached */
    /* Of those lost: */
    LOSSY_DATAGRAMS,
    LOSSY_BYTES,      /* of whole frames */
    LOSSY_RING_BYTES, /* of data */
    LOSSY_VALUE_COUNT,
};

#endif
