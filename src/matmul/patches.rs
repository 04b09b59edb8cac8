//! Patches of images as the A of a product: a convolution whose matrix of patches (im2col) is only ever
//! packed block by block.

use super::pack::Span;
use crate::error::{Error, Result, equal, option, product};
use crate::view::MatRef;
use std::ops::Range;

/// Two numbers: down and across.
pub type Extent = (usize, usize);

/// The patches of some images, or of some sequences: what a convolution multiplies by its weights.
///
/// Patch (i, y, x) is a row of A, rows in the order of images, then lines, then columns. Its elements are
/// those of the kernel's places, line by line, all channels of a place together: weights stored (out, kernel
/// height, kernel width, channels) are packed as `w.t()`.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a> {
    pixels: MatRef<'a>, // (images * height * width, channels)
    images: usize,
    size: Extent,
    kernel: Extent,
    stride: Extent,
    padding: Extent,
    out: Extent,
}

/// How patches are cut from an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Pixels of a patch.
    pub kernel: Extent,
    /// Pixels from one patch to the next.
    pub stride: Extent,
    /// Zeros that surround an image, above and below it, left and right of it.
    pub padding: Extent,
}

impl<'a> Patches<'a> {
    /// The patches of images of `size`.
    ///
    /// - **Shapes**: `pixels`: (images * height * width, channels), plain, one pixel a row.
    /// - **Errors**: `Shape` for rows that are not whole images, and for a kernel beyond the padded image;
    ///   `Option` for a transposed view and for an image, a kernel or a stride of nothing; `Overflow`.
    pub fn new(pixels: MatRef<'a>, size: Extent, window: Window) -> Result<Patches<'a>> {
        let Window { kernel, stride, padding } = window;
        pixels.require_plain("pixels", "plain: one pixel a row")?;
        let each = product("height * width", &[size.0, size.1])?;
        option(each > 0, "height * width", each, "at least 1")?;
        let images = pixels.rows() / each;
        equal("pixels.rows", pixels.rows(), "must be a multiple of height * width, such as", images * each)?;
        let out = (
            along("kernel height", size.0, kernel.0, stride.0, padding.0)?,
            along("kernel width", size.1, kernel.1, stride.1, padding.1)?,
        );
        product("patches", &[images, out.0, out.1])?;
        product("elements of a patch", &[kernel.0, kernel.1, pixels.cols()])?;
        Ok(Patches { pixels, images, size, kernel, stride, padding, out })
    }

    /// Patches of `kernel` neighbours in sequences of `len` rows, `stride` apart, with `padding` rows of
    /// zeros before the first and behind the last one: `rows`: (sequences * len, channels).
    ///
    /// - **Errors**: as [`Patches::new`].
    pub fn of_lines(
        rows: MatRef<'a>,
        len: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Patches<'a>> {
        let window = Window { kernel: (1, kernel), stride: (1, stride), padding: (0, padding) };
        Patches::new(rows, (1, len), window)
    }

    /// Patches down and across an image.
    pub fn out_size(&self) -> Extent {
        self.out
    }

    /// Patches in all: the rows of A.
    pub fn rows(&self) -> usize {
        self.images * self.out.0 * self.out.1
    }

    /// Elements of a patch: the columns of A.
    pub fn cols(&self) -> usize {
        self.kernel.0 * self.kernel.1 * self.pixels.cols()
    }

    /// Copies elements `k` of patches `rows`: (rows, k), without gaps. What lies outside of an image is
    /// zeros.
    pub(super) fn pack(&self, rows: Span, k: Span, out: &mut [f32]) {
        if k.len == 0 {
            return;
        }
        for (row, out) in (rows.start..).zip(out.chunks_exact_mut(k.len).take(rows.len)) {
            let (image, patch) = (row / (self.out.0 * self.out.1), row % (self.out.0 * self.out.1));
            let corner = (patch / self.out.1 * self.stride.0, patch % self.out.1 * self.stride.1);
            self.pack_patch(image, corner, k.start..k.start + k.len, out);
        }
    }

    /// Elements `k` of the patch whose corner lies at `corner` of the padded image.
    fn pack_patch(&self, image: usize, corner: Extent, k: Range<usize>, out: &mut [f32]) {
        let channels = self.pixels.cols();
        let dense = self.pixels.strides().0 == channels;
        let mut at = k.start;
        while at < k.end {
            let (place, channel) = (at / channels, at % channels);
            let (line, column) = (place / self.kernel.1, place % self.kernel.1);
            let pixel = self.pixel(image, (corner.0 + line, corner.1 + column));
            // Pixels that follow each other in memory are one copy, up to the end of the image's line.
            let run = match pixel {
                Some(pixel) if dense => (self.kernel.1 - column).min(self.size.1 - pixel % self.size.1),
                _ => 1,
            };
            let len = (run * channels - channel).min(k.end - at);
            let out = &mut out[at - k.start..][..len];
            match pixel {
                Some(pixel) => out.copy_from_slice(&self.pixels.from(pixel, channel)[..len]),
                None => out.fill(0.0),
            }
            at += len;
        }
    }

    /// The row of a pixel of the padded image; `None` for padding.
    fn pixel(&self, image: usize, (y, x): Extent) -> Option<usize> {
        let (y, x) = (y.checked_sub(self.padding.0)?, x.checked_sub(self.padding.1)?);
        let inside = y < self.size.0 && x < self.size.1;
        inside.then(|| (image * self.size.0 + y) * self.size.1 + x)
    }
}

/// Patches along one direction.
fn along(what: &'static str, size: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize> {
    option(kernel > 0, what, kernel, "at least 1")?;
    option(stride > 0, "stride", stride, "at least 1 in both directions")?;
    let padded = padding.checked_mul(2).and_then(|both| size.checked_add(both));
    let padded = padded.ok_or(Error::Overflow { what: "padding" })?;
    if kernel > padded {
        let relation = "must be at most the padded image's =";
        return Err(Error::Shape { what, got: kernel, relation, want: padded });
    }
    Ok((padded - kernel) / stride + 1)
}
