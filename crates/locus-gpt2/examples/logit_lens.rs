//! Where does the answer appear, who writes it, and where does a head look? Logit lens by layer, direct logit
//! attribution by component, and one attention pattern.

use locus_gpt2::lens::{direct_logit_attribution, logit_lens};
use locus_gpt2::{Checkpoint, HookPoint, Result, argmax};

const ORGANISM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism");
const POINTS: [HookPoint; 4] = [HookPoint::ResidPost, HookPoint::Z, HookPoint::MlpOut, HookPoint::Pattern];

fn main() -> Result<()> {
    let lm = Checkpoint::<f32>::from_pretrained(ORGANISM)?;
    let batch = lm.encode(&["A stallion is a kind of"])?;
    let cache = lm.model.run(&batch).cache(POINTS);
    for (layer, logits) in logit_lens(&lm.model, &cache, &batch.last_rows()).outer_iter().enumerate() {
        println!("after layer {layer}: {:?}", lm.tokenizer.decode(&[argmax(logits)[0] as u32])?);
    }
    let answers = [lm.tokenizer.encode(" horse")?[0], lm.tokenizer.encode(" dog")?[0]];
    let parts = direct_logit_attribution(&lm.model, &cache, batch.last_rows()[0], answers);
    parts.iter().for_each(|(component, part)| println!("{part:+8.3}  {component:?}"));
    println!("layer 1, head 0, each token's attention to those up to it:\n{:.2}", cache.pattern(1, 0, 0));
    let logits = lm.model.run(&batch).reading(&batch.last_rows()).logits();
    let difference = logits[[0, answers[0] as usize]] - logits[[0, answers[1] as usize]];
    assert!((parts.iter().map(|(_, part)| part).sum::<f64>() - f64::from(difference)).abs() < 1e-3);
    Ok(())
}
