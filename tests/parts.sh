#!/usr/bin/env bash
# What tests/machine/inside and tests/dpdk/inside share: sourced with the names of the parts to run, none for all.
# They say with run_part what a process of its own becomes for a part. Each program's output is indented, so that the
# closing lines of all of them are counted here and once.

only=("$@")
passed=0
failed=0
run=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Whether a part belongs to what runs without names; who has more than one such set says it anew.
is_in_set() { true; }

is_wanted() {
    local name
    ((${#only[@]} == 0)) && { is_in_set "$1"; return; }
    for name in "${only[@]}"; do [[ $1 == "$name" ]] && return 0; done
    return 1
}

# Adds what the log's closing lines say: our own, or cmocka's.
count_results() {
    local line
    while read -r line; do
        if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
            ((passed += BASH_REMATCH[1], failed += BASH_REMATCH[2]))
        elif [[ $line =~ ^\[\ *PASSED\ *\]\ ([0-9]+)\ test ]]; then
            ((passed += BASH_REMATCH[1]))
        elif [[ $line =~ ^\[\ *FAILED\ *\]\ .*,\ ([0-9]+)\ test ]]; then
            ((failed += BASH_REMATCH[1]))
        fi
    done <"$log"
}

# part NAME PROGRAM ARGUMENT...
part() {
    local name=$1 status began=$SECONDS failed_before=$failed
    shift
    is_wanted "$name" || return 0
    run+=("$name")
    echo "-- $name"
    run_part "$@" 2>&1 | tee "$log" | sed -u 's/^/    /'
    status=${PIPESTATUS[0]}
    count_results
    ((status != 0 && failed == failed_before)) && ((failed += 1))
    echo "-- $name: $( ((status == 0)) && echo ok || echo "FAILED with status $status"), $((SECONDS - began)) s"
}

# close_parts NAME: the closing lines. Fails when something did, or when a name is no part's.
close_parts() {
    local name
    for name in "${only[@]}"; do
        [[ " ${run[*]} " == *" $name "* ]] && continue
        echo "FAILED  no part is called $name"
        ((failed += 1))
    done
    echo "$1: $SECONDS s"
    echo "$passed passed, $failed failed"
    ((failed == 0))
}
