#compdef axonfs
# Completion of axonfs for zsh: put it as _axonfs into a directory of $fpath, before compinit runs.

_axonfs() {
    local -a lines names about
    local line
    lines=("${(@f)$(command axonfs __complete zsh "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    case ${lines[1]-none} in
        files) _files ;;
        dirs) _files -/ ;;
    esac
    for line in "${(@)lines[2,-1]}"; do
        names+=("${line%%$'\t'*}")
        about+=("${line%%$'\t'*}${${line#*$'\t'}:+  ${line#*$'\t'}}")
    done
    (( $#names )) && compadd -l -d about -a names
}

if [[ $funcstack[1] == _axonfs ]]; then
    _axonfs "$@"
else
    compdef _axonfs axonfs
fi
