# Shortcuts with the names of the project that mini/ reproduces. Each is one call.
MINI = cargo run --release --quiet --

all: run
run:            ; $(MINI) run
corpus:         ; $(MINI) corpus
verify-corpus:  ; $(MINI) verify-corpus
tokenize:       ; $(MINI) tokenize
generate:       ; $(MINI) generate
bench:          ; $(MINI) bench
bench-quant:    ; $(MINI) bench-quant
plot:           ; $(MINI) plot
test:           ; cargo test
coverage:       ; perf/coverage.sh
clean:          ; cargo clean

.PHONY: all run corpus verify-corpus tokenize generate bench bench-quant plot test coverage clean
