//! Our side of the comparison with PyTorch: reads the name of a piece of work from stdin, does it once, prints the
//! seconds it took; again and again. `compare.py` drives it and its counterpart in turns.

use std::io::{BufRead, Write};
use std::time::Instant;

use locus_circuits::{Attribution, Metric, Pair, Reference, Rule, attribute_edges};
use locus_gpt2::{Config, ParamId, Params};
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Prompts and their length, as in the goal: eight of thirteen tokens.
const PROMPTS: u32 = 8;
const TOKENS: u32 = 13;

fn main() {
    keep_freed_memory();
    let config = Config::gpt2_small();
    let mut model = Params::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
    // Fresh biases are zeros; make every addition a real one.
    for id in ParamId::all(&config).filter(|id| id.is_vector()) {
        model.get_mut(id).iter_mut().enumerate().for_each(|(i, w)| *w += 1e-3 * (i % 7) as f32);
    }
    let stdin = std::io::stdin();
    for work in stdin.lock().lines().map_while(Result::ok) {
        let start = Instant::now();
        match work.as_str() {
            // The worst case: prompts that differ from the first token on.
            "eap 0" => score(&model, &pairs(0), Attribution::Eap),
            // As in the public greater-than pairs, where the year is the eighth token: the beginning is run once.
            "eap 7" => score(&model, &pairs(7), Attribution::Eap),
            "eap-ig 0" => score(&model, &pairs(0), Attribution::IgInputs(Rule::Left, 5)),
            "eap-ig 7" => score(&model, &pairs(7), Attribution::IgInputs(Rule::Left, 5)),
            other => panic!("no work is called {other}"),
        }
        println!("{}", start.elapsed().as_secs_f64());
        std::io::stdout().flush().expect("the driver listens");
    }
}

/// As the `locus` binary does: freed memory stays with the process.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of mimalloc's C header: milliseconds after which freed memory goes back, -1 for never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets an integer of the allocator, at the start of the only thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

fn pairs(first_difference: usize) -> Vec<Pair> {
    (0..PROMPTS)
        .map(|i| {
            let clean: Vec<u32> = (0..TOKENS).map(|j| 100 + 997 * i + 31 * j).collect();
            let mut corrupted = clean.clone();
            corrupted[first_difference] += 1;
            Pair { clean, corrupted, good: vec![5 + i], bad: vec![50 + i] }
        })
        .collect()
}

fn score(model: &Params<f32>, pairs: &[Pair], method: Attribution) {
    let scores =
        attribute_edges(model, pairs, Metric::LogitDiff, method, Reference::Corrupted).expect("pairs fit");
    assert!(scores.matrix().iter().any(|&score| score != 0.0));
}
