# What `cmake --install` gives to other projects: ringside.h, the library both ways, find_package(ringside) and
# pkg-config; and the Debian package that CPack makes of it.
#
# The static library is one archive: the folders' own archives put together, so that a program names one file.

include(CMakePackageConfigHelpers)

# What whoever links the static library needs beside it.
set(RINGSIDE_REQUIRES libprotobuf-c numa libcrypto)
if(RINGSIDE_HAVE_RDMA)
    list(APPEND RINGSIDE_REQUIRES libibverbs librdmacm)
endif()
list(JOIN RINGSIDE_REQUIRES " " RINGSIDE_REQUIRES_TEXT)
# As flags, not as other packages: pkg-config would ask for those of everybody, the shared library's users too.
set(RINGSIDE_LIBS_PRIVATE ${RINGSIDE_REQUIRES})
list(TRANSFORM RINGSIDE_LIBS_PRIVATE REPLACE "^lib" "")
list(TRANSFORM RINGSIDE_LIBS_PRIVATE PREPEND "-l")
list(JOIN RINGSIDE_LIBS_PRIVATE " " RINGSIDE_LIBS_PRIVATE)

set(archive "${PROJECT_BINARY_DIR}/lib/libringside.a")
set(parts ringside_static ringside_transport ringside_core ringside_proto)
set(script "CREATE ${archive}\n")
foreach(part IN LISTS parts)
    string(APPEND script "ADDLIB $<TARGET_FILE:${part}>\n")
endforeach()
file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/lib/libringside.mri" CONTENT "${script}SAVE\nEND\n")
add_custom_command(
    OUTPUT "${archive}"
    COMMAND "${CMAKE_COMMAND}" -E rm -f "${archive}"
    COMMAND "${CMAKE_AR}" -M < "${PROJECT_BINARY_DIR}/lib/libringside.mri"
    DEPENDS ${parts}
    COMMENT "Putting libringside.a together"
    VERBATIM)
add_custom_target(ringside_archive ALL DEPENDS "${archive}")

install(TARGETS ringside EXPORT ringside
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES "${archive}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
if(RINGSIDE_HAVE_DPDK)
    install(TARGETS ringside_dpdk LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT dpdk)
endif()
install(FILES clients/c/ringside.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES LICENSE README.md DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(FILES deploy/wireshark/ringside.lua DESTINATION "${CMAKE_INSTALL_DATADIR}/ringside/wireshark")
# bash-completion looks for a file of the command's name.
foreach(program IN ITEMS ringside ringsided)
    install(FILES deploy/completion/ringside.bash
        DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions" RENAME "${program}")
endforeach()

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/ringside")
install(EXPORT ringside NAMESPACE ringside:: FILE ringsideTargets.cmake DESTINATION "${package_folder}")
configure_package_config_file(cmake/ringsideConfig.cmake.in
    "${PROJECT_BINARY_DIR}/ringsideConfig.cmake" INSTALL_DESTINATION "${package_folder}"
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
# While the major version is 0 a minor one may break what was built against another.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/ringsideConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/ringsideConfig.cmake"
    "${PROJECT_BINARY_DIR}/ringsideConfigVersion.cmake" DESTINATION "${package_folder}")

# From where the file is: a package may be unpacked anywhere.
file(RELATIVE_PATH RINGSIDE_PC_TO_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(cmake/ringside.pc.in "${PROJECT_BINARY_DIR}/ringside.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/ringside.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

# ---- package: cpack --config build/release/CPackConfig.cmake

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ringside)
set(CPACK_PACKAGE_VENDOR Ringside)
set(CPACK_PACKAGE_CONTACT "Ringside <ringside@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Publish/subscribe over one-sided RDMA writes, shared memory or TCP")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
# Two packages, so that only who uses dpdk:// has DPDK installed.
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL ringside)
set(CPACK_DEBIAN_RINGSIDE_PACKAGE_NAME ringside)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
# The providers are loaded at run time, so no program is seen to need them.
if(RINGSIDE_HAVE_RDMA)
    set(CPACK_DEBIAN_RINGSIDE_PACKAGE_RECOMMENDS ibverbs-providers)
endif()
if(RINGSIDE_HAVE_DPDK)
    list(APPEND CPACK_COMPONENTS_ALL dpdk)
    set(CPACK_DEBIAN_DPDK_PACKAGE_NAME ringside-dpdk)
    set(CPACK_DEBIAN_DPDK_DESCRIPTION "Plugin for dpdk:// of Ringside: poll-mode Ethernet past the kernel")
    # Drivers are loaded at run time too: pools of frames need the first, the others are for tests and containers.
    set(CPACK_DEBIAN_DPDK_PACKAGE_DEPENDS "ringside (= ${PROJECT_VERSION}), librte-mempool-ring23")
    set(CPACK_DEBIAN_DPDK_PACKAGE_RECOMMENDS "librte-net-af-packet23, librte-net-memif23, librte-net-virtio23")
endif()
include(CPack)
