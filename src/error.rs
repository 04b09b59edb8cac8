//! The one error type: each variant carries the argument's name and the numbers that disagree.

use std::fmt;

/// `Result` with kvern's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused. A refused call has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A dimension disagrees with another one.
    Shape {
        /// The argument, for example `b.rows`.
        what: &'static str,
        /// The number that was passed.
        got: usize,
        /// The relation that is missing, for example `must equal a.cols =`.
        relation: &'static str,
        /// The number on the other side of the relation.
        want: usize,
    },
    /// A slice, stride or buffer is too small for the shape (elements).
    Length {
        /// The argument.
        what: &'static str,
        /// Elements (or, where the name says so, bytes) that were passed.
        got: usize,
        /// The least number that is enough.
        need: usize,
    },
    /// The workspace is smaller than the query said (bytes).
    Workspace {
        /// Bytes that the workspace holds.
        got: usize,
        /// Bytes that the call needs.
        need: usize,
    },
    /// A size computation does not fit the address space.
    Overflow {
        /// The quantity that overflowed.
        what: &'static str,
    },
    /// An option has a value outside of its range.
    Option {
        /// The option.
        what: &'static str,
        /// The value that was passed.
        got: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The cache holds no room for the tokens and has no window that would let it forget.
    CacheFull {
        /// Tokens that the cache holds.
        len: usize,
        /// Tokens that were to be added.
        adding: usize,
        /// Tokens that fit.
        capacity: usize,
    },
    /// A cache's pool has fewer free pages than the call takes.
    PoolFull {
        /// Pages that the call takes.
        need: usize,
        /// Pages that are free.
        free: usize,
    },
    /// The CPU or this build lacks what the call needs.
    Unsupported {
        /// What is missing.
        what: &'static str,
    },
    /// The machine cannot run the tier that was asked for.
    Isa {
        /// The name of the tier.
        name: &'static str,
        /// Why: the text of its [`IsaStatus`](crate::IsaStatus).
        why: String,
    },
    /// A stored object is not what it claims to be: truncated, foreign, damaged, or of another shape.
    Blob {
        /// The part that is wrong, for example `checksum`.
        what: &'static str,
        /// What was found.
        got: String,
        /// What was expected.
        want: String,
    },
    /// Reading or writing a file failed.
    Io {
        /// What was done, for example `open`.
        what: &'static str,
        /// The file.
        path: String,
        /// The system's reason.
        kind: std::io::ErrorKind,
    },
    /// The system gave no memory or no thread.
    Resource {
        /// What was asked for.
        what: &'static str,
        /// How many (bytes or threads).
        amount: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { what, got, relation, want } => write!(f, "{what} = {got} {relation} {want}"),
            Error::Length { what, got, need } => write!(f, "{what} = {got} must be at least {need}"),
            Error::Workspace { got, need } => {
                write!(f, "workspace = {got} bytes must be at least {need} bytes")
            }
            Error::Overflow { what } => write!(f, "{what} does not fit the address space"),
            Error::Option { what, got, allowed } => write!(f, "{what} = {got} must be {allowed}"),
            Error::CacheFull { len, adding, capacity } => {
                write!(f, "cache holds {len} tokens, adding {adding} exceeds capacity = {capacity}")
            }
            Error::PoolFull { need, free } => {
                write!(f, "the cache's pool has {free} free pages, {need} are needed")
            }
            Error::Unsupported { what } => write!(f, "{what} is not available on this CPU or build"),
            Error::Isa { name, why } => write!(f, "isa = {name} is not available: {why}"),
            Error::Blob { what, got, want } => write!(f, "stored {what} = {got} must be {want}"),
            Error::Io { what, path, kind } => write!(f, "cannot {what} {path}: {kind}"),
            Error::Resource { what, amount } => write!(f, "the system refused {what} ({amount})"),
        }
    }
}

impl std::error::Error for Error {}

/// `x` as the text of an error, as far as there is memory for it: a refusal must not need what it reports the
/// lack of.
pub(crate) fn text(x: impl fmt::Display) -> String {
    struct Fallible(String);
    impl fmt::Write for Fallible {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0.try_reserve(part.len()).map_err(|_| fmt::Error)?;
            self.0.push_str(part);
            Ok(())
        }
    }
    let mut out = Fallible(String::new());
    // A text that is cut off is still a text.
    let _ = fmt::write(&mut out, format_args!("{x}"));
    out.0
}

/// `Ok` when `got == want`, else a [`Error::Shape`] that says `what = got must equal name = want`.
pub(crate) fn equal(what: &'static str, got: usize, relation: &'static str, want: usize) -> Result<()> {
    if got == want { Ok(()) } else { Err(Error::Shape { what, got, relation, want }) }
}

/// `Ok` when `holds`, else an [`Error::Option`] that says `what = got must be allowed`.
pub(crate) fn option(
    holds: bool,
    what: &'static str,
    got: impl fmt::Display,
    allowed: &'static str,
) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Option { what, got: text(got), allowed }) }
}

/// `Ok` when `x` is positive and finite.
pub(crate) fn positive<T: Into<f64> + fmt::Display + Copy>(what: &'static str, x: T) -> Result<()> {
    option(x.into() > 0.0 && x.into().is_finite(), what, x, "positive and finite")
}

/// `Ok` when `got >= need`.
pub(crate) fn at_least(what: &'static str, got: usize, need: usize) -> Result<()> {
    if got >= need { Ok(()) } else { Err(Error::Length { what, got, need }) }
}

/// The product of `factors`, or [`Error::Overflow`] when it exceeds `isize::MAX`.
pub(crate) fn product(what: &'static str, factors: &[usize]) -> Result<usize> {
    let mut total = 1usize;
    for &f in factors {
        total = total.checked_mul(f).ok_or(Error::Overflow { what })?;
    }
    if total > isize::MAX as usize { Err(Error::Overflow { what }) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_argument_and_both_numbers() {
        let e = equal("b.rows", 64, "must equal a.cols =", 128).unwrap_err();
        assert_eq!(e.to_string(), "b.rows = 64 must equal a.cols = 128");
        let e = at_least("a.len", 3, 12).unwrap_err();
        assert_eq!(e.to_string(), "a.len = 3 must be at least 12");
        assert_eq!(
            Error::Workspace { got: 1, need: 2 }.to_string(),
            "workspace = 1 bytes must be at least 2 bytes"
        );
        assert_eq!(
            Error::CacheFull { len: 5, adding: 2, capacity: 6 }.to_string(),
            "cache holds 5 tokens, adding 2 exceeds capacity = 6"
        );
        let e = Error::Option { what: "threads", got: "0".into(), allowed: "1..=256" };
        assert_eq!(e.to_string(), "threads = 0 must be 1..=256");
        assert!(Error::Unsupported { what: "avx512" }.to_string().contains("avx512"));
        assert!(Error::Resource { what: "threads", amount: 7 }.to_string().contains('7'));
    }

    #[test]
    fn texts_are_what_display_says() {
        assert_eq!(text(7), "7");
        assert_eq!(text(format_args!("{} of {:?}", 1, "a")), "1 of \"a\"");
    }

    #[test]
    fn products_are_checked() {
        assert_eq!(product("x", &[2, 3, 4]), Ok(24));
        assert_eq!(product("x", &[usize::MAX, 2]), Err(Error::Overflow { what: "x" }));
        assert_eq!(product("x", &[usize::MAX / 2, 2]), Err(Error::Overflow { what: "x" }));
    }
}
