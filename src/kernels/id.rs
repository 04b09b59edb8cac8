//! Kernel ids, such as `avx512-f32-6x64`: tier, arithmetic, and the rows and columns of the register tile.
//! They are made from the tables of kernels.

use crate::isa::Isa;
use std::fmt;

/// Bytes of the longest id, as headers of files hold it.
const MAX: usize = 32;

/// The id of a kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelId {
    text: [u8; MAX],
    len: usize,
}

impl KernelId {
    /// `ISA-ARITHMETIC-ROWSxCOLS`.
    pub(super) const fn new(isa: &str, arithmetic: &str, rows: usize, cols: usize) -> KernelId {
        let id = KernelId { text: [0; MAX], len: 0 };
        id.push(isa).push("-").push(arithmetic).push("-").push_number(rows).push("x").push_number(cols)
    }

    const fn push(mut self, text: &str) -> KernelId {
        let mut i = 0;
        while i < text.len() {
            self.text[self.len] = text.as_bytes()[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    const fn push_number(self, number: usize) -> KernelId {
        const DIGITS: &str = "0123456789";
        let tens = if number < 10 { self } else { self.push_number(number / 10) };
        tens.push(DIGITS.split_at(number % 10).1.split_at(1).0)
    }

    /// The id of a product of panels of `width` columns, of any tier that kvern knows.
    pub(crate) fn of_panels(id: &[u8], width: usize) -> Option<KernelId> {
        let mut parts = std::str::from_utf8(id).ok()?.rsplitn(3, '-');
        let (tile, arithmetic, isa) = (parts.next()?, parts.next()?, parts.next()?);
        let rows = tile.split_once('x')?.0.parse().ok().filter(|rows| (1..=64).contains(rows))?;
        let isa: Isa = isa.parse().ok()?;
        let made = KernelId::new(isa.name(), "f32", rows, width);
        (arithmetic == "f32" && made.as_str().as_bytes() == id).then_some(made)
    }

    pub(crate) const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.text.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

impl fmt::Debug for KernelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_tier_and_tile() {
        assert_eq!(KernelId::new("avx512", "f32", 6, 64).as_str(), "avx512-f32-6x64");
        assert_eq!(KernelId::new("a", "b", 10, 100).as_str(), "a-b-10x100");
    }

    #[test]
    fn ids_of_panels_are_read_back_and_nothing_else_is() {
        let of = |id: &str, width| KernelId::of_panels(id.as_bytes(), width).map(|id| id.as_str().to_owned());
        assert_eq!(of("avx512-f32-6x64", 64).as_deref(), Some("avx512-f32-6x64"));
        assert_eq!(of("scalar-f32-2x16", 16).as_deref(), Some("scalar-f32-2x16"));
        for id in
            ["", "avx512-f32-6x64", "avx2-f32-06x16", "avx2-f32-0x16", "avx2-f32-+6x16", "sse9-f32-6x16"]
        {
            assert_eq!(of(id, 16), None, "{id}");
        }
        for id in [
            "avx2-int8-6x16",
            "avx2-f32-6x16\0",
            "avx2-f32-6",
            "f32-6x16",
            "avx2-f32-65x16",
            "\u{e9}-f32-6x16",
        ] {
            assert_eq!(of(id, 16), None, "{id}");
        }
    }
}
