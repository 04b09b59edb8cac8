//! Convolutions: products whose A is made of patches.

use super::args::{Array, Options, exclusive, put, read, shared};
use super::context::kvern_context;
use super::guard;
use super::matmul::{Finish, kvern_epilogue};
use super::packed_b::kvern_packed_b;
use super::status::{Checked, kvern_status};
use super::workspace::kvern_workspace;
use crate::error::product;
use crate::matmul::{Patches, Window};
use crate::view::MatRef;

/// Images and how patches are cut from them; a sequence is an image of one line. Start from
/// KVERN_PATCHES_INIT. Strides of 0 mean 1.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_patches {
    /// sizeof(kvern_patches).
    pub struct_size: usize,
    /// Images, which follow each other in memory.
    pub images: usize,
    /// Lines of an image.
    pub height: usize,
    /// Pixels of a line.
    pub width: usize,
    /// Numbers of a pixel.
    pub channels: usize,
    /// Lines of a patch.
    pub kernel_height: usize,
    /// Pixels of a line of a patch.
    pub kernel_width: usize,
    /// Lines from one patch to the next.
    pub stride_y: usize,
    /// Pixels from one patch to the next.
    pub stride_x: usize,
    /// Lines of zeros above and below an image.
    pub padding_y: usize,
    /// Pixels of zeros left and right of an image.
    pub padding_x: usize,
}

const _: () = assert!(
    size_of::<kvern_patches>() == 11 * size_of::<usize>(),
    "no padding, or garbage becomes an option"
);
// SAFETY: integers: every pattern is a value.
unsafe impl Options for kvern_patches {}

impl kvern_patches {
    /// Pixels of all images.
    fn pixels(&self) -> Checked<usize> {
        Ok(product("images * height * width", &[self.images, self.height, self.width])?)
    }

    fn of<'a>(&self, pixels: MatRef<'a>) -> Checked<Patches<'a>> {
        let window = Window {
            kernel: (self.kernel_height, self.kernel_width),
            stride: (self.stride_y.max(1), self.stride_x.max(1)),
            padding: (self.padding_y, self.padding_x),
        };
        Ok(Patches::new(pixels, (self.height, self.width), window)?)
    }
}

/// `*out` = the patches of all images: the rows of C, and of the workspace that
/// `kvern_packed_b_workspace_bytes` is asked for.
///
/// Errors: NULL_POINTER, MISALIGNED, OPTION, SHAPE (a kernel beyond the padded image), UNSUPPORTED, OVERFLOW.
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_patches_count(patches: *const kvern_patches, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        let raw = read("patches", patches)?;
        put("out", out, raw.of(MatRef::of_shape(raw.pixels()?, raw.channels))?.rows())
    })
}

/// A convolution: `C = beta * C + act(alpha * A * B + bias)` with a row of A for each patch, in the order of
/// images, then lines, then columns, and in it the places of the kernel line by line, all channels of a place
/// together. The bits of `kvern_packed_b_multiply` with those rows; they are nowhere whole in memory.
///
/// `b`: (kernel_height * kernel_width * channels, n): weights stored (n, kernel_height, kernel_width,
/// channels) are packed as a transposed matrix. `x`: (images * height * width, channels), f32, one pixel a
/// row. `c`: (patches, n), f32. Strides in elements. `c` must not overlap the inputs. `epilogue`: NULL for `C
/// = A * B`. Allocates nothing. Errors: as `kvern_patches_count`; ALIASED, WORKSPACE, POISONED; C is
/// unchanged then. Threads: `ctx` and `b` shared, `ws` and C exclusive. Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_packed_b_convolve(
    ctx: *const kvern_context,
    ws: *mut kvern_workspace,
    b: *const kvern_packed_b,
    patches: *const kvern_patches,
    x: *const f32,
    x_row_stride: usize,
    n: usize,
    c: *mut f32,
    c_row_stride: usize,
    epilogue: *const kvern_epilogue,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and their shapes are true, by the header's contract.
    guard(|| unsafe {
        let (ctx, ws, b) = (shared("ctx", ctx)?, exclusive("ws", ws)?, &shared("b", b)?.b);
        let raw = read("patches", patches)?;
        let finish = Finish::read(epilogue, n)?;
        let x = Array::matrix("x", x, raw.pixels()?, raw.channels, x_row_stride)?;
        let patches = raw.of(x.view()?)?;
        let c = Array::matrix("c", c, patches.rows(), n, c_row_stride)?;
        let c = c.apart_from(&[x.span(), finish.span()])?;
        let (c, epilogue) = (c.view_mut()?, finish.get());
        Ok(ws.0.change("ws", |ws| b.convolve(&ctx.context, ws, &patches, c, &epilogue))??)
    })
}
