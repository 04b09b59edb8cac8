//! Tensors of files as weights and as f32: the bits of the blocks that lie in the file.

use crate::Folder;
use crate::random::Random;
use kvern::gguf::{Gguf, GgufWriter};
use kvern::quant::{PackedWeights, WeightFormat, dequantize, quantize};
use kvern::{Context, ContextOptions};

/// Blocks of a format: any bytes where it cannot be quantised to.
fn blocks(format: WeightFormat, len: usize, random: &mut Random) -> Vec<u8> {
    let mut blocks = vec![0x35; format.bytes(1, len).unwrap()];
    let _ = quantize(format, &random.vec(len), &mut blocks);
    blocks
}

#[test]
fn every_format_packs_to_the_blocks_of_the_file() {
    let (folder, mut random) = (Folder::new("gguf_weights"), Random::new(1));
    let (n, k, experts) = (18, 512, 3);
    let mut w = GgufWriter::new();
    let mut data = Vec::new();
    for format in WeightFormat::ALL {
        w.tensor(format.name(), format, &[k, n, experts]).unwrap();
        w.tensor(&format!("{}.matrix", format.name()), format, &[k, n]).unwrap();
        data.push(blocks(format, k * n * experts, &mut random));
        data.push(blocks(format, k * n, &mut random));
    }
    let path = folder.path("weights.gguf");
    w.save(&path, |i, out| out.write(&data[i])).unwrap();
    let file = Gguf::load(&path).unwrap();
    let ctx = Context::new(&ContextOptions::default().threads(2)).unwrap();
    for (format, data) in WeightFormat::ALL.into_iter().zip(data.chunks(2)) {
        let bytes = format.bytes(n, k).unwrap();
        let same = |packed: PackedWeights, want: &[u8]| {
            assert_eq!((packed.n(), packed.k(), packed.format()), (n, k, Some(format)));
            let mut back = vec![0; bytes];
            packed.to_blocks(&mut back).unwrap();
            assert_eq!(back, want, "{}", format.name());
        };
        let matrix = format!("{}.matrix", format.name());
        same(PackedWeights::from_gguf(&file, &matrix).unwrap(), &data[1]);
        same(PackedWeights::from_gguf_on(&ctx, &file, &matrix).unwrap(), &data[1]);
        for expert in 0..experts {
            let want = &data[0][expert * bytes..(expert + 1) * bytes];
            same(PackedWeights::from_gguf_expert(&file, format.name(), expert).unwrap(), want);
        }
        let tensor = file.tensor(&matrix).unwrap();
        let (mut want, got) = (vec![0f32; n * k], tensor.to_f32().unwrap());
        dequantize(format, &data[1], &mut want).unwrap();
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&want));
    }
}

#[test]
fn matrices_that_are_not_there_are_refused() {
    let folder = Folder::new("gguf_no_matrix");
    let (path, mut w) = (folder.path("a.gguf"), GgufWriter::new());
    w.tensor("experts", WeightFormat::F32, &[2, 3, 4]).unwrap();
    w.tensor("none", WeightFormat::F32, &[2, 3, 0]).unwrap();
    w.tensor("vector", WeightFormat::F32, &[5]).unwrap();
    w.save(&path, |_, out| out.write(&vec![0; out.len()])).unwrap();
    let file = Gguf::load(&path).unwrap();
    let says = |r: kvern::Result<PackedWeights>, text: &str| assert_eq!(r.unwrap_err().to_string(), text);
    says(PackedWeights::from_gguf(&file, "x"), "tensor = `x` must be one of the file");
    says(PackedWeights::from_gguf(&file, "experts"), "stored number of matrices = 4 of `experts` must be 1");
    says(PackedWeights::from_gguf(&file, "none"), "stored number of matrices = 0 of `none` must be 1");
    for (name, expert, experts) in
        [("experts", 4, 4), ("experts", usize::MAX, 4), ("none", 0, 0), ("vector", 1, 1)]
    {
        let text = format!("expert = {expert} must be below the matrices of the tensor = {experts}");
        says(PackedWeights::from_gguf_expert(&file, name, expert), &text);
    }
    let vector = PackedWeights::from_gguf(&file, "vector").unwrap();
    assert_eq!((vector.n(), vector.k()), (1, 5));
    let e = file.tensor("vector").unwrap().read_f32(&mut [0.0; 4]).unwrap_err();
    assert_eq!(e.to_string(), "out.len = 4 must equal the elements of the tensor = 5");
}
