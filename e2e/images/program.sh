# How the program is built for images and benchmarks. Sourced by the scripts that need it; does nothing by itself.
# shellcheck shell=bash disable=SC2034

program_target=$(uname -m)-unknown-linux-gnu
program=${CARGO_TARGET_DIR:-target}/$program_target/release/holdfast

# In the repository's folder; arguments are for cargo. Static: the same file runs on any base, whatever its C library. The variable concerns this target only,
# not build scripts.
build_program() {
  local variable=CARGO_TARGET_${program_target//-/_}
  export "${variable^^}_RUSTFLAGS=-C target-feature=+crt-static"
  cargo build --release --locked --package holdfast --bin holdfast --target "$program_target" "$@"
}
