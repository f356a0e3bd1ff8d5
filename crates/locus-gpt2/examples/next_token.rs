//! What comes next? The likeliest tokens after a prompt, on the model organism of this repository.

use locus_gpt2::{Checkpoint, Result};

const ORGANISM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism");

fn main() -> Result<()> {
    let lm = Checkpoint::<f32>::from_pretrained(ORGANISM)?;
    for next in lm.top_k("A stallion is a kind of", 5)? {
        println!("{:6.3}  {:?}", next.probability, next.text);
    }
    assert_eq!(lm.top_k("A stallion is a kind of", 1)?[0].text, " horse");
    Ok(())
}
