# Shortcuts, each one call. `make check` is what CI runs; the others have the names of the project that mini/
# reproduces.
MINI = cargo run --release --quiet --

# make install PREFIX=/usr/local [DESTDIR=] [LIBDIR=lib] [FEATURES=cblas]: the C library, its headers, and
# what pkg-config and CMake read. TARGET=x86_64-pc-windows-gnu (Rust's name) for another system than this one;
# CARGO and CARGOFLAGS where that takes another cargo.
PREFIX ?= /usr/local
LIBDIR ?= lib
FEATURES ?= capi
TARGET ?=
CARGO ?= cargo
CARGOFLAGS ?=
CARGO_TARGET_DIR ?= target
LIBRARY = $(CARGO_TARGET_DIR)/c-library

all: run
run:            ; $(MINI) run
corpus:         ; $(MINI) corpus
verify-corpus:  ; $(MINI) verify-corpus
tokenize:       ; $(MINI) tokenize
generate:       ; $(MINI) generate
bench:          ; $(MINI) bench
bench-quant:    ; $(MINI) bench-quant
plot:           ; $(MINI) plot
train:          ; $(MINI) train
test-idem:      ; $(MINI) test-idem
pack:           ; $(MINI) pack
verify:         ; $(MINI) verify
test:           ; cargo test
check:          ; .ci/run
coverage:       ; perf/coverage.sh
coverage-mini:  ; perf/coverage.sh mini
gate:           ; cargo run --quiet -p kvern-perf -- gate
bless:          ; perf/bless.sh
# The two C libraries and no Rust library: beside one, the linker keeps everything that Rust could call.
library:
	$(CARGO) rustc $(CARGOFLAGS) $(TARGET:%=--target %) --profile shipped -p kvern --lib \
	    --crate-type cdylib,staticlib --features $(FEATURES) --target-dir $(LIBRARY)
install: library
	PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) DESTDIR=$(DESTDIR) TARGET=$(TARGET) \
	    packaging/install.sh $(LIBRARY)/$(TARGET:%=%/)shipped
clean:          ; cargo clean

.PHONY: all run corpus verify-corpus tokenize generate bench bench-quant plot train test-idem pack verify \
        test check coverage coverage-mini gate bless library install clean
