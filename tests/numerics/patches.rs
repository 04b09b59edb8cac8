//! Convolutions: the bits of the product with the patches as rows of a matrix, at every stride and padding;
//! and what cannot be.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::matmul::{Patches, Window};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, PackedB, Workspace};

/// The matrix of patches, element by element.
fn im2col(x: &[f32], channels: usize, size: (usize, usize), images: usize, w: Window) -> Vec<f32> {
    let out = |size: usize, kernel: usize, stride: usize, padding: usize| {
        (size + 2 * padding - kernel) / stride + 1
    };
    let (down, across) =
        (out(size.0, w.kernel.0, w.stride.0, w.padding.0), out(size.1, w.kernel.1, w.stride.1, w.padding.1));
    let mut rows = Vec::new();
    for image in 0..images {
        for (top, left) in (0..down).flat_map(|y| (0..across).map(move |x| (y * w.stride.0, x * w.stride.1)))
        {
            for (y, x_at) in (0..w.kernel.0).flat_map(|y| (0..w.kernel.1).map(move |x| (top + y, left + x))) {
                let inside = |at: usize, size: usize, padding: usize| at >= padding && at - padding < size;
                for channel in 0..channels {
                    let seen = inside(y, size.0, w.padding.0) && inside(x_at, size.1, w.padding.1);
                    rows.push(if seen {
                        let pixel = (image * size.0 + y - w.padding.0) * size.1 + x_at - w.padding.1;
                        x[pixel * channels + channel]
                    } else {
                        0.0
                    });
                }
            }
        }
    }
    rows
}

#[test]
fn a_convolution_has_the_bits_of_the_product_with_its_patches() {
    let mut r = Random::new(51);
    let square = |kernel, stride, padding| Window {
        kernel: (kernel, kernel),
        stride: (stride, stride),
        padding: (padding, padding),
    };
    let line =
        |kernel, stride, padding| Window { kernel: (1, kernel), stride: (1, stride), padding: (0, padding) };
    // (images, size, channels, outputs, window): vision patches, Whisper's two, overlaps, odd ones.
    let cases = [
        (2, (32, 32), 3, 64, square(8, 8, 0)),
        (1, (1, 48), 16, 64, line(3, 1, 1)),
        (3, (1, 48), 64, 64, line(3, 2, 1)),
        (1, (7, 5), 4, 37, square(3, 1, 1)),
        (2, (9, 11), 1, 5, Window { kernel: (2, 5), stride: (3, 1), padding: (0, 2) }),
        (1, (1, 1), 8, 16, square(3, 1, 1)),
        (1, (2, 3), 300, 33, square(2, 1, 1)),
        (0, (4, 4), 3, 8, square(2, 2, 0)),
        (1, (1, 700), 80, 96, line(3, 1, 1)),
        (2, (3, 3), 0, 8, square(2, 1, 0)),
    ];
    for (case, (images, size, channels, n, window)) in cases.into_iter().enumerate() {
        let pixels = images * size.0 * size.1;
        let k = window.kernel.0 * window.kernel.1 * channels;
        let (x, w, bias) = (r.vec(pixels * channels), r.vec(k * n), r.vec(n));
        let rows = im2col(&x, channels, size, images, window);
        let gap = case % 3;
        let mut strided = vec![f32::NAN; pixels * (channels + gap)];
        for (to, from) in
            strided.chunks_exact_mut((channels + gap).max(1)).zip(x.chunks_exact(channels.max(1)))
        {
            to[..channels].copy_from_slice(from);
        }
        let view = MatRef::new(&strided, pixels, channels, channels + gap).unwrap();
        let patches = Patches::new(view, size, window).unwrap();
        let m = patches.rows();
        assert_eq!((m * k, patches.cols()), (rows.len(), k));
        let residual = r.vec(m * n);
        let e = Epilogue::default().bias(&bias).activation(Activation::GeluErf).scaled(0.5, 1.0);
        for_each_isa(|ctx| {
            for threads in [1, 2, 3, 8] {
                let ctx = context(ctx.isa(), threads);
                let b = PackedB::pack(&ctx, MatRef::dense(&w, k, n).unwrap()).unwrap();
                let mut ws = Workspace::new(b.workspace_bytes(&ctx, m).unwrap()).unwrap();
                for e in [&Epilogue::default(), &e] {
                    let (mut got, mut want) = (residual.clone(), residual.clone());
                    let a = MatRef::dense(&rows, m, k).unwrap();
                    b.multiply(&ctx, &mut ws, a, MatMut::dense(&mut want, m, n).unwrap(), e).unwrap();
                    let c = MatMut::dense(&mut got, m, n).unwrap();
                    b.convolve(&ctx, &mut ws, &patches, c, e).unwrap();
                    assert_same_bits(&got, &want, &format!("case {case} at {} by {threads}", ctx.isa()));
                }
            }
        });
    }
}

#[test]
fn lines_are_images_of_one_line() {
    let x = Random::new(52).vec(2 * 9 * 4);
    let rows = MatRef::dense(&x, 18, 4).unwrap();
    let patches = Patches::of_lines(rows, 9, 3, 2, 1).unwrap();
    assert_eq!((patches.out_size(), patches.rows(), patches.cols()), ((1, 5), 10, 12));
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let x = vec![1.0; 12 * 4];
    let rows = MatRef::dense(&x, 12, 4).unwrap();
    let window = Window { kernel: (2, 2), stride: (1, 1), padding: (0, 0) };
    let say = |size, window: Window| Patches::new(rows, size, window).unwrap_err().to_string();
    assert_eq!(say((5, 2), window), "pixels.rows = 12 must be a multiple of height * width, such as 10");
    assert_eq!(say((0, 2), window), "height * width = 0 must be at least 1");
    assert_eq!(say((3, 4), Window { kernel: (0, 2), ..window }), "kernel height = 0 must be at least 1");
    assert_eq!(
        say((3, 4), Window { stride: (1, 0), ..window }),
        "stride = 0 must be at least 1 in both directions"
    );
    let wide = Window { kernel: (2, 5), ..window };
    assert_eq!(say((3, 4), wide), "kernel width = 5 must be at most the padded image's = 4");
    let padding = (usize::MAX, 0);
    assert_eq!(say((3, 4), Window { padding, ..window }), "padding does not fit the address space");
    assert!(Patches::new(rows.t(), (2, 2), window).unwrap_err().to_string().contains("transposed"));

    let ctx = Context::serial();
    let b = PackedB::pack(&ctx, MatRef::dense(&x[..32], 16, 2).unwrap()).unwrap();
    let mut ws = Workspace::new(b.workspace_bytes(&ctx, 6).unwrap()).unwrap();
    let mut c = [3.0; 12];
    let patches = Patches::new(rows, (3, 4), window).unwrap();
    let small = MatMut::dense(&mut c[..10], 5, 2).unwrap();
    let e = b.convolve(&ctx, &mut ws, &patches, small, &Epilogue::default()).unwrap_err().to_string();
    assert_eq!(e, "c.rows = 5 must equal a.rows = 6");
    let other = Patches::new(rows, (3, 4), Window { kernel: (1, 2), ..window }).unwrap();
    let all = MatMut::dense(&mut c, 6, 2).unwrap();
    let e = b.convolve(&ctx, &mut ws, &other, all, &Epilogue::default()).unwrap_err().to_string();
    assert_eq!(e, "a.cols = 8 must equal the packed b's k = 16");
    assert_eq!(c, [3.0; 12]);
}
