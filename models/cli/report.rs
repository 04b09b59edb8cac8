//! Lines for whoever waits.

use crate::plan::{Goal, Step};
use kvern::gguf::Tensor;
use std::fmt::{self, Write as _};
use std::io::Write;

/// Writes a line. Whether it is read does not matter: a closed pipe must not stop the work.
pub fn say(out: &mut impl Write, line: fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

/// The line of a tensor: name, shape, formats, bytes, and why the format is not the one that was asked for.
pub fn line(tensor: &Tensor<'_>, step: Step, goal: Goal, bytes: usize) -> String {
    let (name, shape, from) = (Shown(tensor.name()), tensor.shape(), tensor.kind());
    let kept = tensor.bytes().map_or(0, <[u8]>::len);
    let mut line = match step.to() {
        Some(to) => format!("{name} {shape:?} {from} -> {}, {kept} -> {bytes} bytes", to.name()),
        None => format!("{name} {shape:?} {from} kept, {kept} bytes"),
    };
    if step.is_ragged() {
        let (block, format) = (goal.format.block_len(), goal.format.name());
        line += &format!(": k = {} is no multiple of {block}, the block of {format}", tensor.k());
    }
    line
}

/// A name of a file's: quoted, on one line, and cut off behind 80 characters.
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 80;
        f.write_char('`')?;
        self.0.chars().take(MOST).flat_map(char::escape_debug).try_for_each(|c| f.write_char(c))?;
        f.write_str(if self.0.chars().nth(MOST).is_some() { "..`" } else { "`" })
    }
}
