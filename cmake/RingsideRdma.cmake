# Looks for rdma-core. Sets RINGSIDE_HAVE_RDMA, defines RSI_HAVE_RDMA as 0 or 1 for every file, and
# offers the imported target PkgConfig::RDMA.

set(RINGSIDE_HAVE_RDMA OFF)
if(RINGSIDE_RDMA STREQUAL "AUTO" OR RINGSIDE_RDMA STREQUAL "ON")
    pkg_check_modules(RDMA IMPORTED_TARGET libibverbs librdmacm)
    if(RDMA_FOUND)
        set(RINGSIDE_HAVE_RDMA ON)
    elseif(RINGSIDE_RDMA STREQUAL "ON")
        message(FATAL_ERROR "RINGSIDE_RDMA is ON, but libibverbs or librdmacm is missing "
            "(Debian: libibverbs-dev librdmacm-dev)")
    endif()
elseif(NOT RINGSIDE_RDMA STREQUAL "OFF")
    message(FATAL_ERROR "RINGSIDE_RDMA is '${RINGSIDE_RDMA}': use AUTO, ON or OFF")
endif()

if(RINGSIDE_HAVE_RDMA)
    add_compile_definitions(RSI_HAVE_RDMA=1)
else()
    add_compile_definitions(RSI_HAVE_RDMA=0)
endif()
message(STATUS "rdma transport: ${RINGSIDE_HAVE_RDMA}")
