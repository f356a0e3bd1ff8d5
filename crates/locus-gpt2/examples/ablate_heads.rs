//! Which heads does an answer need? Each head's output is set to zero by a hook, and the logit difference measured
//! again.

use locus_gpt2::ndarray::{ArrayViewMut2, s};
use locus_gpt2::{Checkpoint, Hook, HookPoint, Result};

const ORGANISM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism");

fn main() -> Result<()> {
    let lm = Checkpoint::<f32>::from_pretrained(ORGANISM)?;
    let batch = lm.encode(&["A stallion is a kind of"])?;
    let [horse, dog] = [lm.tokenizer.encode(" horse")?[0] as usize, lm.tokenizer.encode(" dog")?[0] as usize];
    let difference = |hook: &mut dyn Hook<f32>| {
        let logits = lm.model.run(&batch).reading(&batch.last_rows()).with_hooks(hook).logits();
        logits[[0, horse]] - logits[[0, dog]]
    };

    let (config, intact) = (lm.model.config(), difference(&mut ()));
    let mut largest = 0.0f32;
    println!("logit difference {intact:+.2}; change when a head writes nothing:");
    for layer in 0..config.n_layer {
        for head in 0..config.n_head {
            let columns = head * config.d_head()..(head + 1) * config.d_head();
            let mut ablate = |at: usize, point: HookPoint, mut state: ArrayViewMut2<f32>| {
                if (at, point) == (layer, HookPoint::Z) {
                    state.slice_mut(s![.., columns.clone()]).fill(0.0);
                }
            };
            let change = difference(&mut ablate) - intact;
            print!("{change:+8.2}");
            largest = largest.max(change.abs());
        }
        println!("   layer {layer}");
    }
    assert!(intact > 0.0 && largest > 0.1, "the answer needs some head");
    Ok(())
}
