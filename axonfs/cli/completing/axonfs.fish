# Completion of axonfs for fish: put it as axonfs.fish into ~/.config/fish/completions.

function __axonfs_complete
    set -l word (commandline -ct)
    set -l lines (command axonfs __complete fish (commandline -opc) "$word" 2>/dev/null)
    switch "$lines[1]"
        case files
            __fish_complete_path "$word"
        case dirs
            __fish_complete_directories "$word"
    end
    for line in $lines[2..-1]
        printf '%s\n' $line
    end
end

complete -c axonfs -f -a '(__axonfs_complete)'
