# Sourced by the scripts that count instructions, in the root of the repository: names the runner of
# iai-callgrind, and installs it where it is not yet.
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
export IAI_CALLGRIND_RUNNER="${IAI_CALLGRIND_RUNNER:-$tools/bin/iai-callgrind-runner}"
if [ ! -x "$IAI_CALLGRIND_RUNNER" ]; then
    printf '\n== install iai-callgrind-runner\n'
    cargo install -q iai-callgrind-runner --version =0.16.1 --root "$tools"
fi
