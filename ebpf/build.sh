#!/bin/sh
# Builds the node guard's BPF object from the sources in this folder.
#
#   build.sh write        replaces the committed pair: nodeguard.bpf.o and nodeguard.bpf.json, which says what it is made of
#   build.sh check OUT    builds into OUT. With the recorded tools, OUT must be the committed object, byte for byte;
#                         with others it exits 0 and says that OUT has to pass the tests instead
#   build.sh other OUT    the same sources for the instructions of older kernels: another object that must do the same, for
#                         the tests of upgrades
#
# Needs a Rust that has core for bpfel-unknown-none and LLVM's opt and llc. On Debian 12:
#   apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22
# With rustup: `rustup toolchain install nightly --component rust-src` and bpf-linker in PATH. UNTESTED: that way is
# taken only where no such Rust is found, and it makes another object.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
object=$here/nodeguard.bpf.o
record=$here/nodeguard.bpf.json
target=${CARGO_TARGET_DIR:-$here/../target}/ebpf
triple=bpfel-unknown-none
LC_ALL=C
export LC_ALL

die() { printf 'ebpf/build.sh: %s\n' "$*" >&2; exit 1; }

# What the object is made of, sorted, relative to this folder. nodeguard/tests/bpf_object.rs makes the same list.
sources() {
    (cd "$here" && find . -name target -prune -o -type f \
        \( -name '*.rs' -o -name '*.sh' -o -name Cargo.toml -o -name Cargo.lock \) -print | sed 's|^\./||' | sort)
}

hash_of() { sha256sum "$1" | cut -d ' ' -f 1; }
source_hash() { (cd "$here" && sources | xargs sha256sum | sha256sum | cut -d ' ' -f 1); }
recorded() { sed -n "s/^ *\"$1\": \"\(.*\)\",*\$/\1/p" "$record"; }

has_core() {
    root=$("$1" --print sysroot 2>/dev/null) || return 1
    set -- "$root/lib/rustlib/$triple/lib/"libcore-*.rlib
    [ -e "$1" ]
}

# Sets $rustc, $compiler and $linker.
find_tools() {
    for rustc in "${RUSTC-}" rustc /usr/bin/rustc; do
        if [ -n "$rustc" ] && has_core "$rustc"; then
            opt=${LLVM_PREFIX:-/usr/lib/llvm-22}/bin/opt
            [ -x "$opt" ] || die "no $opt: install llvm-22, or say LLVM_PREFIX=/usr/lib/llvm-N"
            compiler=$("$rustc" --version)
            linker="linker.sh, LLVM $("$opt" --version | sed -n 's/.*LLVM version //p')"
            return
        fi
    done
    rustc=
    if cargo +nightly --version >/dev/null 2>&1 && command -v bpf-linker >/dev/null &&
        [ -e "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
        compiler=$(rustc +nightly --version)
        linker=$(bpf-linker --version)
        return
    fi
    die "no Rust that can build for $triple. Debian: apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22"
}

# build OUT
build() {
    # What cargo and the caller set for another target is not meant for this one.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
    cd "$here"
    # Cargo does not know that the linker is one of the sources.
    rm -f "$target/$triple/release/nodeguard" "$target/$triple/release/deps/nodeguard-"*
    if [ -n "$rustc" ]; then
        # aya-ebpf uses assembly for BPF, which no stable compiler admits to know.
        RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=$here/linker.sh \
            cargo build --quiet --release --locked --target "$triple" --target-dir "$target"
    else
        CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=bpf-linker \
            cargo +nightly build --quiet --release --locked -Z build-std=core --target "$triple" --target-dir "$target"
    fi
    cp "$target/$triple/release/nodeguard" "$1"
}

write() {
    build "$object"
    {
        printf '{\n  "object": "%s",\n  "sources": "%s",\n' "$(hash_of "$object")" "$(source_hash)"
        printf '  "rustc": "%s",\n  "linker": "%s",\n  "files": [\n' "$compiler" "$linker"
        sources | sed 's/.*/    "&",/; $s/,$//'
        printf '  ]\n}\n'
    } >"$record"
}

# check OUT
check() {
    [ "$(recorded sources)" = "$(source_hash)" ] || die "the sources have changed since the object was made: build.sh write"
    [ "$(recorded object)" = "$(hash_of "$object")" ] || die "nodeguard.bpf.o is not the recorded one: build.sh write"
    build "$1"
    if [ "$(recorded rustc)" != "$compiler" ] || [ "$(recorded linker)" != "$linker" ]; then
        echo "built with other tools than the committed object: $1 has to pass the tests"
        echo "  recorded: $(recorded rustc); $(recorded linker)"
        echo "  here:     $compiler; $linker"
    elif cmp "$object" "$1"; then
        echo "the committed object comes from these sources, byte for byte"
    else
        die "the same tools make another object of these sources: $1"
    fi
}

case ${2-} in /*) out=$2 ;; *) out=$(pwd)/${2-} ;; esac
case ${1-}:$# in
    write:1) find_tools; write ;;
    check:2) find_tools; check "$out" ;;
    other:2)
        find_tools
        GATEHOUSE_BPF_CPU=v2 build "$out"
        ! cmp -s "$object" "$out" || die "$out is no other object" ;;
    *) die 'write, check OUT, or other OUT' ;;
esac
