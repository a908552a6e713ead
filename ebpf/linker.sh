#!/bin/sh
# A linker for rustc's BPF targets out of LLVM's own tools. rustc has already united everything in one module of bitcode
# (lto = true) and optimised it; what remains is to drop what no program uses and to write the object. It takes the
# arguments of bpf-linker, which would cost a compilation of four minutes and LLVM's development files.
set -eu

llvm=${LLVM_PREFIX:-/usr/lib/llvm-22}/bin
symbols='' output='' input=''
while [ $# -gt 0 ]; do
    case $1 in
        --export-symbols) symbols=$2; shift ;;
        -o) output=$2; shift ;;
        # The processor is chosen below; there are no libraries, and no debug information is wanted.
        --cpu | -L) shift ;;
        -O* | --debug | --btf) ;;
        *.o) [ -z "$input" ] || { echo "linker.sh: more than one module; is lto off?" >&2; exit 1; }
            input=$1 ;;
        *) echo "linker.sh: does not know $1" >&2; exit 1 ;;
    esac
    shift
done

"$llvm/opt" --strip-debug -passes=internalize,globaldce -internalize-public-api-file="$symbols" "$input" -o "$output.bc"
# v3 has 32-bit arithmetic and jumps: Linux 5.1 and newer.
"$llvm/llc" -march=bpfel -mcpu="${GATEHOUSE_BPF_CPU:-v3}" -filetype=obj "$output.bc" -o "$output"
rm -f "$output.bc"
