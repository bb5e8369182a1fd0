#!/bin/sh
# The compiler as cargo's RUSTC_WRAPPER, with the paths of this machine left out
# of the programs, so that the same sources make the same programs wherever they
# are. A wrapper, since cargo makes names in the program of RUSTFLAGS, with the
# paths in them.
#
# AV_REMAP_SOURCE is the folder of the sources, AV_REMAP_TARGET that of what is
# built, AV_REMAP_CARGO that of cargo.
exec "$@" --remap-path-prefix="$AV_REMAP_CARGO=/cargo" --remap-path-prefix="$AV_REMAP_SOURCE=/source" \
    --remap-path-prefix="$AV_REMAP_TARGET=/target"
