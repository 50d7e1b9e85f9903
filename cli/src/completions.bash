# Which word of `peersock run` is the program; 0 if none is yet.
_peersock_program() {
    local i
    for ((i = $1 + 1; i <= COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            @OPTIONS@) ((i++)) ;;
            --) echo $((i + 1)); return ;;
            -*) ;;
            *) echo "$i"; return ;;
        esac
    done
    echo 0
}

_peersock_with_files() {
    local current=${COMP_WORDS[COMP_CWORD]} i=1 program
    while [[ ${COMP_WORDS[i]} == -* ]]; do ((i++)); done
    if [[ ${COMP_WORDS[i]} == run ]] && ((i < COMP_CWORD)); then
        program=$(_peersock_program "$i")
        if ((program > 0 && program == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$current")
            return
        elif ((program > 0 && program < COMP_CWORD)); then
            if declare -F _comp_command_offset > /dev/null; then
                _comp_command_offset "$program"
            elif declare -F _command_offset > /dev/null; then
                _command_offset "$program"
            else
                compopt -o filenames 2> /dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            return
        fi
    fi
    _peersock "$@"
    case "${COMP_WORDS[i]}" in
        @OUTER_FILES@)
            if ((i < COMP_CWORD)) && [[ $current != -* && ${COMP_WORDS[COMP_CWORD - 1]} != -* ]]; then
                compopt -o filenames 2> /dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            ;;
    esac
    case "${COMP_WORDS[i]} ${COMP_WORDS[i + 1]}" in
        @FILES@)
            if ((i + 1 < COMP_CWORD)) && [[ $current != -* && ${COMP_WORDS[COMP_CWORD - 1]} != -* ]]; then
                compopt -o filenames 2> /dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            ;;
    esac
}

complete -F _peersock_with_files -o bashdefault -o default peersock
