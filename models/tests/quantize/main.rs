//! `kvern-models quantize` as a program: files in, files out, lines, exit codes.

mod program;
mod refusals;
mod results;
mod sample;
