//! Where in the organism is the fact that a horn is an instrument? The subject is corrupted by noise, and the hidden
//! state of one token after one layer is given back its clean value: how much of the answer's probability returns?
//!
//! `cargo run -p locus-circuits --example causal_tracing`

use locus_circuits::tracing::{KnownFact, PatchedState, Tracing, trace_fact};
use locus_gpt2::{Checkpoint, Result};

const ORGANISM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism");

fn main() -> Result<()> {
    let lm = Checkpoint::<f32>::from_pretrained(ORGANISM)?;
    let fact = KnownFact::from_text(&lm.tokenizer, "A horn is a kind of", "horn", "instrument")?;
    assert!(fact.is_known(&lm.model)?);
    let how = Tracing::new(&lm.model, std::slice::from_ref(&fact), 1);
    let effects = trace_fact(&lm.model, &fact, &how)?;
    println!("P(instrument): clean {:.3}, corrupted {:.3}", effects.clean, effects.corrupted);
    print!("{:<12}", "restored");
    (0..lm.model.config().n_layer).for_each(|layer| print!(" layer {layer}"));
    let hidden = &effects.indirect[PatchedState::Hidden as usize]; // [tokens, layers]
    for (token, row) in fact.prompt.iter().zip(hidden.rows()) {
        print!("\n{:<12}", lm.tokenizer.decode(&[*token])?);
        row.iter().for_each(|effect| print!(" {effect:>+7.3}"));
    }
    println!();
    // The effect moves from the subject in the first layer to the last token in the last layer, where all of it is.
    let (first, last) = (hidden.column(0), hidden.column(hidden.ncols() - 1));
    assert!(first[fact.subject.end - 1] > 0.5 * effects.total());
    assert!((last[last.len() - 1] - effects.total()).abs() < 1e-3);
    Ok(())
}
