//! Recurrent states as files: what comes back, and what is refused.

use crate::support::{Random, temp};
use kvern::recurrent::{RecurrentState, StateOptions};

fn options() -> StateOptions {
    StateOptions::new(3, 5, 18).convolution(4, 3).sequences(3)
}

fn filled(options: StateOptions) -> RecurrentState {
    let mut state = RecurrentState::new(options).unwrap();
    let mut r = Random::new(90);
    for sequence in 0..options.sequences {
        for head in 0..3 {
            state.write(sequence, head, &r.vec(options.key_dim * options.value_dim)).unwrap();
        }
        let inputs = state.inputs(sequence).unwrap();
        let len = inputs.len();
        inputs.copy_from_slice(&r.vec(len));
    }
    state
}

/// Everything that can be read of a state.
fn contents(state: &mut RecurrentState) -> Vec<u32> {
    let o = *state.options();
    let mut all = Vec::new();
    for sequence in 0..o.sequences {
        all.push(state.len_of(sequence) as u32);
        for head in 0..o.heads {
            let mut matrix = vec![0.0; o.key_dim * o.value_dim];
            state.read(sequence, head, &mut matrix).unwrap();
            all.extend(matrix.iter().map(|x| x.to_bits()));
        }
        all.extend(state.inputs(sequence).unwrap().iter().map(|x| x.to_bits()));
    }
    all
}

#[test]
fn a_saved_state_comes_back() {
    let (mut state, file) = (filled(options()), temp("state"));
    state.save(&file).unwrap();
    let mut again = RecurrentState::new(options()).unwrap();
    again.restore(&file).unwrap();
    assert_eq!(contents(&mut again), contents(&mut state));
    // Into a larger one that holds something: the other sequences are empty then.
    let mut larger = filled(options().sequences(5));
    larger.restore(&file).unwrap();
    let (all, want) = (contents(&mut larger), contents(&mut state));
    assert_eq!(all[..want.len()], want);
    assert!(all[want.len()..].iter().all(|x| *x == 0));
    // Saved again, the same bytes.
    let bytes = std::fs::read(&file).unwrap();
    again.save(&file).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn what_is_no_whole_file_of_such_a_state_is_refused_and_changes_nothing() {
    let (mut state, file) = (filled(options()), temp("state-bad"));
    state.save(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    let before = contents(&mut state);
    let mut refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error = state.restore(&file).unwrap_err().to_string();
        assert_eq!(contents(&mut state), before, "{error}");
        error
    };
    for len in (0..200).chain([good.len() - 1]) {
        assert!(refused(&good[..len]).starts_with("stored length"), "{len} bytes");
    }
    assert!(refused(&[&good[..], &[0]].concat()).starts_with("stored length"));
    for at in (0..200).chain((200..good.len()).step_by(13)) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes);
    }
    for (other, what) in [
        (StateOptions::new(3, 5, 19), "stored value_dim = 19 must be 18"),
        (StateOptions::new(3, 6, 18), "stored key_dim = 6 must be 5"),
        (StateOptions::new(3, 5, 18).convolution(5, 3), "stored convolution = conv 3x5 must be conv 3x4"),
        (StateOptions::new(3, 5, 18), "stored convolution = conv 0x0 must be conv 3x4"),
        (options().sequences(4), "stored sequences = 4 must be at most the state's 3"),
    ] {
        filled(other).save(&file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(refused(&bytes), what);
    }
    assert!(state.restore(std::path::Path::new("/nowhere")).is_err());
    std::fs::remove_file(&file).unwrap();
}
