//! The logits do not depend on the cache, the threads or the instruction set.

use kvern::{Context, ContextOptions, Isa};
use mini::cli::ModelArgs;
use mini::infer::{generate, generate_hashed};
use mini::model::{Model, Quant, Session};

const PROMPT: [u32; 3] = [2, 700, 5];

/// The logits of 20 tokens after it, of the initial weights as [`Quant::ALL`], on every CPU.
const GOLDEN: [&str; 3] = [
    "e4af3d603cd26af3f6ffc98ffe70baa3b2e23e15e5f33d024b15c21e1e7b20a8",
    "1717c4eae5fd09de0b7a9078b91acbe3853454eb44e8fa0cb4cdf4184b0d40e0",
    "5824e53b1e1db38e69a5da00e1da4ec251b257faec2dccc655b692317be3500c",
];

fn context(isa: Isa, threads: usize) -> Context {
    Context::new(&ContextOptions::default().isa_cap(isa).threads(threads)).unwrap()
}

/// Token ids spread over the vocabulary.
fn text(length: u32) -> Vec<u32> {
    (0..length).map(|i| i * 389 % 1004).collect()
}

/// Hashes for every tier, 1 and 2 threads, with and without cache; the model is packed once for each context.
fn hashes(args: &ModelArgs, quant: Quant, prompt: &[u32], count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for &isa in Isa::available() {
        for threads in [1, 2] {
            let ctx = context(isa, threads);
            let model = Model::initial(&ctx, args.shape(), args.seed, quant).unwrap();
            let mut session = Session::new(&ctx, &model, prompt.len() + count).unwrap();
            for cached in [true, false] {
                all.push(generate_hashed(&mut session, prompt, count, cached).unwrap().1);
            }
        }
    }
    all
}

fn assert_one(hashes: &[String]) {
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:#?}");
}

#[test]
fn logits_are_one_hash_for_cache_threads_and_tiers() {
    let found = Quant::ALL.map(|quant| {
        let hashes = hashes(&ModelArgs::default(), quant, &PROMPT, 20);
        assert_one(&hashes);
        hashes[0].clone()
    });
    assert_eq!(found, GOLDEN);
}

#[test]
fn more_layers_and_a_long_prompt_change_nothing_in_that() {
    // Longer than one chunk of keys in the attention.
    let args = ModelArgs { dim: 64, heads: 2, ffn: 96, layers: 2, context: 300, seed: 7 };
    for quant in Quant::ALL {
        assert_one(&hashes(&args, quant, &text(254), 5));
    }
}

#[test]
fn rows_of_one_pass_are_the_rows_of_single_tokens() {
    let ctx = Context::serial();
    let ids = text(40);
    for quant in Quant::ALL {
        let model = Model::initial(&ctx, ModelArgs::default().shape(), 3, quant).unwrap();
        let mut session = Session::new(&ctx, &model, ids.len()).unwrap();
        let together = session.forward(&ids).unwrap().to_vec();
        session.clear();
        let mut one_by_one = Vec::new();
        for id in &ids {
            one_by_one.extend_from_slice(session.forward(&[*id]).unwrap());
        }
        assert!(together.iter().map(|x| x.to_bits()).eq(one_by_one.iter().map(|x| x.to_bits())));
        assert!(together.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_token_changes_what_follows_and_nothing_before() {
    let ctx = Context::serial();
    let model = Model::initial(&ctx, ModelArgs::default().shape(), 3, Quant::Fp32).unwrap();
    let mut session = Session::new(&ctx, &model, 16).unwrap();
    let ids = text(16);
    let before = session.forward(&ids).unwrap().to_vec();
    let mut changed = ids.clone();
    changed[9] += 1;
    session.clear();
    let after = session.forward(&changed).unwrap();
    for (i, (a, b)) in before.chunks(1004).zip(after.chunks(1004)).enumerate() {
        assert_eq!(a == b, i < 9, "row {i}");
    }
}

#[test]
fn positions_matter() {
    let ctx = Context::serial();
    let model = Model::initial(&ctx, ModelArgs::default().shape(), 3, Quant::Fp32).unwrap();
    let mut session = Session::new(&ctx, &model, 3).unwrap();
    let last = |session: &mut Session, ids: &[u32]| {
        session.clear();
        session.forward(ids).unwrap()[2 * 1004..].to_vec()
    };
    let (there, back) = (last(&mut session, &[10, 20, 30]), last(&mut session, &[20, 10, 30]));
    assert!(there.iter().zip(&back).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn going_back_repeats_the_same_logits() {
    let ctx = Context::serial();
    let model = Model::initial(&ctx, ModelArgs::default().shape(), 3, Quant::Int4).unwrap();
    let mut session = Session::new(&ctx, &model, 8).unwrap();
    session.forward(&PROMPT).unwrap();
    let first = session.forward(&[9]).unwrap().to_vec();
    session.truncate(PROMPT.len()).unwrap();
    assert_eq!(session.forward(&[9]).unwrap(), first);
    assert_eq!(session.len(), 4);
    assert!(!session.is_empty() && session.truncate(5).is_err());
}

/// More rows may need less workspace: the products are cut another way.
#[test]
fn a_session_takes_every_number_of_tokens_up_to_its_batch() {
    let ctx = context(Isa::detect(), 4);
    for quant in Quant::ALL {
        let model = Model::initial(&ctx, ModelArgs::default().shape(), 3, quant).unwrap();
        for batch in [1, 4, 200] {
            let mut session = Session::new(&ctx, &model, batch).unwrap();
            for n in [1, 2, 3, 4, 7, 33, 192, 193, 200].into_iter().filter(|&n| n <= batch) {
                session.clear();
                assert_eq!(session.forward(&text(n as u32)).unwrap().len(), n * 1004);
            }
        }
    }
}

#[test]
fn a_batch_beyond_the_limit_is_refused_with_the_numbers() {
    let ctx = Context::serial();
    let args = ModelArgs { dim: 32, heads: 1, ffn: 65_536, ..ModelArgs::default() };
    let model = Model::initial(&ctx, args.shape(), 3, Quant::Fp32).unwrap();
    for batch in [131_072, usize::MAX] {
        let error = Session::new(&ctx, &model, batch).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{batch} tokens at once")), "{error}");
        assert!(error.contains("--ffn 65536"), "{error}");
    }
}

#[test]
fn refused_calls_leave_the_sequence_as_it_was() {
    let ctx = Context::serial();
    let args = ModelArgs { context: 6, ..ModelArgs::default() };
    let model = Model::initial(&ctx, args.shape(), 3, Quant::Fp32).unwrap();
    let mut session = Session::new(&ctx, &model, 4).unwrap();
    session.forward(&PROMPT).unwrap();
    for (ids, message) in [
        (&[][..], "0 tokens in one call; 1 to 4 are possible"),
        (&[1; 5], "5 tokens in one call; 1 to 4 are possible"),
        (&[1; 4], "4 tokens after 3 are more than --context 6"),
        (&[1, 1004], "ids = 1004 must be below the table's rows = 1004"),
    ] {
        assert_eq!(session.forward(ids).unwrap_err().to_string(), message);
        assert_eq!(session.len(), 3);
    }
    assert!(generate(&mut session, &[], 1, true, |_| ()).is_err());
    assert!(generate(&mut session, &PROMPT, 5, true, |_| ()).is_err());
    assert_eq!(generate(&mut session, &PROMPT, 4, true, |_| ()).unwrap().ids.len(), 4);
}
