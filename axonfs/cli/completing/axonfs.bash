# Completion of axonfs for bash: source it, or put it in
# ~/.local/share/bash-completion/completions/axonfs.

_axonfs() {
    local -a lines
    local IFS=$'\n'
    COMPREPLY=()
    mapfile -t lines < <(COMP_WORDBREAKS="$COMP_WORDBREAKS" command axonfs __complete bash \
        "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case ${lines[0]-none} in
        files) compopt -o filenames -o default ;;
        dirs) compopt -o filenames -o dirnames ;;
    esac
    COMPREPLY=("${lines[@]:1}")
    [[ ${COMPREPLY[0]-} == */ || ${COMPREPLY[0]-} == *, ]] && compopt -o nospace
    return 0
}

complete -F _axonfs axonfs
