//! Headers that do not hold together: each is refused, with what was found and what must hold.

use crate::raw::Raw;
use crate::read;

/// The file must be refused with exactly this text.
#[track_caller]
fn refused(raw: Raw, text: &str) {
    assert_eq!(read(&raw.0).unwrap_err().to_string(), text);
}

#[test]
fn what_is_no_gguf_file_of_a_known_version_is_refused() {
    let start = |magic: &[u8], version: u32| Raw(magic.to_vec()).u32(version).u64(0).u64(0);
    refused(start(b"GGML", 3), "stored magic = GGML must be GGUF");
    refused(start(b"\0\xFFUF", 3), "stored magic = \\x00\\xffUF must be GGUF");
    refused(start(b"GGUF", 1), "stored version = 1 must be 2..=3");
    refused(start(b"GGUF", 4), "stored version = 4 must be 2..=3");
    for version in [2, 3u32] {
        let big = start(b"GGUF", version.swap_bytes());
        refused(big, "stored byte order = big-endian must be little-endian");
        assert_eq!(read(&start(b"GGUF", version).0).unwrap().version(), version);
    }
    refused(Raw::default(), "stored bytes of the file = 0 must be at least 0 + 4, the end of the magic");
}

#[test]
fn every_prefix_of_a_header_is_refused() {
    let raw = Raw::new(1, 2).key("a", 8).text("text").key("b", 9).u32(4).u64(2).u32(1).u32(2);
    let raw = raw.tensor("t", &[4], 0, 0).data(32, &[0; 16]);
    assert!(read(&raw.0).is_ok());
    for len in 0..raw.0.len() {
        let e = read(&raw.0[..len]).unwrap_err().to_string();
        assert!(e.starts_with("stored ") && e.contains(" must be "), "{len}: {e}");
    }
}

#[test]
fn counts_are_held_against_the_bytes_before_anything_is_allocated() {
    let most = u64::MAX;
    refused(
        Raw::new(most, 0),
        "stored number of tensors = 18446744073709551615 must be at most the 0 that the rest of the file \
         could hold",
    );
    refused(
        Raw::new(0, 3).bytes(&[0; 26]),
        "stored number of keys = 3 must be at most the 2 that the rest of the file could hold",
    );
    refused(
        Raw::new(2, 0).bytes(&[0; 47]),
        "stored number of tensors = 2 must be at most the 1 that the rest of the file could hold",
    );
    let array = |kind: u32, len: u64| Raw::new(0, 1).key("a", 9).u32(kind).u64(len).bytes(&[0; 24]);
    for (kind, len, most) in
        [(0, 25, 24), (1, 25, 24), (2, 13, 12), (4, 7, 6), (12, 4, 3), (8, 4, 3), (9, 3, 2)]
    {
        let text = format!(
            "stored length of an array = {len} must be at most the {most} that the rest of the file could \
             hold"
        );
        refused(array(kind, len), &text);
    }
    for len in [1 << 32, 1 << 61, 1 << 63, most] {
        assert!(read(&array(8, len).0).is_err() && read(&array(12, len).0).is_err());
    }
}

#[test]
fn texts_are_short_inside_of_the_file_and_utf8() {
    let text = |len: u64, bytes: &[u8]| Raw::new(0, 1).u64(len).bytes(bytes);
    let tail = [0; 32];
    refused(text(65536, &tail), "stored key = 65536 bytes must be at most 65535 bytes");
    refused(text(u64::MAX, &tail), "stored key = 18446744073709551615 bytes must be at most 65535 bytes");
    refused(text(65535, &tail), "stored bytes of the file = 64 must be at least 32 + 65535, the end of key");
    let no_utf8 = text(4, b"ab\xFFd").u32(0).bytes(&[0; 8]);
    refused(no_utf8, "stored key = `ab` and no UTF-8 at byte 34 of the file must be UTF-8");
    let value = Raw::new(0, 1).key("k", 8).u64(2).bytes(&[0xC3, 0x28]);
    refused(value, "stored text of a value = `` and no UTF-8 at byte 45 of the file must be UTF-8");
    let long = Raw::new(0, 1).key("k", 8).u64(u64::MAX).bytes(&[0; 8]);
    refused(
        long,
        "stored bytes of the file = 53 must be at least 45 + 18446744073709551615, the end of text of a \
         value",
    );
    let name = "n".repeat(65536);
    let tensor = Raw::new(1, 0).tensor(&name, &[], 0, 0).data(32, &[0; 4]);
    refused(tensor, "stored name of a tensor = 65536 bytes must be at most 65535 bytes");
}

#[test]
fn values_are_of_their_type() {
    refused(Raw::new(0, 1).key("k", 13).bytes(&[0; 8]), "stored type of a value = 13 must be 0..=12");
    refused(Raw::new(0, 1).key("k", 9).u32(77).u64(0), "stored type of a value = 77 must be 0..=12");
    refused(Raw::new(0, 1).key("k", 7).bytes(&[2]), "stored value of type bool = 2 must be 0 or 1");
    let flags = Raw::new(0, 1).key("k", 9).u32(7).u64(3).bytes(&[0, 1, 9]);
    refused(flags, "stored value of type bool = 9 must be 0 or 1");
}

#[test]
fn names_are_there_once() {
    let keys = Raw::new(0, 2).key("a.b", 0).bytes(&[1]).key("a.b", 0).bytes(&[1]);
    refused(keys, "stored keys = `a.b` twice must be there once");
    let tensors = Raw::new(2, 0).tensor("t", &[0], 0, 0).tensor("t", &[0], 0, 0);
    refused(tensors, "stored tensors = `t` twice must be there once");
}

#[test]
fn alignments_are_powers_of_two_and_multiples_of_8() {
    let file = |alignment: u32| {
        let raw = Raw::new(1, 1).key("general.alignment", 4).u32(alignment).tensor("t", &[1], 0, 0);
        raw.data(alignment.clamp(8, 4096) as usize, &1.0f32.to_le_bytes())
    };
    for alignment in [0, 1, 4, 12, 24, 40, u32::MAX] {
        let must = "must be a power of two and a multiple of 8";
        refused(file(alignment), &format!("stored general.alignment = {alignment} {must}"));
    }
    for alignment in [8, 32, 64, 4096] {
        let read = read(&file(alignment).0).unwrap();
        assert_eq!(read.alignment(), alignment as usize);
        assert_eq!(read.tensor("t").unwrap().to_f32(), Ok(vec![1.0]));
    }
    let text = Raw::new(0, 1).key("general.alignment", 8).text("32");
    refused(text, "stored general.alignment = a value of type str must be an integer from 0 on");
    // No data, and an alignment beyond the file.
    assert!(read(&Raw::new(0, 1).key("general.alignment", 4).u32(1 << 31).0).is_ok());
}

#[test]
fn shapes_hold_whole_blocks_and_fit_the_address_space() {
    let tensor = |shape: &[u64], kind| Raw::new(1, 0).tensor("w", shape, kind, 0).data(32, &[0; 64]);
    refused(tensor(&[1; 5], 0), "stored dimensions of a tensor = 5 of `w` must be at most 4");
    refused(
        tensor(&[48, 2], 8),
        "stored k of a tensor = 48 of `w` must be a multiple of the block of 32 (q8_0)",
    );
    refused(
        tensor(&[128], 12),
        "stored k of a tensor = 128 of `w` must be a multiple of the block of 256 (q4_k)",
    );
    let overflow = " does not fit the address space";
    refused(tensor(&[1 << 62, 1 << 62], 0), &format!("elements of a tensor{overflow}"));
    refused(tensor(&[u64::MAX, 2], 0), &format!("elements of a tensor{overflow}"));
    refused(tensor(&[1 << 62], 0), &format!("bytes of a tensor{overflow}"));
    // Of a type that is unknown, the elements are still counted.
    refused(tensor(&[1 << 62, 1 << 62], 99), &format!("elements of a tensor{overflow}"));
}

#[test]
fn data_are_aligned_and_end_inside_of_the_file() {
    let tensor = |offset, data: usize| {
        let raw = Raw::new(1, 0).tensor("w", &[4], 0, offset).data(32, &vec![0; data]);
        assert_eq!(raw.0.len(), 64 + data);
        raw
    };
    assert!(read(&tensor(0, 16).0).is_ok() && read(&tensor(32, 48).0).is_ok());
    refused(
        tensor(16, 64),
        "stored offset of a tensor = 16 of `w` must be a multiple of the alignment of 32",
    );
    refused(tensor(0, 15), "stored end of a tensor = 64 + 0 + 16 of `w` must be at most the file's 79 bytes");
    refused(
        tensor(32, 47),
        "stored end of a tensor = 64 + 32 + 16 of `w` must be at most the file's 111 bytes",
    );
    for offset in [1 << 40, 1 << 63, u64::MAX - 31] {
        let text = format!(
            "stored end of a tensor = 64 + {offset} + 16 of `w` must be at most the file's 128 bytes"
        );
        refused(tensor(offset, 64), &text);
    }
}

#[test]
fn types_that_are_not_known_are_named_where_they_are_asked_for() {
    let raw = Raw::new(3, 0).tensor("ints", &[2], 26, 0).tensor("new", &[7], 99, 32);
    let raw = raw.tensor("far", &[7], 98, 1 << 40).data(32, &[7; 64]);
    let file = read(&raw.0).unwrap();
    let ints = file.tensor("ints").unwrap();
    assert_eq!((ints.bytes().unwrap(), ints.kind().name()), (&[7; 8][..], Some("i32")));
    let says = |e: kvern::Error, text: &str| {
        let e = e.to_string();
        assert!(e.starts_with(text), "{e}");
    };
    let ids = "must be one of the type ids of GGUF 0 1 2";
    says(ints.format().unwrap_err(), &format!("stored type of a tensor = 26 (i32) of `ints` {ids}"));
    says(ints.to_f32().unwrap_err(), &format!("stored type of a tensor = 26 (i32) of `ints` {ids}"));
    for (name, id) in [("new", 99), ("far", 98)] {
        let tensor = file.tensor(name).unwrap();
        let text = format!("stored type of a tensor = {id} (no known type) of `{name}` must be ");
        says(tensor.bytes().unwrap_err(), &format!("{text}a type of known size"));
        says(tensor.format().unwrap_err(), &format!("{text}one of the type ids"));
        says(kvern::quant::PackedWeights::from_gguf(&file, name).unwrap_err(), &text);
    }
    says(file.tensor("none").map(drop).unwrap_err(), "tensor = `none` must be one of the file");
}

#[test]
fn dimensions_may_be_zero_or_missing_and_tensors_may_share_bytes() {
    let raw = Raw::new(5, 0).tensor("empty", &[0, 1 << 60], 0, 1 << 40).tensor("none", &[5, 0], 0, 0);
    let raw = raw.tensor("number", &[], 0, 0).tensor("same", &[1, 1, 1, 1], 0, 0);
    let raw = raw.tensor("more", &[2], 0, 0).data(32, bytemuck::bytes_of(&[2.5f32, 3.5]));
    let file = read(&raw.0).unwrap();
    for name in ["empty", "none"] {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.len(), tensor.bytes().unwrap(), tensor.to_f32().unwrap()), (0, &[][..], vec![]));
        assert!(tensor.is_empty());
    }
    assert_eq!(file.tensor("number").unwrap().shape(), &[0usize; 0]);
    assert_eq!(file.tensor("number").unwrap().to_f32(), Ok(vec![2.5]));
    assert_eq!(file.tensor("same").unwrap().to_f32(), Ok(vec![2.5]));
    assert_eq!(file.tensor("more").unwrap().to_f32(), Ok(vec![2.5, 3.5]));
}
