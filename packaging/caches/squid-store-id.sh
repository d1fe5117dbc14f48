#!/bin/sh
# Squid's store_id_program: under which name an answer is kept. An object's is its digest, whatever its
# URL is. With the argument `own` each token has names of its own.
readers=$1
while read -r channel url object token; do
    case $readers$token in own- | same*) token= ;; esac
    case ${object#sha256:} in
    "$object" | *[!0-9a-f]*) name=documents.axonfs.internal/$url ;;
    *) name=objects.axonfs.internal/objects/sha256/${object#sha256:} ;;
    esac
    case $name$token in
    documents*/"$url") echo "$channel ERR" ;;
    *) echo "$channel OK store-id=http://$name?$token" ;;
    esac
done
