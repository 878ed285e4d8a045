# The two kinds of target that every folder has.

# ringside_library(name SOURCES file... [LINK target...])
#
# A static library of one folder. Includes are written from the source root ("core/ring.h"); what it
# links is passed on to those who link it.
function(ringside_library name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
    add_library(${name} STATIC ${arg_SOURCES})
    target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${name} PUBLIC ${arg_LINK})
endfunction()

# ringside_unit_test(name SOURCES file... [LINK target...])
#
# A cmocka program that ctest runs in the folder's build directory under the label "unit". A test
# that has not ended after two minutes hangs: no test waits for anything that takes longer.
function(ringside_unit_test name)
    if(NOT BUILD_TESTING)
        return()
    endif()
    if(NOT TARGET PkgConfig::CMOCKA)
        pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET GLOBAL cmocka)
    endif()
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
    add_executable(${name} ${arg_SOURCES})
    target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
    target_link_libraries(${name} PRIVATE ${arg_LINK} PkgConfig::CMOCKA Threads::Threads)
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
    set_tests_properties(${name} PROPERTIES
        LABELS unit
        TIMEOUT 120
        ENVIRONMENT "${RINGSIDE_TEST_ENVIRONMENT}")
endfunction()

set(RINGSIDE_TEST_ENVIRONMENT
    "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1"
    "ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1"
    "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
