# Completion of ringside and ringsided for bash.
#
# Commands and flags are asked of the program that is being typed, so they are always those that it has. Only
# the words that a flag takes are written here; tests/completion/run holds them against the programs.

# The commands that `ringside --help` lists.
_ringside_commands() {
    "$1" --help 2>/dev/null | sed -nE 's/^  ([a-z]+) +.*/\1/p'
}

# The flags of PROGRAM [COMMAND], with a = at the end where a value follows.
_ringside_flags() {
    "$@" --help 2>/dev/null | sed -nE 's/^ +((-[A-Za-z?], )?--[^ ,]+(, --[^ ,]+)*).*/\1/p' |
        grep -oE -- '--[a-z0-9-]+=?'
}

# What stands behind the = of a flag in the help: FILE, TIME, HOW.
_ringside_value_kind() {
    local flag=$1
    shift
    "$@" --help 2>/dev/null | sed -nE "s/^ +(-[A-Za-z?], )?(--[^ ]+, )*$flag\\[?=([^], ]+).*/\\3/p" | head -n 1
}

# The words that FLAG of PROGRAM [COMMAND] takes, if they are few.
_ringside_values() {
    case $1 in
        --policy | --default-policy) echo drop disconnect block ;;
        --wait) echo adaptive busy blocking ;;
        --sort) echo slow name in out lag drops blocked p50 p99 max ;;
        --separator) if [[ $3 == pub ]]; then echo newline nul length; else echo newline nul length none; fi ;;
        --log-level) echo error warning info debug ;;
        *) if [[ $(_ringside_value_kind "$@") == 'yes|no' ]]; then echo yes no; fi ;;
    esac
}

_ringside() {
    local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local -a call=("$program")
    COMPREPLY=()
    if [[ ${program##*/} == ringside ]]; then
        if ((COMP_CWORD == 1)); then
            mapfile -t COMPREPLY < <(compgen -W "$(_ringside_commands "$program") --help --version" -- "$current")
            return
        fi
        call+=("${COMP_WORDS[1]}")
    fi

    # "--flag=val" comes as three words where = parts words.
    local flag=$previous
    if [[ $current == '=' ]]; then
        flag=$previous current=
    elif [[ $previous == '=' && $COMP_CWORD -ge 2 ]]; then
        flag=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    if [[ $flag == --* ]]; then
        local values
        values=$(_ringside_values "$flag" "${call[@]}")
        if [[ $values ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$values" -- "$current")
            return
        fi
        case $(_ringside_value_kind "$flag" "${call[@]}") in
            '') ;; # it takes none: what follows is another word
            FILE | PATH)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                return
                ;;
            *) return ;; # a number, a time, a name: nothing to choose from
        esac
    fi
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_ringside_flags "${call[@]}")" -- "$current")
        if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
            compopt -o nospace 2>/dev/null
        fi
        return
    fi
    case ${call[1]-} in
        bench) mapfile -t COMPREPLY < <(compgen -W 'latency throughput fanout' -- "$current") ;;
        replay | verify)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            ;;
    esac
}

complete -F _ringside ringside ringsided
