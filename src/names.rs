//! Names in files: how they are found, and how an error shows them.

use crate::blob::wrong;
use crate::buffer::vector;
use crate::error::Result;
use std::fmt::{self, Write};

/// The numbers of things in the order of their names.
///
/// Not a hash map: that would hold a copy of each name, or a reference into the map of the file beside it.
/// Ten comparisons find one tensor of a thousand, and no choice of names makes it slower.
#[derive(Debug)]
pub(crate) struct Index(Vec<usize>);

impl Index {
    /// The order of `len` names.
    ///
    /// **Errors**: `Blob` for a name that is there twice, `Resource`.
    pub fn new<'a>(what: &'static str, len: usize, name: impl Fn(usize) -> &'a str) -> Result<Index> {
        let mut order = vector(len)?;
        order.extend(0..len);
        order.sort_unstable_by(|a, b| name(*a).cmp(name(*b)));
        match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
            Some(pair) => wrong(what, format_args!("{} twice", Shown(name(pair[0]))), "there once"),
            None => Ok(Index(order)),
        }
    }

    /// The number of a name.
    pub fn find<'a>(&self, wanted: &str, name: impl Fn(usize) -> &'a str) -> Option<usize> {
        let place = self.0.binary_search_by(|i| name(*i).cmp(wanted)).ok()?;
        self.0.get(place).copied()
    }
}

/// A name as an error shows it: quoted, escaped, and cut off behind so many characters that the numbers
/// behind it are still read.
pub(crate) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 80;
        f.write_char('`')?;
        self.0.chars().take(MOST).flat_map(char::escape_debug).try_for_each(|c| f.write_char(c))?;
        f.write_str(if self.0.chars().nth(MOST).is_some() { "..`" } else { "`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_doubles_refused() {
        let names = ["b", "", "ab", "a"];
        let index = Index::new("names", names.len(), |i| names[i]).unwrap();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, |i| names[i]), Some(i));
        }
        assert_eq!(index.find("aa", |i| names[i]), None);
        let twice = ["b", "a", "b"];
        let e = Index::new("names", 3, |i| twice[i]).unwrap_err();
        assert_eq!(e.to_string(), "stored names = `b` twice must be there once");
    }

    #[test]
    fn names_are_shown_on_one_line_and_cut_off() {
        assert_eq!(Shown("a\nb\0").to_string(), "`a\\nb\\0`");
        assert_eq!(Shown(&"x".repeat(81)).to_string(), format!("`{}..`", "x".repeat(80)));
        assert_eq!(Shown(&"x".repeat(80)).to_string(), format!("`{}`", "x".repeat(80)));
    }
}
